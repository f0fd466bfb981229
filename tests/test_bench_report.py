"""Rows, tables, plots and figures, on synthetic rows; and the reader of stored rows, on hostile ones."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import figures, report, stats
from bench.peers import SIZES
from bench.placement import HOG_NOTES
from bench.stats import PLACEMENTS, SIDES, Row, RowError, parse_row, read_rows, write_rows


def row(case: str, system: str, side: str, placement: str, p50_us: float = 0.0, **extra: object) -> Row:
    base = Row("ipc", case, system, side, placement, n=1000, p50_ns=p50_us * 1e3, p99_ns=p50_us * 2e3)
    return dataclasses.replace(base, **extra)  # type: ignore[arg-type]


def good_run() -> list[Row]:
    """A run that meets every required figure."""
    rows = [
        row("null", "hmk", "c", "cross-core", 0.2),
        row("null", "raw-spin", "c", "cross-core", 0.08),
        row("null", "hmk", "c", "same-core", 3.0),
        row("null", "raw-futex", "c", "same-core", 4.4),
    ]
    for note in HOG_NOTES:
        rows += [
            row("hog", "hmk", "c", "same-core", 4.7, note=note),
            row("hog", "raw-futex", "c", "same-core", 4.6, note=note),
        ]
    for size in SIZES:
        case = "echo" if size else "null"
        for placement, ours, theirs in (("same-core", 3.5, 9.0), ("cross-core", 0.5, 40.0)):
            rows.append(row(case, "hmk", "python", placement, ours, payload_bytes=size))
            for peer in (*figures.BLOCKING_PEERS, "iceoryx2"):
                rows.append(row(case, peer, "python", placement, theirs, payload_bytes=size))
    rows += [
        row("chain2", "hmk", "c", "free", 60, clients=8, per_s=116e3, fairness=0.8),
        row("chain2", "hmk:blocking", "c", "free", 94, clients=8, per_s=78e3, fairness=0.9),
        row("clients", "hmk", "python", "free", 12, clients=4, per_s=2e5, fairness=0.6),
        row("threads", "hmk", "c", "free", clients=1000, unit="KiB/stack", value=30.0),
        row("threads", "hmk", "python", "free", clients=1000, unit="KiB/stack", value=49.0),
        *(row("phone", "hmk", side, "free", 90, clients=1000, per_s=41e3) for side in ("c", "python")),
        *(row("phone", "hmk", side, "free", clients=1000, unit="cores", value=0.5) for side in ("c", "python")),
        row("idle", "hmk", "python", "free", unit="%", value=0.1),
        row("boot", "hmk", "python", "free", unit="s", value=0.3),
    ]
    rows += [row("null", "hmk", "c", "free", 4 + run % 2, value=float(run)) for run in range(10)]
    return rows


def change(wanted: Callable[[Row], bool], **extra: object) -> list[Row]:
    """The good run with some rows changed; at least one must be."""
    rows = good_run()
    assert any(wanted(r) for r in rows)
    return [dataclasses.replace(r, **extra) if wanted(r) else r for r in rows]  # type: ignore[arg-type]


def hmk(case: str, side: str, placement: str, size: int = 0) -> Callable[[Row], bool]:
    key = ("hmk", case, side, placement, size)
    return lambda r: (r.system, r.case, r.side, r.placement, r.payload_bytes) == key


# Figures


def test_run_that_meets_everything_passes_every_figure() -> None:
    assert [figure.ok for figure in report.figures(good_run())] == [True] * 13


def test_empty_run_neither_passes_nor_misses() -> None:
    found = report.figures([])
    assert [figure.ok for figure in found] == [None] * 13
    assert "0 met, 0 short, 13 not measured" in report.figures_table(found)


SHORTFALLS = {
    "C null, cross-core": change(hmk("null", "c", "cross-core"), p50_ns=310.0),
    "C null, same-core, hybrid": change(hmk("hog", "c", "same-core"), p99_ns=20_500.0),
    "Python null": change(hmk("null", "python", "same-core"), p50_ns=4_600.0),
    "Python against blocking peers, same-core": change(
        lambda r: (r.system, r.placement, r.payload_bytes) == ("posix_ipc", "same-core", 65536),
        p50_ns=3_400.0,
    ),
    "Python against blocking peers, cross-core": change(
        lambda r: (r.system, r.placement, r.payload_bytes) == ("pyzmq", "cross-core", 8), p50_ns=9_900.0
    ),
    "Python against iceoryx2": change(
        lambda r: (r.system, r.placement, r.payload_bytes) == ("iceoryx2", "cross-core", 4096), p50_ns=400.0
    ),
    "8 clients, chain of 2": change(hmk("chain2", "c", "free"), fairness=0.4),
    "4 unpinned Python carriers": change(hmk("clients", "python", "free"), p99_ns=101e3),
    "unpinned service, ten runs": change(lambda r: r.value == 7.0 and r.case == "null", p50_ns=8_100.0),
    "1,000 threads, three services": change(lambda r: r.case == "threads" and r.side == "python", value=61.0),
    "1,000 threads, 41k calls/s": change(lambda r: r.case == "phone" and r.per_s is not None, per_s=30e3),
    "idle": change(hmk("idle", "python", "free"), value=0.6),
    "boot to first call": change(hmk("boot", "python", "free"), value=0.51),
}


@pytest.mark.parametrize("name", SHORTFALLS)
def test_shortfall_misses_exactly_its_own_figure(name: str) -> None:
    found = report.figures(SHORTFALLS[name])
    assert [figure.name for figure in found if figure.ok is not True] == [name]
    assert [figure.ok for figure in found if figure.name == name] == [False]
    assert f"SHORT  {name}" in report.figures_table(found)


def test_relative_shortfall_is_seen_though_the_absolute_figure_holds() -> None:
    slow_limit = change(lambda r: r.system == "raw-spin", p50_ns=50.0)
    found = {figure.name: figure for figure in report.figures(slow_limit)}
    assert found["C null, cross-core"].ok is False
    assert "4.00 x" in found["C null, cross-core"].measured


def test_figure_stays_open_when_one_peer_was_not_measured() -> None:
    without = change(lambda r: r.system == "pyzmq", n=0, p50_ns=0.0, note="not installed: zmq")
    found = {figure.name: figure for figure in report.figures(without)}
    open_figure = found["Python against blocking peers, same-core"]
    assert open_figure.ok is None
    assert "without pyzmq" in open_figure.measured


def test_slower_than_one_peer_is_a_miss_even_when_another_is_absent() -> None:
    rows = [r for r in SHORTFALLS["Python against blocking peers, same-core"] if r.system != "pyzmq"]
    found = {figure.name: figure for figure in report.figures(rows)}
    assert found["Python against blocking peers, same-core"].ok is False


def test_fewer_than_ten_repeated_runs_leave_the_figure_open() -> None:
    rows = [r for r in good_run() if not (r.case == "null" and r.value == 9.0)]
    found = {figure.name: figure for figure in report.figures(rows)}
    assert (found["unpinned service, ten runs"].ok, found["unpinned service, ten runs"].measured) == (
        None,
        "c: only 9 runs",
    )


# Tables and plots


def by_name(rows: list[Row]) -> dict[str, figures.Figure]:
    return {figure.name: figure for figure in report.figures(rows)}


def test_ratio_is_taken_within_each_round_so_that_a_slow_host_cancels() -> None:
    rows = []
    for speed in (1, 3, 1):
        rows.append(row("null", "hmk", "c", "same-core", 3.0 * speed))
        rows.append(row("null", "raw-futex", "c", "same-core", 5.0 * speed))
    rows[0] = dataclasses.replace(rows[0], p50_ns=9e3)  # the host was slow just then
    assert by_name(rows)["C null, same-core, hybrid"].measured.startswith("over raw futex 0.600 x")


def test_runs_that_differ_as_the_host_itself_does_are_not_held_against_hmk() -> None:
    def runs(factor: float) -> list[Row]:
        mine = [row("null", "hmk", "c", "free", 2.5 if run == 4 else 1.0, value=float(run)) for run in range(10)]
        limit = [
            row("null", "raw-spin", "c", "cross-core", factor if run == 4 else 1.0, value=float(run))
            for run in range(10)
        ]
        return mine + limit

    name = "unpinned service, ten runs"
    assert by_name(runs(2.5))[name].ok is True
    assert by_name(runs(1.0))[name].ok is False
    assert by_name(runs(2.5))[name].measured == "c 2.50 x (raw spin itself 2.50 x)"


def test_rounds_of_a_case_are_one_line_with_their_medians() -> None:
    rounds = [row("clients", "hmk", "c", "free", p50, clients=4, per_s=1e6 * p50, fairness=0.5) for p50 in (1, 2, 9)]
    (merged,) = stats.merged(rounds)
    assert (merged.p50_ns, merged.per_s, merged.n) == (2000.0, 2e6, 3000)
    assert len(report.table(rounds).splitlines()) == 3


def test_round_that_failed_is_shown_beside_the_others() -> None:
    rounds = [row("clients", "hmk", "c", "free", 1, clients=4) for _ in range(2)]
    failed = rounds[0].unmeasured("a client died")
    assert stats.merged([*rounds, failed]) == [dataclasses.replace(rounds[0], n=2000), failed]


def test_table_has_a_block_per_side_and_placement_with_ratios_to_hmk() -> None:
    text = report.table(good_run())
    block = next(b for b in text.split("\n\n") if b.startswith("null call and echo, python, same-core"))
    lines = {line.split()[0]: line for line in block.splitlines()[1:]}
    assert lines["system"].split()[1:] == [word for size in SIZES for word in stats.size_name(size).split()]
    assert "3.50 / 7.00  " in lines["hmk"] and lines["hmk"].rstrip().endswith("=")
    assert lines["os.pipe"].count("x2.57") == len(SIZES)


def test_table_shows_what_was_not_measured_with_its_reason() -> None:
    rows = [
        row("null", "os.pipe", "python", "cross-core", 48),
        row("echo", "os.pipe", "python", "cross-core", payload_bytes=8).unmeasured("needs 2 CPUs"),
    ]
    lines = report.table(rows).splitlines()
    assert lines[2].split() == ["os.pipe", "[1]", "48.0", "/", "96.0", "-"]
    assert lines[3] == "  [1] 8 B: needs 2 CPUs"


def test_table_shows_repeated_runs_by_their_median() -> None:
    rows = [row("null", "hmk", "c", "free", p50, value=i) for i, p50 in enumerate((4.0, 40.0, 5.0))]
    assert "5.00 / 10.0" in report.table(rows)


def test_table_shows_other_cases_by_the_columns_they_have() -> None:
    text = report.table([row("idle", "hmk", "python", "free", unit="%", value=0.125)])
    assert text.splitlines()[1].split() == ["system", "side", "placement", "value"]
    assert text.splitlines()[2].split() == ["hmk", "python", "free", "0.125", "%"]


def test_plots_are_written_as_png_and_svg_for_each_side(tmp_path: Path) -> None:
    paths = report.plot(good_run(), tmp_path / "plots")
    assert sorted(path.name for path in paths) == [
        "ipc-c.png",
        "ipc-c.svg",
        "ipc-python.png",
        "ipc-python.svg",
    ]
    assert (tmp_path / "plots" / "ipc-python.png").read_bytes().startswith(b"\x89PNG")
    words = "".join(ElementTree.parse(tmp_path / "plots" / "ipc-python.svg").getroot().itertext())
    for label in ("hmk", "iceoryx2", "raw-spin", "64 KiB", "same-core"):
        assert label in words


def test_nothing_is_plotted_for_a_run_without_latency(tmp_path: Path) -> None:
    assert report.plot([row("idle", "hmk", "python", "free", unit="%", value=0.1)], tmp_path) == []


def test_missing_matplotlib_is_a_clear_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(report.NoPlots, match=r"pip install 'hmk\[bench\]'"):
        report.plot(good_run(), tmp_path)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0871, "0.087"), (3.84, "3.84"), (48.12, "48.1"), (4810.4, "4,810"), (0, "0")]
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert stats.number(value) == text


# Stored rows

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), max_size=40)
TIME = st.floats(0, 1e15)
SOME = st.none() | st.floats(0, 1e15)
ROWS = st.builds(
    Row,
    *(TEXT, TEXT, TEXT, st.sampled_from(SIDES), st.sampled_from(PLACEMENTS)),
    *(st.integers(0, 1 << 40), st.integers(0, 10_000), st.integers(0, 1 << 40), TIME, TIME, TIME),
    *(SOME, SOME, st.none() | TEXT, SOME, SOME, st.none() | TEXT),
)
VALID = Row("ipc", "null", "hmk", "c", "free", n=3, p50_ns=1.0, p99_ns=2.0, mean_ns=1.5).as_dict()


@given(ROWS)
def test_row_survives_writing_and_reading(written: Row) -> None:
    assert parse_row(stats.dump_row(written).encode()) == written


@given(st.binary(max_size=200))
def test_reader_answers_any_bytes_with_a_row_error(line: bytes) -> None:
    with pytest.raises(RowError):
        parse_row(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted({*VALID, "note", "value", "surprise"})), JSON)
def test_reader_takes_a_valid_row_or_refuses_whatever_one_field_holds(name: str, value: object) -> None:
    line = json.dumps({**VALID, name: value}).encode()
    try:
        found = parse_row(line)
    except RowError:
        return
    for field in dataclasses.fields(Row):
        kept = getattr(found, field.name)
        assert kept is None or type(kept).__name__ in str(field.type)
        assert not isinstance(kept, float | int) or 0 <= kept < 1 << 64


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"[" * 6000, "not a JSON row"),
        (b'{"n": ' + b"9" * 6000 + b"}", "not a JSON row"),
        (b'"' + b"x" * 9000 + b'"', "longer than"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe", "not a JSON row"),
        (json.dumps(VALID | {"extra": 1}).encode(), "unknown key 'extra'"),
        (json.dumps({k: v for k, v in VALID.items() if k != "n"}).encode(), "missing key 'n'"),
        (json.dumps(VALID).replace("{", '{"n": 1, ', 1).encode(), "a key is repeated"),
        (json.dumps(VALID | {"n": True}).encode(), "n is not a whole number"),
        (json.dumps(VALID | {"n": 1.5}).encode(), "n is not a whole number"),
        (json.dumps(VALID | {"p50_ns": float("nan")}).encode(), "p50_ns is out of range"),
        (json.dumps(VALID | {"mean_ns": -1}).encode(), "mean_ns is out of range"),
        (json.dumps(VALID | {"note": None}).encode(), "note is not a short printable text"),
        (json.dumps(VALID | {"system": "\x1b[2J"}).encode(), "system is not a short printable text"),
        (json.dumps(VALID | {"side": "rust"}).encode(), "no such side or placement"),
    ],
    ids=lambda value: value if isinstance(value, str) else "line",
)
def test_reader_says_what_is_wrong(line: bytes, why: str) -> None:
    with pytest.raises(RowError, match=why):
        parse_row(line)


def test_file_of_rows_names_the_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, good_run())
    assert read_rows(path) == good_run()
    path.write_bytes(path.read_bytes() + b"\n\nnonsense\n")
    with pytest.raises(RowError, match=rf"rows.jsonl:{len(good_run()) + 3}: not a JSON row"):
        read_rows(path)


def test_endless_file_is_refused_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "MAX_FILE_BYTES", 1 << 16)
    with pytest.raises(RowError, match="longer than 65536 bytes"):
        read_rows("/dev/zero")
