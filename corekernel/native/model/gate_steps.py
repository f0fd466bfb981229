"""The carriers at the gate in the model: `gate.c`, and its two users in `python.c`, one shared access a step.

A carrier that spins or yields is one that is not scheduled, as in the model of the call. Calls are counted nowhere:
carriers call for ever, and one that is outside, in a handler that blocks, or waiting for the answer to a call of its
own need not go on.

Fields `line`, `long`, `passed` and `faulty` are ghosts; of `long`, the program sees what the clock says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from corekernel.native.model.explorer import Move

WAITING, COME, ASLEEP = range(3)
NOBODY = -1


class Carrier(NamedTuple):
    """A carrier: its program counter, its place in the queue, and its private variables."""

    at: str = "out"
    turn: int = WAITING
    behind: int = NOBODY
    in_line: bool = False
    other: int = NOBODY  # `before` of line_up, `next` of hmk_gate_leave
    out: bool = False  # it gives the lock back to call out, not to end its call
    wakes: bool = False  # when it has given the lock back, it wakes who sleeps on `inside`
    high: bool = False


class State(NamedTuple):
    """The whole gate at one instant."""

    carriers: tuple[Carrier, ...]
    last: int = NOBODY
    timed: bool = False  # first_since is set
    inside: bool = False
    awaited: bool = False  # the flag in `inside`
    holder: int = NOBODY  # of the interpreter's lock
    # ghosts
    line: tuple[int, ...] = ()
    long: bool = False  # the first in line has waited for PASSING_US
    passed: int = 0  # who has passed it since, a bit a carrier
    faulty: str = ""


@dataclass(frozen=True)
class Scenario:
    """What carriers may do in one exploration.

    Attributes:
        carriers: how many there are.
        passes: whether any call may pass the line.
        high: whether calls may be of the high class.
        calls_out: whether handlers may call out, and are called back meanwhile.
        blocks: whether handlers may let go of the lock and block.
        wrong: names of the mistakes to make.
    """

    carriers: int = 3
    passes: bool = False
    high: bool = False
    calls_out: bool = False
    blocks: bool = False
    wrong: frozenset[str] = frozenset()


Moves: TypeAlias = Iterator[Move[State]]
Step: TypeAlias = Callable[[State, int, Carrier, Scenario], Moves]


def changed(s: State, i: int, **changes: Any) -> State:
    """The state with some fields of one carrier changed."""
    carriers = list(s.carriers)
    carriers[i] = carriers[i]._replace(**changes)
    return s._replace(carriers=tuple(carriers))


def must(text: str, s: State, i: int, **changes: Any) -> Moves:
    """One carrier moves on."""
    yield Move(f"carrier {i}: {text}", True, changed(s, i, **changes))


def may(text: str, s: State, i: int, **changes: Any) -> Moves:
    """One carrier does what nobody can count on."""
    yield Move(f"carrier {i}: {text}", False, changed(s, i, **changes))


# ---- entering: hmk_gate_enter(), line_up() ----


def out(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """A request comes, or never does."""
    yield from may("is called", s, i, at="enter" if sc.passes else "line")
    if sc.high:
        yield from may("is called, high class", s, i, at="lock", high=True)


def enter(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In passes: load first_since and compare; until it is surely long ago, both answers are possible."""
    late = s.timed and "passes for ever" not in sc.wrong
    if late:
        yield from must("may not pass", s, i, at="line")
    if not late or not s.long:
        yield from must("may pass, if the lock is free", s, i, at="enter.claim")


