"""hmk's half of `bench ipc`: every case gives whole, true rows; no test here judges a time.

That replies are right is checked in each cell by the client itself, during its warm-up.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shim
from bench import ipc, placement, rounds
from bench.hmk import cell, crowd, latency, phone, plan, resting, system, threads
from bench.hmk.cell import CellError, Start
from bench.hmk.client import CClient, Task
from bench.hmk.phone import Timetable
from bench.hmk.system import Booted
from bench.placement import HOG_NOTES
from bench.stats import PLACEMENTS, SIDES, Row, dump_row, parse_row, read_rows, write_rows

BRIEF_S = 0.005
TINY = dataclasses.replace(
    plan.QUICK,
    budget_s=BRIEF_S,
    crowd_s=BRIEF_S,
    sizes=(0, 65536),
    clients=(2,),
    runs=1,
    threads=12,
    squeezed=60,
    callers=12,
    phone_s=0.2,
    phone_per_s=300,
    idle_s=0.1,
    boots=1,
    peers_s=0.002,
)


@pytest.fixture(scope="module")
def booted() -> Iterator[Booted]:
    with system.boot_text(system.pinned_services()) as running:
        yield running


def whole(rows: list[Row]) -> None:
    """Every row was measured, and survives being stored."""
    for row in rows:
        assert row.n > 0, row
        assert parse_row(dump_row(row).encode()) == row


# Latency


@pytest.fixture(scope="module")
def in_rounds() -> list[Row]:
    """The null call in two rounds, with two runs."""
    return list(rounds.rows(dataclasses.replace(TINY, sizes=(0,), rounds=2, runs=2), ["null"]))


def test_null_gives_a_row_for_each_round_placement_and_side_and_then_the_repeated_runs(in_rounds: list[Row]) -> None:
    rows = [row for row in in_rounds if row.system == "hmk"]
    whole(rows)
    cells = [(row.side, row.placement) for row in rows if row.value is None]
    assert sorted(cells) == sorted(2 * [(side, place) for side in SIDES for place in PLACEMENTS])
    runs = [(row.side, row.placement, row.value) for row in rows if row.value is not None]
    assert runs == [(side, "free", float(run)) for run in range(2) for side in SIDES]
    assert all(0 < row.p50_ns <= row.p99_ns for row in rows)
    assert all(row.cpu_us_per_call and row.cpu_us_per_call > 0 for row in rows)


def test_what_is_compared_is_measured_in_the_same_round(in_rounds: list[Row]) -> None:
    mine = [row for row in in_rounds if row.placement == "same-core"]
    first, second = mine[: len(mine) // 2], mine[len(mine) // 2 :]
    assert [(row.system, row.side) for row in first] == [(row.system, row.side) for row in second]
    systems = {row.system for row in first}
    assert {"hmk", "hmk:spin", "hmk:blocking", "os.pipe", "iceoryx2", "raw-futex"} <= systems


def test_each_repeated_run_has_the_limit_beside_it(in_rounds: list[Row]) -> None:
    limits = [row for row in in_rounds if row.system == "raw-spin" and row.value is not None]
    assert [(row.placement, row.value) for row in limits] == [("cross-core", 0.0), ("cross-core", 1.0)]


def test_echo_gives_a_row_for_every_size_inline_and_shared() -> None:
    rows = [row for row in rounds.rows(TINY, ["echo"]) if row.system == "hmk"]
    whole(rows)
    assert {row.case for row in rows} == {"echo"}
    cells = sorted((row.side, row.placement, row.payload_bytes) for row in rows)
    assert cells == sorted((side, place, size) for side in SIDES for place in PLACEMENTS for size in TINY.sizes if size)


def test_hog_rows_carry_the_notes_by_which_they_are_compared() -> None:
    rows = list(rounds.rows(dataclasses.replace(TINY, variant_cases=("hog",)), ["hog"]))
    whole(rows)
    mine = sorted((row.side, row.note) for row in rows if row.system == "hmk")
    assert mine == sorted((s, n) for s in SIDES for n in HOG_NOTES)
    assert [row.note for row in rows if row.system == "raw-futex"] == list(HOG_NOTES)
    assert {row.system for row in rows} == {"hmk", "hmk:spin", "hmk:blocking", "raw-futex"}
    assert {(row.case, row.placement) for row in rows} == {("hog", "same-core")}


def test_placement_that_the_machine_cannot_give_is_a_row_with_the_reason(
    booted: Booted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "cpus", lambda: [0])
    row = latency.measure(booted, "c", "cross-core", 0, BRIEF_S)
    assert (row.n, row.note) == (0, "needs 2 CPUs, 1 available")
    assert "cross_core" not in system.pinned_services()


def test_pinned_service_runs_where_its_placement_says(booted: Booted) -> None:
    where = placement.placement("same-core")

    def carriers(_: int, start: Start) -> list[set[int]]:
        start()
        attached = shim.attach(booted.name)
        attached.client("cecho_same_core").null()
        attached.client("cecho_same_core").null()
        name = "cecho_same_core"
        pid = next(p["pid"] for p in attached.ask("status")["processes"] if p["name"] == name)
        return [os.sched_getaffinity(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")]

    assert {where.server} in cell.run(booted, carriers, 1.0).results[0]


# Several clients


def test_clients_and_chains_tell_rate_and_fairness(booted: Booted) -> None:
    cases = ("clients", "chain2", "chain3")
    rows = [crowd.measure(booted, case, crowd.task(case, side, BRIEF_S), 2) for case in cases for side in SIDES]
    whole(rows)
    assert all(row.clients == 2 and row.per_s and row.fairness is not None for row in rows)


def test_chain_of_many_clients_is_measured_beside_the_variants() -> None:
    rows = list(rounds.rows(TINY, ["chain2"]))
    whole(rows)
    assert [(row.system, row.side, row.clients) for row in rows] == [
        (system_name, side, count)
        for side in SIDES
        for count in crowd.ALONE_AND_MANY
        for system_name in ("hmk", "hmk:spin", "hmk:blocking")
    ]


def test_chain_that_is_cut_short_is_not_measured(booted: Booted) -> None:
    for side, end_of_chain in (("c", "cchain_c"), ("python", "chain_c")):
        task = Task(side, end_of_chain, depth=2, budget_s=BRIEF_S)
        row = crowd.measure(booted, "chain2", task, 1)
        assert row.n == 0 and row.note is not None and row.note.startswith("PeerError"), row


# Cells


def test_failure_of_one_client_fails_the_cell_with_its_reason(booted: Booted) -> None:
    def body(index: int, start: Start) -> None:
        if index == 1:
            raise RuntimeError("out of luck")
        start()

    with pytest.raises(CellError, match="RuntimeError: out of luck"):
        cell.run(booted, body, BRIEF_S, 3)


def test_client_that_is_killed_fails_the_cell_at_once(booted: Booted) -> None:
    def body(index: int, start: Start) -> None:
        if index == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        start()

    began = time.monotonic()
    with pytest.raises(CellError, match="a client died"):
        cell.run(booted, body, BRIEF_S, 2)
    assert time.monotonic() - began < cell.GRACE_S


def test_clients_start_together_once_all_are_ready(booted: Booted) -> None:
    def body(index: int, start: Start) -> tuple[int, int]:
        ready = time.monotonic_ns()
        start()
        return ready, time.monotonic_ns()

    results = cell.run(booted, body, BRIEF_S, 4).results
    assert max(ready for ready, _ in results) <= min(started for _, started in results)


def test_samples_are_those_of_calls_that_the_service_served(booted: Booted) -> None:
    def body(_: int, start: Start) -> tuple[int, int]:
        attached = shim.attach(booted.name)
        caller = CClient(attached, Task("c", "cecho"))
        before = _total(attached, "cecho", "calls")
        start()
        made = len(caller.some_calls(BRIEF_S, 500))
        return made, _total(attached, "cecho", "calls") - before

    made, served = cell.run(booted, body, BRIEF_S).results[0]
    assert made == served > 0


def _total(attached: shim.System, name: str, what: str) -> int:
    services = [s for p in attached.ask("status")["processes"] for s in p["services"]]
    return int(next(s["totals"][what] for s in services if s["name"] == name))


def test_cpu_time_is_that_of_the_host_clock() -> None:
    before = time.process_time_ns()
    measured = system.cpu_ns([os.getpid()])
    assert before <= measured <= time.process_time_ns()


def test_cpu_time_of_processes_that_are_gone_is_left_out() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert system.cpu_ns([child]) == 0


@pytest.mark.parametrize("variant", ["hmk:spin", "hmk:blocking"])
def test_variant_waits_as_its_name_says(variant: str) -> None:
    """A caller whose wake-up gives the CPU away finds the reply at its first look: then only the carrier slept."""

    def body(_: int, start: Start) -> tuple[list[int], int]:
        attached = shim.attach(running.name)
        caller = CClient(attached, Task("c", "cecho"))
        start()
        caller.some_calls(10, 200)
        return caller.waits(), _total(attached, "cecho", "slept")

    with system.boot("bench", variant) as running:
        (spun, yielded, slept), carriers_slept = cell.run(running, body, BRIEF_S).results[0]
    assert spun + yielded + slept == 200
    assert yielded == 0
    assert carriers_slept > 0 if variant == "hmk:blocking" else spun > 0


# Threads, phone, rest


@pytest.mark.parametrize("side", SIDES)
def test_stacks_are_counted_and_weighed(side: str) -> None:
    for _ in range(10):  # a host that does other things moves memory by itself: the row then says so
        row = threads.cost(side, TINY.threads)
        if not (row.note or "").endswith("it is not quiet"):
            break
    whole([row])
    assert row.n == TINY.threads * 3 * threads.CALLS
    assert row.note is not None and row.note.startswith(f"{TINY.threads * 3} stacks bound")
    assert (row.unit, row.clients) == ("KiB/stack", TINY.threads)


@pytest.mark.parametrize("side", SIDES)
def test_no_call_fails_with_stacks_for_a_quarter_of_the_threads(side: str) -> None:
    row = threads.shortage(side, TINY.squeezed)
    whole([row])
    assert row.n == TINY.squeezed * 3 * threads.CALLS
    assert (row.unit, row.value) == ("failed calls", 0.0)


def test_paced_threads_call_on_their_timetable() -> None:
    timed, cores = phone.measure("c", Timetable(TINY.callers, TINY.phone_per_s, TINY.phone_s))
    whole([timed, cores])
    assert 0 < timed.n <= TINY.phone_per_s * TINY.phone_s
    assert timed.per_s is not None and timed.clients == TINY.callers
    assert cores.unit == "cores" and cores.value is not None and cores.value > 0


def test_idle_and_boot_are_measured_on_the_default_composition() -> None:
    rows = [*resting.idle(TINY), *resting.boots(TINY)]
    whole(rows)
    assert [(row.case, row.unit) for row in rows] == [("idle", "%"), ("boot", "s")]
    assert rows[1].value is not None and rows[1].value > 0


# The command


def test_command_measures_what_it_is_asked_for_and_stores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ipc, "QUICK", TINY)
    stored = tmp_path / "rows.json"
    assert ipc.main(["--quick", "--only", "boot", "--json", str(stored)]) == 0
    rows = read_rows(stored)
    assert [row.case for row in rows] == ["boot"]
    output = capsys.readouterr()
    assert "ipc boot" in output.out and "boot to first call: <= 0.5 s" in output.out
    assert len(output.err.splitlines()) == len(rows)


def test_stored_rows_give_the_report_of_their_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored, page = tmp_path / "rows.json", tmp_path / "page.md"
    write_rows(stored, [Row("ipc", "boot", "hmk", "python", "free", n=3, unit="s", value=0.25)])
    assert ipc.main(["--read", str(stored), "--markdown", str(page)]) == 0
    assert "boot 0.250 s" in capsys.readouterr().out
    assert "| boot to first call | <= 0.5 s | boot 0.250 s | met |" in page.read_text()


def test_unknown_case_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ipc.main(["--only", "nul"])
    assert "no case 'nul'; there are null, echo" in capsys.readouterr().err
