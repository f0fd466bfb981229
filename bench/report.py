"""What a run of the benchmark says: tables for the terminal, plots, and the verdict on the required figures.

Nothing here measures. Everything is computed from rows alone, so that a stored run gives the same report as
a fresh one. Rows that were not measured (`n == 0`) are shown as a dash with the reason below the table.
Repeated rows of the same cell are shown by their median.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure, figures, figures_table
from bench.stats import PLACEMENTS, SIDES, Row, measured, median_p50, merged, number, size_name

__all__ = ["Figure", "NoPlots", "aligned", "case_block", "figures", "figures_table", "plot", "pyplot", "saved", "table"]

LATENCY_CASES = ("null", "echo")
COLOURS = {
    "hmk": "#c1121f",
    "hmk:spin": "#f28482",
    "hmk:blocking": "#780000",
    "iceoryx2": "#0077b6",
    "os.pipe": "#2a9d8f",
    "unix-seqpacket": "#8ab17d",
    "unix-stream": "#588157",
    "posix_ipc": "#e9a03b",
    "sysv_ipc": "#b5651d",
    "mp.Connection": "#9d7ad2",
    "pyzmq": "#6d597a",
    "raw-spin": "#555555",
    "raw-futex": "#999999",
}


# Tables


def table(rows: Sequence[Row]) -> str:
    """Return readable tables: latency by system and size, then every other case by its own columns.

    Latency cells are `p50 / p99` in microseconds. Where hmk was measured in the same block, `x` is how many
    times hmk's p50 the cell's p50 is (above 1: hmk is faster).
    """
    blocks = []
    for side in SIDES:
        for name in PLACEMENTS:
            block = [row for row in rows if (row.side, row.placement) == (side, name)]
            if latency := [row for row in block if row.case in LATENCY_CASES]:
                blocks.append(_latency_block(latency, f"null call and echo, {side}, {name}: p50 / p99 µs"))
    others = [row for row in rows if row.case not in LATENCY_CASES]
    for bench, case in dict.fromkeys((row.bench, row.case) for row in others):
        rows_of_case = [row for row in others if (row.bench, row.case) == (bench, case)]
        blocks.append(case_block(merged(rows_of_case), f"{bench} {case}"))
    return "\n\n".join(blocks)


def _latency_block(rows: Sequence[Row], title: str) -> str:
    sizes = sorted({row.payload_bytes for row in rows})
    notes: list[str] = []
    lines = [["system", *(size_name(size) for size in sizes)]]
    for system in dict.fromkeys(row.system for row in rows):
        mine = [row for row in rows if row.system == system]
        marks = _footnotes(mine, notes)
        cells = [_latency_cell(rows, system, size) for size in sizes]
        lines.append([system + marks, *cells])
    return "\n".join([title, *aligned(lines), *notes])


def _latency_cell(rows: Sequence[Row], system: str, size: int) -> str:
    p50 = median_p50(rows, system=system, payload_bytes=size)
    if p50 is None:
        return "-"
    p99 = statistics.median(measured(rows, "p99_ns", system=system, payload_bytes=size))
    cell = f"{number(p50 / 1e3)} / {number(p99 / 1e3)}"
    base = median_p50(rows, system="hmk", payload_bytes=size)
    return cell if base is None else f"{cell}  {'=' if system == 'hmk' else 'x' + number(p50 / base):>5}"


def _footnotes(rows: Sequence[Row], notes: list[str]) -> str:
    """Add the rows' notes to `notes`, merged over sizes; return the marks that point to them."""
    marks = []
    for note in dict.fromkeys(row.note for row in rows if row.note):
        sizes = list(dict.fromkeys(size_name(row.payload_bytes) for row in rows if row.note == note))
        few = len(sizes) < len({row.payload_bytes for row in rows})
        text = f"{', '.join(sizes)}: {note}" if few else note
        known = next((i for i, line in enumerate(notes) if line.split("] ", 1)[1] == text), None)
        if known is None:
            known = len(notes)
            notes.append(f"  [{known + 1}] {text}")
        marks.append(f" [{known + 1}]")
    return "".join(marks)


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("system", lambda row: row.system),
    ("side", lambda row: row.side),
    ("placement", lambda row: row.placement),
    ("payload", lambda row: size_name(row.payload_bytes) if row.payload_bytes else ""),
    ("clients", lambda row: str(row.clients) if row.clients != 1 else ""),
    ("p50 µs", lambda row: number(row.p50_ns / 1e3) if row.p50_ns else ""),
    ("p99 µs", lambda row: number(row.p99_ns / 1e3) if row.p99_ns else ""),
    ("calls/s", lambda row: number(row.per_s) if row.per_s is not None else ""),
    ("MB/s", lambda row: number(row.mb_per_s) if row.mb_per_s is not None else ""),
    ("IPC", lambda row: f"{row.ipc_per_operation:g}" if row.ipc_per_operation is not None else ""),
    ("fairness", lambda row: f"{row.fairness:.2f}" if row.fairness is not None else ""),
    ("CPU µs/call", lambda row: number(row.cpu_us_per_call) if row.cpu_us_per_call is not None else ""),
    ("value", lambda row: f"{number(row.value)} {row.unit or ''}".strip() if row.value is not None else ""),
    ("note", lambda row: row.note or ("" if row.n or row.value is not None else "not measured")),
)


