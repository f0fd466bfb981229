"""`bench fs`: every case gives whole, true rows for each system, and leaves nothing behind; no test judges a time."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import shim
from bench import fs, stats
from bench.files import cells, kill, large, places, plan, report, tree, verdicts
from bench.files.places import Place, Session, SystemPlace, host_places, session_of
from bench.hmk import cell
from bench.hmk.cell import Start
from bench.stats import Row, dump_row, parse_row, read_rows, write_rows
from services import stubs

TINY = dataclasses.replace(
    plan.QUICK,
    budget_s=0.002,
    most=8,
    clients=(1, 2),
    listed=20,
    big_mib=2,
    tree_files=12,
    large=(20, 60),
    kills=2,
)
IPC = {
    "create": 3.0,
    "stat": 1.0,
    "open": 2.0,
    "readdir": 3.0,
    "read-4k": 1.0,
    "write-4k": 1.0,
    "read-seq": 1.0,
    "write-seq": 1.0,
    "rename": 1.0,
    "unlink": 1.0,
}


def left_behind() -> set[str]:
    """What this bench might leave on the host."""
    directories = {places.MEMORY_DIRECTORY, places.disk_directory()}
    return {str(path) for directory in directories for path in Path(directory).glob("hmkbench-fs-*")}


@pytest.fixture(scope="module")
def run() -> Iterator[list[Row]]:
    """The rows of a whole run."""
    before = left_behind()
    yield list(fs.measure(TINY))
    assert left_behind() <= before


def of(rows: list[Row], case: str) -> list[Row]:
    return [row for row in rows if row.case == case]


def systems() -> list[str]:
    with host_places() as others:
        return ["hmk", *(place.system for place in others)]


def test_each_case_has_a_row_for_each_system_and_number_of_clients(run: list[Row]) -> None:
    for row in run:
        assert row.n > 0, row
        assert parse_row(dump_row(row).encode()) == row
    assert list(dict.fromkeys(row.case for row in run)) == list(fs.CASES)
    for case in cells.CASES:
        found = [(row.clients, row.system) for row in of(run, case)]
        assert found == [(count, system) for count in TINY.clients for system in systems()], case
        assert all(row.per_s and 0 < row.p50_ns <= row.p99_ns for row in of(run, case))


def test_the_disk_has_the_name_of_its_file_system() -> None:
    assert places.file_system_of("/proc") == "proc"
    assert places.file_system_of("/proc/self") == "proc"
    assert places.file_system_of(places.disk_directory()) in systems()


def test_calls_are_counted_for_every_operation(run: list[Row]) -> None:
    assert {row.case: row.ipc_per_operation for row in run if row.case in IPC and row.system == "hmk"} == IPC
    assert all(row.ipc_per_operation is None for row in run if row.system != "hmk")


def test_contents_have_a_rate_in_bytes(run: list[Row]) -> None:
    rated = {row.case for row in run if row.mb_per_s}
    assert rated == {"read-4k", "write-4k", "read-seq", "write-seq", "tree-copy"}


def test_tree_is_copied_by_one_client_and_says_from_where(run: list[Row]) -> None:
    rows = of(run, tree.CASE)
    assert [row.system for row in rows] == systems()
    assert all(row.n == TINY.tree_files and row.note and row.note.startswith("from ") for row in rows)


def test_large_directory_has_a_row_for_each_step_and_size(run: list[Row]) -> None:
    for system in systems():
        units = [row.unit for row in of(run, large.CASE) if row.system == system]
        assert units == [large.unit_of(step, size) for size in TINY.large for step in large.STEPS]
    calls = {row.unit: row.ipc_per_operation for row in of(run, large.CASE) if row.system == "hmk"}
    assert [calls[large.unit_of(step, 60)] for step in large.STEPS] == [2.0, 3, 1.0, 1.0]


def test_kills_are_survived_and_every_acknowledged_record_is_there(run: list[Row]) -> None:
    timed, lost = of(run, kill.CASE)
    assert (timed.n, lost.unit, lost.value) == (TINY.kills, kill.LOST, 0.0)
    assert lost.n > 0 and lost.n % kill.PER_FILE == 0


def test_every_figure_is_checked_on_a_run_and_open_without_one(run: list[Row]) -> None:
    assert [figure.ok for figure in verdicts.figures([])] == [None] * 7
    found = {figure.name: figure for figure in verdicts.figures(run)}
    assert all(figure.measured != "not measured" for figure in found.values())
    assert found["IPC per operation"].ok is True


def test_record_that_is_wrong_or_missing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill, "ROOT", str(tmp_path))
    whole = b"".join(kill._record(number) for number in range(kill.PER_FILE))
    for contents, lost in ((whole, 0), (whole[64:], 100), (whole[:-64], 1), (whole + whole[:64], 1)):
        (tmp_path / "records0").write_bytes(contents)
        assert kill._lost(places.HOST, 0) == lost


# What is counted


def test_calls_that_the_service_counts_by_operation_are_those_of_the_row() -> None:
    """The count of a row beside the service's own, operation by operation."""

    def body(_: int, start: Start) -> tuple[int, dict[str, int]]:
        assert isinstance(place, SystemPlace)
        system = shim.attach(place.booted.name)
        session = session_of(system)
        start()
        return _listed_once(system, session)

    with places.places() as found:
        place = found[0]
        cells.prepare(place, TINY)
        made, operations = cell.run(place, body, 1.0).results[0]
    assert (made, operations) == (3, {"open": 1, "entries": 1, "close": 1})