def enter_claim(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In passes: claim `inside` by compare-and-swap."""
    if s.inside:
        return must("sees the lock taken", s, i, at="line")
    return must("passes", s._replace(inside=True), i, at="lock")


def line(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In line_up: make the own place ready; nobody else can reach it yet."""
    behind = c.behind if "behind is kept" in sc.wrong else NOBODY
    turn = c.turn if "turn is kept" in sc.wrong else WAITING
    at = "line.load" if "joins by store" in sc.wrong else "line.join"
    return must("makes its place ready", s, i, at=at, behind=behind, turn=turn)


def line_load(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """The mistake: load `last` first, store it later."""
    return must("loads last", s, i, at="line.join", other=s.last)


def line_join(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In line_up: exchange `last`."""
    before = c.other if "joins by store" in sc.wrong else s.last
    after = s._replace(last=i, line=(*s.line, i))
    if before == NOBODY:
        return must("is first in line", after, i, at="come", in_line=True, other=NOBODY)
    return must(f"joins behind {before}", after, i, at="line.tell", in_line=True, other=before)


def line_tell(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In line_up: store oneself as `behind` of the one before."""
    if s.line[: s.line.index(i)][-1:] != (c.other,):
        s = s._replace(faulty="a carrier joined behind one that does not stand there")
    return must(f"tells {c.other}", changed(s, c.other, behind=i), i, at="await", other=NOBODY)


# ---- waiting: await_turn() ----


def await_turn(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Load `turn`; a carrier that spins or yields on is one that is not scheduled."""
    if c.turn == COME:
        return must("sees its turn", s, i, at="come")
    return must("goes to sleep", s, i, at="sleep.swap")


def sleep_swap(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In await_turn: WAITING to ASLEEP."""
    if c.turn == WAITING or "asleep by store" in sc.wrong:
        return must("sets ASLEEP", s, i, at="sleep.load", turn=ASLEEP)
    return must("ASLEEP swap fails", s, i, at="come")


def sleep_load(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In await_turn: load `turn` before each sleep."""
    return must("looks at its turn", s, i, at="futex" if c.turn == ASLEEP else "come")


def futex(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """futex_wait: compare and block, one step of the kernel."""
    if c.turn == ASLEEP or "futex without compare" in sc.wrong:
        return must("sleeps", s, i, at="sleeping")
    return must("futex says EAGAIN", s, i, at=_woken(sc))


def sleeping(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In futex_wait: a signal ends it, too."""
    return may("wakes spuriously", s, i, at=_woken(sc))


def _woken(sc: Scenario) -> str:
    return "come" if "sleeps only once" in sc.wrong else "sleep.load"


# ---- first in line: await_inside() ----


def come(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_gate_enter: store first_since."""
    return must("has its turn", s._replace(timed=True), i, at="claim")


def claim(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Claim `inside` by compare-and-swap, or see that it is taken."""
    if not s.inside:
        return must("claims the lock", s._replace(inside=True), i, at="lock")
    return must("sees the lock taken", s, i, at="claim.futex" if s.awaited else "claim.flag")


def claim_flag(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Set AWAITED by compare-and-swap."""
    if s.inside or "flags by store" in sc.wrong:
        return must("sets AWAITED", s._replace(inside=True, awaited=True), i, at="claim.futex")
    return must("AWAITED swap fails", s, i, at="claim")


def claim_futex(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """futex_wait on `inside`: compare and block, one step of the kernel."""
    if s.inside and s.awaited:
        return must("sleeps until the lock is free", s, i, at="claim.sleeping")
    return must("futex says EAGAIN", s, i, at="claim")


def claim_sleeping(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In futex_wait: a signal ends it, and the clock does. Only where handlers block can anybody count on the clock."""
    yield from may("wakes spuriously", s, i, at="claim")
    yield from (must if sc.blocks else may)("has slept for too long", s, i, at="lock")


# ---- the interpreter's lock: hmk_python_enter(), hmk_python_leave() ----


def lock(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """PyEval_RestoreThread."""
    if s.holder != NOBODY:
        return
    s = s._replace(holder=i)
    if c.in_line:
        s = s._replace(long=False, passed=0)
    elif s.long and not c.high:
        twice = s.passed & 1 << i
        s = s._replace(passed=s.passed | 1 << i, faulty="passed twice while the first waits" if twice else s.faulty)
    yield from must("has the lock", s, i, at="inside")


def inside(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_gate_inside: say so in `inside`, and keep its flag; then leave the line."""
    leaves = c.in_line and "keeps its place" not in sc.wrong
    after = s._replace(inside=True, awaited=s.awaited and "forgets who waits" not in sc.wrong)
    return must("is inside", after, i, at=_leave(sc) if leaves else "handler")


def _leave(sc: Scenario) -> str:
    return "leave.load" if "first_since cleared late" in sc.wrong else "leave.since"


def handler(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """The handler ends; or it calls out (`finish` in python.c), or blocks and lets go of the lock by itself."""
    yield from must("is about to reply", _outside_of(s), i, at="release", wakes=_wakes(s, sc))
    if sc.calls_out and "calls out inside" in sc.wrong:
        yield from may("calls out", s, i, at="release", out=True)
    elif sc.calls_out:
        yield from may("calls out", _outside_of(s), i, at="release", out=True, wakes=_wakes(s, sc))
    if sc.blocks:
        yield from may("blocks", s._replace(holder=NOBODY), i, at="blocked")


def _outside_of(s: State) -> State:
    """In hmk_gate_outside: exchange `inside`."""
    return s._replace(inside=False, awaited=False)


def _wakes(s: State, sc: Scenario) -> bool:
    return s.awaited and "wakes nobody inside" not in sc.wrong


def release(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """PyEval_SaveThread."""
    s = s._replace(holder=NOBODY)
    if c.in_line:
        return must("gives the lock back, still in line", s, i, at=_leave(sc))
    if c.wakes:
        return must("gives the lock back", s, i, at="release.wake")
    return must("gives the lock back", s, i, **_outside(c))


def release_wake(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_python_leave: futex_wake on `inside`, where the first in line may sleep."""
    asleep = [j for j, other in enumerate(s.carriers) if other.at == "claim.sleeping"]
    for j in asleep:
        yield from must(f"wakes {j}", changed(s, j, at="claim"), i, wakes=False, **_outside(c))
    if not asleep:
        yield from must("wakes nobody", s, i, wakes=False, **_outside(c))


def _outside(c: Carrier) -> dict[str, object]:
    return {"at": "called out" if c.out else "out", "out": False, "high": c.high and c.out}


def called_out(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """The answer comes, and the lock is needed once more in this call; a call back may come first."""
    again = "lock" if c.high else "enter" if sc.passes else "line"
    yield from may("has its answer", s, i, at=again)
    yield from may("is called back", s, i, at="back.lock")


def back_lock(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """PyGILState_Ensure of a nested handler: not by way of the gate."""
    if s.holder == NOBODY:
        yield from must("has the lock for a call back", s._replace(holder=i), i, at="back.release")


def back_release(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """PyGILState_Release."""
    return must("has served the call back", s._replace(holder=NOBODY), i, at="called out")


def blocked(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """What the handler waits for comes, or never does."""
    return may("wants to go on", s, i, at="again")


def again(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """The interpreter takes its lock again by itself."""
    if s.holder == NOBODY:
        yield from must("goes on", s._replace(holder=i), i, at="handler")


# ---- leaving: hmk_gate_leave() ----


def leave_since(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Clear first_since, before anybody else can set it."""
    s = s._replace(timed=False)
    if "first_since cleared late" in sc.wrong:
        return must("clears first_since", s, i, **_left(c, sc))
    return must("clears first_since", s, i, at="leave.load")


def leave_load(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Load `behind`."""
    if c.behind == NOBODY:
        return must("sees nobody behind", s, i, at="leave.swap")
    return must(f"sees {c.behind} behind", s, i, at=_tell(sc), other=c.behind)


def leave_swap(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Empty the line by compare-and-swap, unless somebody has joined."""
    if s.last == i or "empties by store" in sc.wrong:
        return must("was the last", _stepped_out(s, i)._replace(last=NOBODY), i, **_done(c, sc))
    if "awaits nobody" in sc.wrong:
        return must("leaves whoever joins", _stepped_out(s, i), i, **_done(c, sc))
    return must("sees that somebody joins", s, i, at="leave.await")


def leave_await(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Yield until whoever joins has told its name."""
    if c.behind != NOBODY:
        yield from must(f"is told of {c.behind}", s, i, at=_tell(sc), other=c.behind)


def _tell(sc: Scenario) -> str:
    if "wakes, then tells" in sc.wrong:
        return "leave.wake"
    return "leave.look" if "tells by store" in sc.wrong else "leave.tell"


def leave_look(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """The mistake: load the next one's `turn`, and if it does not sleep, store it later."""
    asleep = s.carriers[c.other].turn == ASLEEP
    return must("looks whether the next sleeps", s, i, at="leave.tell" if asleep else "leave.store")


def leave_store(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """The mistake: say COME and wake nobody."""
    return must("says COME by store", changed(_stepped_out(s, i), c.other, turn=COME), i, **_done(c, sc))


def leave_tell(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Exchange the next one's `turn`."""
    old = s.carriers[c.other].turn
    if s.line[:2] != (i, c.other):
        s = s._replace(faulty="a carrier was told to come that is not next in line")
    after = changed(_stepped_out(s, i), c.other, turn=COME)
    if old == ASLEEP and not sc.wrong & {"wakes, then tells", "never wakes"}:
        return must(f"says COME to {c.other}, which sleeps", after, i, at="leave.wake")
    return must(f"says COME to {c.other}", after, i, **_done(c, sc))


def leave_wake(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """futex_wake on the next one's `turn`; by now it may be in line anew, asleep on the same word."""
    woken = changed(s, c.other, at=_woken(sc)) if s.carriers[c.other].at == "sleeping" else s
    if "wakes, then tells" in sc.wrong:
        return must(f"wakes {c.other}", woken, i, at="leave.tell")
    return must(f"wakes {c.other}", woken, i, **_done(c, sc))


def _stepped_out(s: State, i: int) -> State:
    return s._replace(line=tuple(j for j in s.line if j != i))


def _done(c: Carrier, sc: Scenario) -> dict[str, object]:
    """Where hmk_gate_leave returns to."""
    return {"at": "leave.since", "other": NOBODY} if "first_since cleared late" in sc.wrong else _left(c, sc)


def _left(c: Carrier, sc: Scenario) -> dict[str, object]:
    after = _outside(c) if "keeps its place" in sc.wrong else {"at": "handler"}
    return {**after, "other": NOBODY, "in_line": False}


STEPS: Mapping[str, Step] = {
    "out": out,
    "enter": enter,
    "enter.claim": enter_claim,
    "line": line,
    "line.load": line_load,
    "line.join": line_join,
    "line.tell": line_tell,
    "await": await_turn,
    "sleep.swap": sleep_swap,
    "sleep.load": sleep_load,
    "futex": futex,
    "sleeping": sleeping,
    "come": come,
    "claim": claim,
    "claim.flag": claim_flag,
    "claim.futex": claim_futex,
    "claim.sleeping": claim_sleeping,
    "lock": lock,
    "inside": inside,
    "handler": handler,
    "release": release,
    "release.wake": release_wake,
    "called out": called_out,
    "back.lock": back_lock,
    "back.release": back_release,
    "blocked": blocked,
    "again": again,
    "leave.since": leave_since,
    "leave.load": leave_load,
    "leave.swap": leave_swap,
    "leave.await": leave_await,
    "leave.look": leave_look,
    "leave.store": leave_store,
    "leave.tell": leave_tell,
    "leave.wake": leave_wake,
}