def case_block(rows: Sequence[Row], title: str) -> str:
    """Return a table of rows by the columns that any of them has."""
    shown = [(name, cell) for name, cell in _COLUMNS if any(cell(row) for row in rows)]
    lines = [[name for name, _ in shown], *([cell(row) for _, cell in shown] for row in rows)]
    return "\n".join([title, *aligned(lines)])


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: texts to the left, by the names in the first line, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [name in ("case", "system", "side", "placement", "note") for name in lines[0]]
    return [
        "  " + "  ".join(c.ljust(w) if ll else c.rjust(w) for c, w, ll in zip(line, widths, left, strict=True)).rstrip()
        for line in lines
    ]


# Plots


class NoPlots(RuntimeError):
    """Matplotlib is not installed; the text says how to get it."""


STYLE = {"font.size": 10, "svg.fonttype": "none"}


def pyplot() -> Any:
    """Return matplotlib's `pyplot`, for drawing into files.

    Raises:
        NoPlots: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise NoPlots("plots need matplotlib: pip install 'hmk[bench]'") from error
    return pyplot


def plot(rows: Sequence[Row], out_dir: str | Path) -> list[Path]:
    """Draw p50 against payload, one panel per placement, as PNG and SVG; one picture per side measured.

    The C limits (`raw-*`) are drawn in both pictures, dashed.

    Raises:
        NoPlots: matplotlib is not installed.
    """
    drawing = pyplot()
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    paths = []
    for side in SIDES:
        limits = [row for row in rows if row.system.startswith("raw-") and row.side == "c"]
        mine = [row for row in rows if row.side == side and row not in limits] + limits
        mine = [row for row in mine if row.case in LATENCY_CASES and row.n > 0]
        if any(row.side == side for row in mine):
            paths += _picture(drawing, mine, side, Path(out_dir) / f"ipc-{side}")
    return paths


def _picture(drawing: Any, rows: Sequence[Row], side: str, stem: Path) -> list[Path]:
    names = [name for name in PLACEMENTS if any(row.placement == name for row in rows)]
    sizes = sorted({row.payload_bytes for row in rows})
    with drawing.rc_context(STYLE):
        picture, axes = drawing.subplots(
            1,
            len(names),
            figsize=(4.1 * len(names) + 1.9, 4.6),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for name, axis in zip(names, axes[0], strict=True):
            _panel(axis, [row for row in rows if row.placement == name], sizes, name)
        axes[0][0].set_ylabel("time per call, p50, µs")
        handles = {line.get_label(): line for axis in axes[0] for line in axis.get_lines()}
        order = [system for system in dict.fromkeys([*COLOURS, *handles]) if system in handles]
        legend = [handles[system] for system in order]
        picture.legend(legend, order, loc="outside right center", frameon=False)
        language = {"c": "C", "python": "Python"}[side]
        picture.suptitle(f"A call and its reply between two {language} processes (lower is better)", x=0.02, ha="left")
        return saved(drawing, picture, stem)


def saved(drawing: Any, picture: Any, stem: Path) -> list[Path]:
    """Write a picture as PNG and SVG and let go of it; the files."""
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        picture.savefig(path, dpi=150)
    drawing.close(picture)
    return paths


def _panel(axis: Any, rows: Sequence[Row], sizes: Sequence[int], title: str) -> None:
    for system in dict.fromkeys(row.system for row in rows):
        points = [(x, median_p50(rows, system=system, payload_bytes=size)) for x, size in enumerate(sizes)]
        xs = [x for x, p50 in points if p50 is not None]
        ys = [p50 / 1e3 for _, p50 in points if p50 is not None]
        ours, limit = system.startswith("hmk"), system.startswith("raw-")
        axis.plot(
            *(xs, ys, "--" if limit else "-"),
            marker=None if limit else "o",
            markersize=4,
            linewidth=2.6 if ours else 1.4,
            zorder=3 if ours else 2,
            color=COLOURS.get(system),
            label=system,
        )
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xticks(range(len(sizes)), [size_name(size) for size in sizes], rotation=35, ha="right")
    axis.set_title(title, fontsize=11)
    axis.grid(axis="y", color="#dddddd", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)
