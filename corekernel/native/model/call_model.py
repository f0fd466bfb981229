"""The call protocol as a model: all parties together, what must hold, and the scenarios that are explored.

Properties, checked in every reachable state of every scenario:

* no lost wake-up: nobody sleeps for ever although what it waits for has happened (explorer: stuck, no progress);
* every call ends in exactly one outcome, and only in one that the scenario admits;
* a handler runs at most once per request, with that request's arguments, and only on a carrier bound to the slot;
* a reply is taken only by the call it answers; a slot that was given up becomes ready again;
* an unbind swallows nothing: what was submitted is served, what comes after UNBOUND is refused;
* WAIT misses no notification that comes after its sequence was sampled;
* DIED is final, and a client that waits sees it;
* a handler is given no buffer of an earlier binding;
* a signal that comes before a sleep is noticed in it;
* a forced unbind gets the carrier back within `PATIENCE` steps of its own, whatever a hostile client writes.

`python -m corekernel.native.model` explores all scenarios, then shows that each known mistake is caught.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from corekernel.native.model.client_steps import client, hostile
from corekernel.native.model.control_steps import control, core, died_was_lost, notifier
from corekernel.native.model.explorer import Move, Result, explore
from corekernel.native.model.service_steps import carriers
from corekernel.native.model.state import REPLY, Carrier, Scenario, State, ready

PATIENCE = 16


class CallModel:
    """One scenario; see `explorer.Model`."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        first = hostile if scenario.hostile else client
        self.parties = (first, carriers, notifier, control, core)

    def initial(self) -> State:
        """One carrier is bound and looks for a request; the others are parked."""
        sc = self.scenario
        bound = Carrier(at="serve", command="run", parked=False, shelved=False, watched=sc.polled)
        return State(
            word=REPLY,
            carriers=(bound, *(Carrier() for _ in range(sc.carriers - 1))),
            at="hostile" if sc.hostile else "ready",
            cancels=sc.cancels,
            unbinds=sc.unbinds,
            buffers=sc.buffers,
            shrinks=sc.shrinks,
            signal="due" if sc.interrupted else "",
        )

    def moves(self, state: State) -> Iterator[Move[State]]:
        """Every party's steps."""
        for party in self.parties:
            yield from party(state, self.scenario)

    def fault(self, state: State) -> str | None:
        """A property that this state breaks by itself."""
        if state.faulty:
            return state.faulty
        if self.scenario.hostile:
            return self._held(state)
        if died_was_lost(state):
            return "DIED was overwritten"
        if len(state.outcomes) > len(self.scenario.calls):
            return "a call had two outcomes"
        if state.at == "done" and not self._admitted(state):
            return "an outcome that this scenario cannot have"
        if self.settled(state) and self._swallowed(state):
            return "a request was swallowed"
        return None

    def settled(self, state: State) -> bool:
        """All calls have ended, nobody is in the middle of something, and carriers rest where they should."""
        if state.at not in ("done", "dead", "hostile") or state.control not in ("idle", "dead"):
            return False
        if state.core not in ("watch", "done"):
            return False
        if state.notifier != "dead" and (state.notifier != "script" or state.script < len(self.scenario.script)):
            return False
        if state.at != "done" and not state.forced and state.control != "dead":
            return False
        return all(self._rests(state, i, c) for i, c in enumerate(state.carriers))

    def _rests(self, state: State, index: int, carrier: Carrier) -> bool:
        if carrier.at == "dead" or carrier.shelved:
            return True
        asleep = carrier.at == "sleeping" or self.scenario.polled
        return asleep and ready(state.word) and state.bound == index and not carrier.nested and carrier.command == "run"

    def _admitted(self, state: State) -> bool:
        allowed = {"ok"}
        if self.scenario.cancels:
            allowed |= {"deadline", "cancelled"}
        if state.core != "watch":
            allowed |= {"died", "no service"}
        given_up = sum(outcome in ("deadline", "cancelled") for outcome in state.outcomes)
        return set(state.outcomes) <= allowed and given_up + state.cancels == self.scenario.cancels

    def _swallowed(self, state: State) -> bool:
        return state.submitted != state.ran and state.core == "watch" and not state.forced

    def _held(self, state: State) -> str | None:
        if any(carrier.spent > PATIENCE for carrier in state.carriers):
            return f"a carrier told to leave took more than {PATIENCE} steps"
        return None