def _listed_once(system: shim.System, session: Session) -> tuple[int, dict[str, int]]:
    system.ask("observe", operations=True)
    before = session.made()
    session.calls.listdir(f"{places.ROOT}/shared/listed")
    made = session.made() - before
    counted = system.ask("statistics", service="fs")["operations"]
    names = {int(number): name.name for number, name in stubs.INTERFACES["fs"].operations.items()}
    return made, {names[int(number)]: record[0] for number, record in counted.items() if record[0]}


def test_same_code_works_on_every_place(tmp_path: Path) -> None:
    place: Place = places.HostPlace("here", str(tmp_path / "root"))
    cells.prepare(place, TINY)
    for case in cells.CASES:
        row = cells.measure(place, case, 1, TINY)
        assert row.n > 0, row
    assert sorted(os.listdir(place.root)) == ["shared"]


def test_place_that_fails_is_a_row_with_the_reason(tmp_path: Path) -> None:
    row = cells.measure(places.HostPlace("nowhere", str(tmp_path / "none")), "stat", 1, TINY)
    assert row.n == 0 and row.note is not None and row.note.startswith("FileNotFoundError")


# The command


def test_report_of_stored_rows_has_tables_section_and_plots(
    run: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, page, plots = tmp_path / "rows.json", tmp_path / "page.md", tmp_path / "plots"
    write_rows(stored, run)
    assert read_rows(stored) == run
    assert fs.main(["--read", str(stored), "--markdown", str(page), "--plots", str(plots)]) == 0
    output = capsys.readouterr().out
    for words in ("fs, 1 client:", "fs, 2 clients:", "fs large-directory", "fs kill", "IPC per operation"):
        assert words in output
    assert page.read_text().startswith("## Files") and "| create, one client | >= 4,000 files/s |" in page.read_text()
    assert sorted(path.name for path in plots.iterdir()) == ["fs.png", "fs.svg"]


def test_section_of_the_documentation_is_the_one_that_the_command_writes() -> None:
    assert report.SECTION in (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text()


def test_unknown_case_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fs.main(["--only", "creat"])
    assert "no case 'creat'; there are create, stat" in capsys.readouterr().err


def test_table_without_a_measured_cell_has_a_dash() -> None:
    rows = [Row("fs", "stat", "hmk", "python", "free").unmeasured("gone")]
    assert report.table(rows).splitlines()[2].split() == ["stat", "-", "-"]
    assert stats.merged(rows) == rows
