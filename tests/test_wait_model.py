"""The call protocol and the gate hold in every interleaving of their models, and the models notice when broken.

Explorations need nothing but a CPU: `explored` has all CPUs at work on those that come next.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from corekernel.native.model import gate_model, gate_steps
from corekernel.native.model import state as model_state
from corekernel.native.model.call_model import LARGE, MISTAKES, SCENARIOS, CallModel, check, check_mistake
from corekernel.native.model.explorer import Move, Result, TooManyStates, Verdict, explore
from corekernel.native.model.state import State

NATIVE = Path(model_state.__file__).parent.parent


BY_THREE = ("high class", "calling out", "blocking")  # quickly by two carriers; by three among the slow ones
AT_THE_GATE = {
    f"{name}, two carriers" if name in BY_THREE else name: replace(scenario, carriers=2)
    if name in BY_THREE
    else scenario
    for name, scenario in gate_model.SCENARIOS.items()
}
Exploration: TypeAlias = tuple[str, str]
Explored: TypeAlias = Callable[[str, str], Result]
COURSE: list[Exploration] = [  # in the order of the tests below
    *(("call", name) for name in SCENARIOS),
    *(("mistake", name) for name in MISTAKES),
    *(("gate", name) for name in AT_THE_GATE),
    *(("mistake at the gate", name) for name in gate_model.MISTAKES),
]
AHEAD = 4


def carried_out(exploration: Exploration) -> Result:
    """The result of one of them."""
    kind, name = exploration
    match kind:
        case "call":
            return check(SCENARIOS[name])
        case "mistake":
            return check_mistake(name)
        case "gate":
            return gate_model.check(AT_THE_GATE[name])
    return gate_model.check_mistake(name)


@pytest.fixture(scope="module")
def explored() -> Iterator[Explored]:
    """Gives the result of an exploration: other processes carry them out, each once, a few ahead of the tests.

    Those run without the collector: states hold no cycles, and it would go through millions of them.
    """
    workers = len(os.sched_getaffinity(0))
    begun: dict[Exploration, Future[Result]] = {}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=gc.disable) as executor:
        executor.submit(os.getpid).result()  # so all of them are there before the test

        def result(kind: str, name: str) -> Result:
            at = COURSE.index((kind, name))
            for exploration in COURSE[at : at + workers + AHEAD]:
                if exploration not in begun:
                    begun[exploration] = executor.submit(carried_out, exploration)
            return begun[kind, name].result()

        yield result
        executor.shutdown(cancel_futures=True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SCENARIOS)
def test_protocol_holds_in_every_interleaving(explored: Explored, name: str) -> None:
    result = explored("call", name)
    assert result.holds, str(result)
    assert result.settled > 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_caught_with_a_trace(explored: Explored, name: str) -> None:
    result = explored("mistake", name)
    assert not result.holds, f"{name}: no counterexample in {result.states} states"
    assert len(result.trace) > 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nested reply by exchange", "DIED was overwritten"),
        ("rebind before parked", "a handler ran on a slot that its carrier is not bound to"),
        ("close by store", "a reply was taken for another call's"),
        ("sleep flag by store", "a handler ran twice for one request"),
        ("buffer freed by its carrier", "a handler was given the buffer of another binding"),
        ("row ignores command", "a carrier told to leave took more than 16 steps"),
    ],
)
def test_mistake_breaks_the_property_that_forbids_it(explored: Explored, name: str, reason: str) -> None:
    result = explored("mistake", name)
    assert (result.verdict, result.reason) == (Verdict.FAULT, reason)


@pytest.mark.parametrize(
    "name",
    ["reply never wakes", "kill wakes only sleepers", "taken before told", "call without naps", "wait without naps"],
)
def test_lost_wakeup_is_reported_as_stuck(explored: Explored, name: str) -> None:
    assert explored("mistake", name).verdict is Verdict.STUCK


def test_counterexample_can_be_replayed_to_where_nobody_moves(explored: Explored) -> None:
    name = "kill wakes only sleepers"
    model = CallModel(replace(MISTAKES[name], wrong=frozenset({name})))
    state = model.initial()
    for line in explored("mistake", name).trace[:-1]:
        label = line.split(". ", 1)[1]
        state = next(move.after for move in model.moves(state) if move.label == label)
    assert not [move.label for move in model.moves(state) if move.must]
    assert (state.at, state.core) == ("sleeping", "done")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", LARGE)
def test_protocol_holds_within_larger_bounds(name: str) -> None:
    result = check(LARGE[name])
    assert result.holds, str(result)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", AT_THE_GATE)
def test_gate_holds_in_every_interleaving(explored: Explored, name: str) -> None:
    result = explored("gate", name)
    assert result.holds, str(result)
    assert result.settled > 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", gate_model.MISTAKES)
def test_mistake_at_the_gate_is_caught_with_a_trace(explored: Explored, name: str) -> None:
    result = explored("mistake at the gate", name)
    assert not result.holds, f"{name}: no counterexample in {result.states} states"
    assert len(result.trace) > 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("joins by store", "two carriers have their turn"),
        ("sleeps only once", "two carriers have their turn"),
        ("behind is kept", "a carrier was told to come that is not next in line"),
        ("empties by store", "a carrier joined behind one that does not stand there"),
        ("passes for ever", "passed twice while the first waits"),
        ("calls out inside", "nobody has the lock, and it looks taken"),
        ("keeps its place", "nobody is in line, and the gate looks taken"),
    ],
)
def test_mistake_at_the_gate_breaks_the_property_that_forbids_it(explored: Explored, name: str, reason: str) -> None:
    result = explored("mistake at the gate", name)
    assert (result.verdict, result.reason) == (Verdict.FAULT, reason)


@pytest.mark.parametrize("name", ["asleep by store", "wakes, then tells", "tells by store", "never wakes"])
def test_lost_wakeup_at_the_gate_is_reported_as_stuck(explored: Explored, name: str) -> None:
    assert explored("mistake at the gate", name).verdict is Verdict.STUCK


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*BY_THREE, *gate_model.LARGE])
def test_gate_holds_within_larger_bounds(name: str) -> None:
    result = gate_model.check({**gate_model.SCENARIOS, **gate_model.LARGE}[name], limit=8_000_000)
    assert result.holds, str(result)


def test_gate_model_has_the_values_of_a_turn() -> None:
    text = (NATIVE / "gate.c").read_text()
    values = {name: int(value) for name, value in re.findall(r"TURN_(\w+) = (\d)", text)}
    model = {"WAITING": gate_steps.WAITING, "COME": gate_steps.COME, "ASLEEP": gate_steps.ASLEEP}
    assert values == model
    in_line = (NATIVE.parent.parent / "tests" / "native" / "in_line.c").read_text()
    assert f"ASLEEP = {values['ASLEEP']} " in in_line


def test_model_has_the_bits_of_the_abi() -> None:
    text = (NATIVE / "abi.cdef.h").read_text()
    values = {name: int(value, 0) for name, value in re.findall(r"#define HMK_(\w+) (-?\w+)$", text, re.M)}
    phases = ("IDLE", "REQUEST", "REPLY", "NESTED", "NESTED_REPLY", "CANCELLED", "DIED")
    for phase in phases:
        assert getattr(model_state, phase) == values[f"PHASE_{phase}"]
    assert (values["SLEEP"], values["UNBOUND"]) == (model_state.SLEEP, model_state.UNBOUND)
    assert values["PHASE_MASK"] == model_state.PHASES
    assert (values["OK"], values["E_WAIT"]) == (model_state.OK, model_state.WAIT)


def test_every_c_function_the_readme_names_exists() -> None:
    named = set(re.findall(r"`(\w+)\(\)`", (NATIVE / "model" / "README.md").read_text()))
    source = "".join(path.read_text() for path in NATIVE.glob("*.c"))
    assert named
    assert {name for name in named if not re.search(rf"\b{name}\(", source)} == set()


class Counter:
    """Counts to a limit; what it does there is up to the test."""

    def __init__(self, last: int, rests_at: int, saved_by_luck: bool = False, wrong_at: int = -1) -> None:
        self.last, self.rests_at, self.saved_by_luck, self.wrong_at = last, rests_at, saved_by_luck, wrong_at

    def initial(self) -> int:
        return 0

    def moves(self, state: int) -> Iterator[Move[int]]:
        if state < self.last:
            yield Move(f"to {state + 1}", True, state + 1)
        elif self.saved_by_luck:
            yield Move("round again", True, state - 1) if state == self.last else Move("", True, state)
            yield Move("luck", False, self.rests_at)

    def fault(self, state: int) -> str | None:
        return "wrong" if state == self.wrong_at else None

    def settled(self, state: int) -> bool:
        return state == self.rests_at


def test_explorer_accepts_a_model_that_rests() -> None:
    result = explore(Counter(5, rests_at=5))
    assert (result.verdict, result.states, result.moves) == (Verdict.HOLDS, 6, 5)


def test_explorer_finds_a_deadlock() -> None:
    result = explore(Counter(5, rests_at=9))
    assert result.verdict is Verdict.STUCK
    assert [line.strip() for line in result.trace] == [*(f"{i}. to {i}" for i in range(1, 6)), "in 5"]


def test_explorer_finds_a_broken_state_by_a_shortest_path() -> None:
    result = explore(Counter(5, rests_at=5, wrong_at=2))
    assert result.verdict is Verdict.FAULT
    assert len(result.trace) == 3


def test_explorer_does_not_count_on_luck() -> None:
    assert explore(Counter(5, rests_at=9, saved_by_luck=True)).verdict is Verdict.NO_PROGRESS


def test_explorer_refuses_to_conclude_from_a_part() -> None:
    with pytest.raises(TooManyStates):
        explore(Counter(50, rests_at=50), limit=10)


def test_initial_state_is_a_bound_carrier_that_looks_for_a_request() -> None:
    first: State = CallModel(SCENARIOS["calls"]).initial()
    assert [carrier.command for carrier in first.carriers] == ["run"]
    assert not first.carriers[0].parked
