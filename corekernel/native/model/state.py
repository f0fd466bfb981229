"""What the model of the call protocol is made of: one slot, its parties, their program counters.

The state word and the wait word hold the same bits as in `abi.cdef.h`. A party's program counter (`at`) names the
shared access it makes *next*; its private variables are the fields beside it, zeroed once dead so that equal
futures are equal states. Names are plain strings: they are hashed millions of times.

Fields `faulty`, `submitted`, `ran`, `bound`, `bindings` and `spent` are ghosts: nothing in the protocol reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from corekernel.native.model.explorer import Move

IDLE, REQUEST, REPLY, NESTED, NESTED_REPLY, CANCELLED, DIED = range(7)
SLEEP, UNBOUND = 0x10, 0x20
PHASES = 0x0F

OK, WAIT, GAVE_UP = 0, -5, -3
AGAIN, EINTR, TIMEDOUT = 0, 4, 110


def phase(word: int) -> int:
    """Phase of a state word."""
    return word & PHASES


def ready(word: int) -> bool:
    """Whether a state word admits a request, UNBOUND apart."""
    return phase(word) in (IDLE, REPLY)


def sequence(word: int) -> int:
    """Sequence of a state word."""
    return word >> 8


def word_of(number: int, bits: int) -> int:
    """A state word."""
    return number << 8 | bits


class Carrier(NamedTuple):
    """A carrier: its program counter, private variables, and its command word."""

    at: str = "park.load"
    command: str = "parked"  # run, park, leave, parked: COMMAND_* of carrier.h
    parked: bool = True
    shelved: bool = True  # in a list of the pool; the control thread's
    buffer: int = 0  # the buffer it shares with its caller: which binding's, 0 none
    sequence: int = 0
    seen: int = 0
    result: int = AGAIN
    nested: bool = False  # it waits for NESTED_REPLY, not for REQUEST
    status: int = OK
    sample: int = 0
    spent: int = 0  # steps taken since it was told to park
    # of a polled service
    ordered: bool = False  # `orders` has been bumped since the poller visited it
    look: bool = False  # it is to be looked at without a bit
    watched: bool = False  # the poller has taken it up


class Leg(NamedTuple):
    """The leg's fields, ordered by the state word: a racing access shows as a wrong `request` or `answers`."""

    request: int = 0
    operation: str = "p"
    answers: int = 0
    status: int = OK
    wait_sequence: int = 0


class State(NamedTuple):
    """The whole system at one instant."""

    word: int
    carriers: tuple[Carrier, ...]
    wait: int = 0
    bit: bool = False  # the slot's in the ready bitmap
    leg: Leg = Leg()
    # the client
    at: str = "ready"
    seen: int = 0
    result: int = AGAIN
    sequence: int = 0
    wait_sequence: int = 0
    abandoned: bool = False
    cancelling: bool = False
    signal: str = ""  # due, pending: one that the program wants to know of
    outcomes: tuple[str, ...] = ()
    # the condition, and the carrier that changes it
    holds: bool = False
    registered: bool = False
    notifier: str = "script"
    script: int = 0
    notifier_seen: int = 0
    # the control thread of the service
    control: str = "idle"
    target: int = 0
    control_seen: int = 0
    forced: bool = False
    # the core
    core: str = "watch"
    core_seen: int = 0
    # what the environment may still do
    cancels: int = 0
    unbinds: int = 0
    buffers: int = 0
    shrinks: int = 0
    # ghosts
    bound: int = 0  # index of the carrier whose slot it is, -1 none
    bindings: int = 1  # how many there have been
    submitted: int = 0  # one bit a request
    ran: int = 0
    faulty: str = ""


@dataclass(frozen=True)
class Scenario:
    """What happens in one exploration, and within which bounds.

    Attributes:
        calls: the client's calls, one letter each: p plain, w answers WAIT until the condition holds, n calls back,
            h hangs until it is given up; of a hostile client, the operations it may ask for.
        script: what the notifying carrier does: s the condition becomes true, c another caller consumes it,
            n it is notified.
        cancels: how many calls may be given up by deadline or cancellation.
        signals: whether signals interrupt the client.
        interrupted: whether one signal comes that makes the program give its call up, as soon as it learns of it.
        unbinds: how often the control thread may take the carrier off the slot.
        buffers: how often the control thread may give the slot's carrier a buffer.
        shrinks: how often the control thread may end a parked carrier, and make it anew.
        carriers: carriers of the pool.
        polled: isolation class IC1: a poller, which never sleeps, serves the slots whose bit is set.
        core_dies: whether the core may die; the client then ends its own slots, before the service is gone.
        service_dies: whether the service may die, at any step.
        client_dies: whether the client may die, at any step.
        hostile: the client is replaced by one that writes what it likes and requeues sleepers.
        wrong: names of the mistakes to make (see README).
    """

    calls: str = "pp"
    script: str = ""
    cancels: int = 0
    signals: bool = False
    interrupted: bool = False
    unbinds: int = 0
    buffers: int = 0
    shrinks: int = 0
    carriers: int = 1
    polled: bool = False
    core_dies: bool = False
    service_dies: bool = False
    client_dies: bool = False
    hostile: bool = False
    wrong: frozenset[str] = frozenset()

    @property
    def mask(self) -> int:
        """Sequences are kept modulo mask + 1: a hostile client could count for ever."""
        return 1 if self.hostile else 0xFFFFFF


Moves: TypeAlias = Iterator[Move[State]]
Party: TypeAlias = Callable[[State, Scenario], Moves]


def must(label: str, after: State) -> Move[State]:
    """A step that its party will make."""
    return Move(label, True, after)


def may(label: str, after: State) -> Move[State]:
    """A step that the environment can make."""
    return Move(label, False, after)


def with_carrier(state: State, index: int, **changes: object) -> State:
    """The state with some fields of one carrier changed."""
    carriers = list(state.carriers)
    carriers[index] = carriers[index]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(carriers=tuple(carriers))


def wake_word(state: State) -> State:
    """futex_wake on the state word: whoever sleeps there goes back to its load. A requeued sleeper does not."""
    if state.at == "sleeping":
        state = state._replace(at="wait", result=AGAIN)
    for index, carrier in enumerate(state.carriers):
        if carrier.at == "sleeping":
            state = with_carrier(state, index, at="load", result=AGAIN)
    return state


def wake_wait_word(state: State) -> State:
    """futex_wake on the wait word."""
    return state._replace(at="word.load", result=AGAIN) if state.at == "word.sleeping" else state


def wake_command(state: State, index: int) -> State:
    """futex_wake on a carrier's command word."""
    return with_carrier(state, index, at="park.load") if state.carriers[index].at == "park.sleeping" else state


def kick(state: State, index: int) -> State:
    """The signal to a carrier: ends a sleep, wherever it was requeued to; lost on one that does not sleep."""
    if state.carriers[index].at in ("sleeping", "requeued"):
        return with_carrier(state, index, at="load", result=EINTR)
    return wake_command(state, index)
