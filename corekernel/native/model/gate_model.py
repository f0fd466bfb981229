"""The gate before the interpreter's lock as a model: `gate.c`, and its two users in `python.c`.

Carriers that want the lock stand in a queue of Mellor-Crummey and Scott: `last` is its tail, `behind` leads from each
carrier to the next, and a carrier in line waits on its own `turn`. The first in line waits until it can claim `inside`,
which says who has the lock or is about to, and leaves the line as soon as it has the lock. Past the line go calls of
the high class, callers that may pass (they can claim `inside`, and the first has not waited for long), whoever serves a
call back, and a handler that let go of the lock while it blocked. The interpreter's lock is taken to be right, and no
queue: whoever finds it free may have it.

Carriers may call for ever, and whoever rests (outside, in a handler that blocks, or while it has called out) need not
go on. So the same `behind` and `turn` are used again and again, in one call too, and whoever has begun to enter must
get in whatever the resting leave undone.

Properties, checked in every reachable state of every scenario:

* no lost wake-up, no deadlock: whoever wants the lock gets it by must moves alone (explorer: stuck, no progress), and
  no one counts on having slept for too long, but where handlers block;
* at most one carrier has its turn, and it is the first in line: first come, first served;
* `behind` and `turn` are written by others only while their owner stands in line, by its neighbours of that round;
* a first in line that has waited for long is passed at most once by each carrier, calls of the high class apart;
* when all rest, nobody is in line, and the lock does not look taken for good.

`python -m corekernel.native.model` explores all scenarios, then shows that each known mistake is caught.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from corekernel.native.model.explorer import Move, Result, explore
from corekernel.native.model.gate_steps import NOBODY, STEPS, Carrier, Scenario, State

CLAIMING = ("claim", "claim.flag", "claim.futex", "claim.sleeping")
RESTING = ("out", "called out", "blocked")
FIRST = ("come", *CLAIMING, "lock", "inside", "leave.since", "leave.load", "leave.swap", "leave.await", "leave.tell")


class GateModel:
    """One scenario; see `explorer.Model`."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def initial(self) -> State:
        """Nobody is there."""
        return State(carriers=(Carrier(),) * self.scenario.carriers)

    def moves(self, state: State) -> Iterator[Move[State]]:
        """Every carrier's steps; and the clock's, while the first in line waits for the lock."""
        for i, carrier in enumerate(state.carriers):
            yield from STEPS[carrier.at](state, i, carrier, self.scenario)
        if (
            self.scenario.passes
            and not state.long
            and any(c.in_line and c.at in (*CLAIMING, "lock") for c in state.carriers)
        ):
            yield Move("clock: the first has waited for long", False, state._replace(long=True))

    def fault(self, state: State) -> str | None:
        """A property that this state breaks by itself."""
        if state.faulty:
            return state.faulty
        have_turn = [i for i in state.line if state.carriers[i].at in FIRST]
        if len(have_turn) > 1:
            return "two carriers have their turn"
        if have_turn and have_turn[0] != state.line[0]:
            return "a carrier has its turn before the first in line"
        return self._left_behind(state) if self.settled(state) else None

    def settled(self, state: State) -> bool:
        """Nobody wants the lock."""
        return all(carrier.at in RESTING for carrier in state.carriers)

    def _left_behind(self, state: State) -> str | None:
        if state.last != NOBODY:
            return "nobody is in line, and the gate looks taken"
        if state.inside and not any(carrier.at == "blocked" for carrier in state.carriers):
            return "nobody has the lock, and it looks taken"
        return None


SCENARIOS: dict[str, Scenario] = {
    "in line": Scenario(carriers=3),
    "high class": Scenario(carriers=3, high=True),
    "calling out": Scenario(carriers=3, calls_out=True),
    "blocking": Scenario(carriers=3, blocks=True),
    "everything, two carriers": Scenario(carriers=2, passes=True, high=True, calls_out=True, blocks=True),
}

LARGE: dict[str, Scenario] = {
    "four in line": Scenario(carriers=4),
    "passing": Scenario(carriers=3, passes=True),
    "passing, high class": Scenario(carriers=3, passes=True, high=True),
    "passing, blocking": Scenario(carriers=3, passes=True, blocks=True),
    "passing, calling out": Scenario(carriers=3, passes=True, calls_out=True),
}

MISTAKES: dict[str, Scenario] = {
    "joins by store": SCENARIOS["in line"],
    "behind is kept": SCENARIOS["in line"],
    "turn is kept": SCENARIOS["in line"],
    "asleep by store": SCENARIOS["in line"],
    "sleeps only once": SCENARIOS["in line"],
    "futex without compare": SCENARIOS["in line"],
    "never wakes": SCENARIOS["in line"],
    "wakes, then tells": SCENARIOS["in line"],
    "tells by store": SCENARIOS["in line"],
    "empties by store": SCENARIOS["in line"],
    "awaits nobody": SCENARIOS["in line"],
    "passes for ever": LARGE["passing"],
    "first_since cleared late": LARGE["passing"],
    "calls out inside": SCENARIOS["calling out"],
    "keeps its place": SCENARIOS["blocking"],
    "flags by store": LARGE["passing"],
    "forgets who waits": LARGE["passing"],
    "wakes nobody inside": LARGE["passing"],
}


def check(scenario: Scenario, limit: int = 2_000_000) -> Result:
    """Explore one scenario; see `explorer.explore`."""
    return explore(GateModel(scenario), limit)


@cache
def check_mistake(name: str) -> Result:
    """Explore the scenario of a known mistake, with the mistake made: a counterexample is expected."""
    return check(replace(MISTAKES[name], wrong=frozenset({name})))