SCENARIOS: dict[str, Scenario] = {
    "calls": Scenario("ppp", signals=True),
    "wait": Scenario("wp", script="sn"),
    "wait, condition consumed": Scenario("w", script="sncsn", signals=True),
    "nested": Scenario("nn", signals=True),
    "give up": Scenario("ppp", cancels=2, signals=True),
    "give up a wait": Scenario("wp", script="sn", cancels=1, signals=True),
    "give up a call back": Scenario("npn", cancels=1, signals=True),
    "unbind": Scenario("ppp", unbinds=2),
    "unbind, two carriers": Scenario("pp", unbinds=1, carriers=2),
    "unbind, give up": Scenario("pp", unbinds=1, cancels=1, signals=True),
    "unbind, wait": Scenario("w", script="sn", unbinds=1),
    "unbind, call back": Scenario("np", unbinds=1),
    "unbind, buffers": Scenario("pp", unbinds=1, buffers=2, carriers=2),
    "unbind, shrink": Scenario("pp", unbinds=1, shrinks=1, carriers=2),
    "interrupted call": Scenario("hp", cancels=1, interrupted=True),
    "interrupted wait": Scenario("w", cancels=1, interrupted=True),
    "polled": Scenario("pp", unbinds=2, carriers=2, polled=True),
    "polled, give up": Scenario("pp", unbinds=1, cancels=2, signals=True, carriers=2, polled=True),
    "polled, wait": Scenario("wp", script="sn", unbinds=1, polled=True),
    "polled, client dies": Scenario("pp", unbinds=1, carriers=2, client_dies=True, polled=True),
    "service dies": Scenario("pp", service_dies=True, cancels=1, signals=True),
    "service dies in a wait": Scenario("w", script="sn", service_dies=True, signals=True),
    "service dies in a call back": Scenario("n", service_dies=True, cancels=1, signals=True),
    "service dies in an unbind": Scenario("pp", service_dies=True, unbinds=1),
    "core dies": Scenario("pp", core_dies=True, cancels=1),
    "core dies in a wait": Scenario("w", script="sn", core_dies=True),
    "core dies in a call back": Scenario("np", core_dies=True, signals=True),
    "core dies in an unbind": Scenario("p", core_dies=True, unbinds=1),
    "client dies": Scenario("pp", client_dies=True, unbinds=1, carriers=2),
    "client dies in a wait": Scenario("wp", script="sn", client_dies=True),
    "client dies in a call back": Scenario("np", client_dies=True, cancels=1, signals=True),
    "hostile client": Scenario("p", hostile=True),
    "hostile client, call back": Scenario("n", hostile=True),
}

LARGE: dict[str, Scenario] = {
    "core dies, wait and call back": Scenario("wn", script="sn", signals=True, core_dies=True),
    "hostile client, wait": Scenario("w", script="sn", hostile=True),
    "hostile client, two carriers": Scenario("n", carriers=2, hostile=True),
    "everything": Scenario("wnp", script="sn", cancels=1, signals=True, unbinds=1),
    "everything, service dies": Scenario("wn", script="sn", cancels=1, signals=True, unbinds=1, service_dies=True),
    "everything, client dies": Scenario("wn", script="sn", cancels=1, signals=True, unbinds=1, client_dies=True),
    "many cancellations": Scenario("nppn", cancels=3, signals=True, unbinds=1),
    "many waits": Scenario("ww", script="sncsncsn", cancels=1, signals=True),
}

MISTAKES: dict[str, Scenario] = {
    "submit never wakes": SCENARIOS["calls"],
    "submit by store": SCENARIOS["calls"],
    "reply never wakes": SCENARIOS["calls"],
    "reply by store": SCENARIOS["calls"],
    "sleep flag by store": SCENARIOS["calls"],
    "futex without compare": SCENARIOS["calls"],
    "sample after test": SCENARIOS["wait"],
    "test before register": SCENARIOS["wait"],
    "sample after register": SCENARIOS["wait, condition consumed"],
    "notify never wakes": SCENARIOS["wait"],
    "wait bit by store": SCENARIOS["wait"],
    "nested clears sleep": SCENARIOS["nested"],
    "nested reply by exchange": SCENARIOS["service dies in a call back"],
    "reply by exchange": SCENARIOS["core dies"],
    "dead slot is filled": SCENARIOS["core dies"],
    "open over death": SCENARIOS["core dies in an unbind"],
    "cancel ignores nested": SCENARIOS["give up a call back"],
    "cancelled slot is reused": SCENARIOS["give up"],
    "close by store": SCENARIOS["unbind"],
    "rebind before parked": SCENARIOS["unbind, two carriers"],
    "command without kick": SCENARIOS["unbind"],
    "kick once": SCENARIOS["unbind"],
    "kill without notify": SCENARIOS["service dies in a wait"],
    "taken before told": SCENARIOS["polled"],
    "bit before request": SCENARIOS["polled"],
    "look before sweep": SCENARIOS["polled"],
    "binding is not looked at": SCENARIOS["polled"],
    "order without count": SCENARIOS["polled"],
    "given up unseen is ignored": SCENARIOS["give up"],
    "kill wakes only sleepers": SCENARIOS["service dies"],
    "parks only once": SCENARIOS["client dies"],
    "abandoned misses death": SCENARIOS["service dies"],
    "call back is dropped": SCENARIOS["nested"],
    "buffer freed by its carrier": SCENARIOS["unbind, buffers"],
    "ended, not woken": SCENARIOS["unbind, shrink"],
    "row ignores command": SCENARIOS["hostile client"],
    "call without naps": SCENARIOS["interrupted call"],
    "wait without naps": SCENARIOS["interrupted wait"],
}


def check(scenario: Scenario, limit: int = 2_000_000) -> Result:
    """Explore one scenario; see `explorer.explore`."""
    return explore(CallModel(scenario), limit)


@cache
def check_mistake(name: str) -> Result:
    """Explore the scenario of a known mistake, with the mistake made: a counterexample is expected."""
    return check(replace(MISTAKES[name], wrong=frozenset({name})))
