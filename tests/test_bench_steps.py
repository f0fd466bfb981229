"""The steps of a call: every formula is fed, sums close, loops run what they say, and nothing is left behind.

No test here judges a time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from bench.placement import PlacementError, placement
from bench.steps import __main__ as command
from bench.steps import ledger, loops
from bench.steps.ledger import LISTS, PATHS
from bench.steps.probes import Effort, Figure, Figures, figure, figures_of, interleaved, signed, total
from corekernel import dispatcher
from corekernel.interface import EMPTY
from corekernel.port import Reply

TINY = Effort(1, 2, 1)


def two_cpus() -> bool:
    try:
        placement("cross-core")
    except PlacementError:
        return False
    return True


def formulas() -> Iterator[str]:
    for sheet in (*PATHS, *LISTS):
        yield from (line.formula for line in sheet.lines)
        if sheet.whole:
            yield sheet.whole


def made_up(value: float = 5.0) -> Figures:
    return {name: Figure(value, 2 * value, 1) for formula in formulas() for _, name in signed(formula)}


@pytest.fixture(scope="module")
def figures() -> Figures:
    """Everything, measured once and briefly."""
    return command.measure(TINY)


def test_every_formula_is_fed_by_a_measurement(figures: Figures) -> None:
    needed = {name for formula in formulas() for _, name in signed(formula)}
    if not two_cpus():
        needed = {name for name in needed if not name.endswith("cross-core") and not name.startswith("line.")}
    assert needed - set(figures) == set()


def test_what_is_measured_is_finite_and_takes_time(figures: Figures) -> None:
    wrong = {name: found for name, found in figures.items() if not 0 <= found.p10 <= found.p50 < math.inf}
    assert {name for name in wrong if name != "slow.deadline"} == set()
    assert all(figures[name].p10 > 0 for name in figures if name.startswith(("live.", "switch.", "line.")))


def test_a_deadline_never_ends_a_call_early(figures: Figures) -> None:
    assert figures["slow.deadline"].p10 >= 0


def test_every_path_that_this_machine_has_is_in_the_tables(figures: Figures) -> None:
    page, screen = ledger.markdown(figures).lower().splitlines(), ledger.text(figures).splitlines()
    for sheet in PATHS:
        if two_cpus() or "cross-core" not in sheet.title:
            assert f"### {sheet.title.lower()}" in page
            assert sheet.title in screen


def test_the_residue_is_what_the_whole_has_beyond_the_sum() -> None:
    sheet = ledger.Ledger(
        "path", (ledger.Line("a", "", "x"), ledger.Line("b", "", "y - x")), "whole", "what is not known"
    )
    known = {"x": Figure(1, 2, 9), "y": Figure(4, 6, 9), "whole": Figure(100, 200, 9)}
    found = {row[0]: row[2:4] for row in ledger.rows(sheet, known)}
    assert found == {
        "a": ("2.0", "1.0"),
        "b": ("4.0", "3.0"),
        "**sum**": ("6.0", "4.0"),
        "**whole**": ("200", "100"),
        "**residue**": ("194", "96.0"),
    }


def test_a_path_with_a_step_that_was_not_measured_is_left_out_whole() -> None:
    some = {name: found for name, found in made_up().items() if not name.startswith("line.")}
    shown = ledger.markdown(some)
    assert "Null call, C, same-core" in shown
    assert "Null call, C, cross-core\n" not in shown


def test_how_a_step_was_measured_is_said_with_its_formula() -> None:
    assert ledger.kind("c.fill") == "loop: c.fill"
    assert ledger.kind("line.pause") == "ping-pong: line.pause"
    assert ledger.kind("live.c.null.same-core") == "calls: live.c.null.same-core"
    assert ledger.kind("c.call - c.serve") == "difference: c.call - c.serve"
    assert ledger.kind("c.ticks_cpu + c.swap") == "sum: c.ticks_cpu + c.swap"


def test_a_formula_adds_and_subtracts_both_percentiles() -> None:
    known = {"a": Figure(10, 20, 5), "b": Figure(1, 2, 3), "c": Figure(3, 5, 4)}
    assert total("a - b + c", known) == Figure(12, 23, 3)
    assert total("a - d", known) is None


def test_percentiles_are_of_rounds_by_nearest_rank() -> None:
    assert figure([float(n) for n in range(1, 101)]) == Figure(10.0, 50.0, 100)
    assert figure([7.0]) == Figure(7.0, 7.0, 1)


def test_probes_take_turns() -> None:
    order: list[str] = []

    def probe(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = interleaved({"a": lambda: probe("a"), "b": lambda: probe("b")}, 3)
    assert order == ["a", "b"] * 3
    assert figures_of(samples)["b"] == Figure(2.0, 4.0, 3)


def test_a_step_is_refused_rather_than_timed_when_it_fails() -> None:
    lib = loops.native()
    assert lib.steps_run(lib.STEPS_CALL, 8, 0, 10) > 0
    assert lib.steps_run(lib.STEPS_CALL, loops.MIB + 1, 0, 10) == 0
    assert lib.steps_run(1000, 0, 0, 10) == 0


@pytest.mark.parametrize("length", [0, 1, 8, 3584, 3585, loops.MIB])
@pytest.mark.parametrize("step", ["START", "SERVE", "FINISH", "COLLECT", "CALL"])
def test_calls_of_every_length_end_well_in_one_thread(step: str, length: int) -> None:
    lib = loops.native()
    assert lib.steps_run(getattr(lib, f"STEPS_{step}"), length, 3, 3) > 0


def test_a_timed_call_takes_the_straight_path_as_far_as_the_slot() -> None:
    settled: list[tuple[object, ...]] = []

    def settle(*arguments: object) -> Reply:
        settled.append(arguments)
        return (7,), b"seven"

    port = loops.DeadEnd(settle)
    for _ in range(2):
        assert port.call(2, (5,), b"hello", 1, 16, True) == ((7,), b"seven")
    assert settled == [(dispatcher.NO_SERVICE, 2, (5,), b"hello", 1, 16, True)] * 2


def test_a_call_that_leaves_the_straight_path_is_not_timed() -> None:
    port = loops.DeadEnd(lambda *_: EMPTY)
    with ThreadPoolExecutor(1) as other:
        assert isinstance(other.submit(port.call, 1, (), b"", 0, 0, True).exception(), RuntimeError)


def test_the_partner_of_a_ping_pong_is_gone_afterwards_and_the_pinning_undone() -> None:
    before, children = os.sched_getaffinity(0), psutil.Process().children(recursive=True)
    samples = loops.measure(TINY)
    assert samples["switch.yield"]
    assert os.sched_getaffinity(0) == before
    assert psutil.Process().children(recursive=True) == children


def test_the_command_prints_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "measure", lambda effort: made_up())
    assert command.main(["--quick", "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "| **residue** |" in out and "| step | what it does |" in out
    assert command.main([]) == 0
    assert "re-open" in capsys.readouterr().out
