"""What a run of `bench fs` says: tables, a plot, and the section of docs/benchmarks.md. Everything from rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench import command, report
from bench.files import cells, kill, large, tree
from bench.files.verdicts import figures
from bench.stats import Row, match, median_p50, merged, number, one

ORDINARY: Final = (*cells.CASES, tree.CASE)
COLOURS: Final = {"hmk": "#c1121f", "tmpfs": "#2a9d8f"}
_DISK_COLOUR = "#0077b6"

SECTION: Final = """\
## Files

    python launcher.py bench fs                    everything, under four minutes
    python launcher.py bench fs --quick            the same cases, less exact, under half a minute
    python launcher.py bench fs --markdown fs.md   this section, with the figures of the run

The same Python code does the same things to the files of a system, through `system.files`, and to those of the host:
its tmpfs, and the file system of TMPDIR or /var/tmp under its own name. One operation is timed at a time, from one and
from four client processes; each case is measured in rounds, in which the systems take turns, and medians count.

| case | what is timed |
|---|---|
| `create` | `open(O_CREAT \\| O_WRONLY)`, `write` of 1 KiB, `close` |
| `stat`, `open` | `stat`; `open` and `close`; of 100 files, in turn |
| `readdir` | `listdir` of 1,000 entries |
| `read-4k`, `write-4k` | `pread` all over 32 MiB, `pwrite` all over 4 MiB |
| `read-seq`, `write-seq` | 1 MiB at the position, in a file of 32 MiB; cut to nothing before it is written again |
| `rename`, `unlink` | of a file of 1 KiB |
| `tree-copy` | Python's standard library: each file read whole and written whole; time per file |
| `large-directory` | 10,000 and 100,000 empty files in one: made, listed, described, removed; time per entry |
| `kill` | SIGKILL of the service while a client writes records, until a call is served; then all are read |

`IPC` (`ipc_per_operation`) is the number of calls that one operation took, counted. What is timed includes Python's
own work on the side of the caller. On a machine with two CPUs four clients and the service share them.
"""


def table(rows: Sequence[Row]) -> str:
    """Return readable tables: the ordinary cases by number of clients, then what stands alone."""
    blocks = []
    for count in sorted({row.clients for row in rows if row.case in ORDINARY}):
        chosen = [row for row in rows if row.case in ORDINARY and row.clients == count]
        blocks.append(_block(chosen, f"fs, {count} client{'s' if count > 1 else ''}: p50 / p99 µs, and per second"))
    if found := [row for row in rows if row.case == large.CASE]:
        blocks.append(_large_block(found))
    if found := [row for row in rows if row.case == kill.CASE]:
        blocks.append(report.case_block(merged(found), "fs kill"))
    return "\n\n".join(blocks)


def _systems(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.system for row in rows))


def _block(rows: Sequence[Row], title: str) -> str:
    """A line for each case, and for each system its times and rate; `x`: how many times hmk's p50 it is."""
    systems, notes = _systems(rows), _notes(rows)
    lines = [["case", "IPC", *(f"{name}{what}" for name in systems for what in ("", "  /s"))]]
    for case in (name for name in ORDINARY if any(row.case == name for row in rows)):
        mine = [row for row in rows if row.case == case]
        calls = one(mine, "ipc_per_operation", system="hmk")
        cells_of_line = [text for system in systems for text in (_times(mine, system), _rate(mine, system))]
        lines.append([case, f"{calls:.3g}" if calls else "", *cells_of_line])
    return "\n".join([title, *report.aligned(lines), *notes])


def _times(rows: Sequence[Row], system: str) -> str:
    p50, base = median_p50(rows, system=system), median_p50(rows, system="hmk")
    if p50 is None:
        return "-"
    p99 = one(rows, "p99_ns", system=system) or 0.0
    cell = f"{number(p50 / 1e3)} / {number(p99 / 1e3)}"
    return cell if base is None or system == "hmk" else f"{cell}  {'x' + number(p50 / base):>6}"


def _rate(rows: Sequence[Row], system: str) -> str:
    rate, contents = one(rows, "per_s", system=system), one(rows, "mb_per_s", system=system)
    if rate is None:
        return "-"
    return number(rate) if contents is None else f"{number(rate)}, {number(contents)} MB/s"


def _notes(rows: Sequence[Row]) -> list[str]:
    noted = dict.fromkeys((row.case, row.system, row.note) for row in rows if row.note)
    return [f"  {case}, {system}: {note}" for case, system, note in noted]


def _large_block(rows: Sequence[Row]) -> str:
    """A line for each step and size; for each system µs per entry and entries per second."""
    systems, sizes = _systems(rows), sorted({row.n for row in rows if row.n})
    lines = [["case", "entries", *(f"{name}{what}" for name in systems for what in (" µs/entry", "  /s"))]]
    for step in large.STEPS:
        for entries in sizes:
            found = {row.system: row for row in match(rows, unit=large.unit_of(step, entries))}
            shown = [_large_cells(found.get(system)) for system in systems]
            lines.append([step, f"{entries:,}", *(text for pair in shown for text in pair)])
    return "\n".join(["fs large-directory", *report.aligned(lines), *_notes(rows)])


def _large_cells(row: Row | None) -> tuple[str, str]:
    if row is None or row.value is None or row.per_s is None:
        return "-", "-"
    return number(row.value), number(row.per_s)


def markdown(rows: Sequence[Row]) -> str:
    """The section of docs/benchmarks.md."""
    return "\n".join([SECTION, *command.measured_markdown(figures(rows), table(rows))])


def plot(rows: Sequence[Row], out_dir: str | Path) -> list[Path]:
    """Draw p50 of each ordinary case and system, one panel per number of clients, as PNG and SVG.

    Raises:
        NoPlots: matplotlib is not installed.
    """
    drawing = report.pyplot()
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    shown = [row for row in rows if row.case in ORDINARY and row.n]
    counts = sorted({row.clients for row in shown})
    if not shown:
        return []
    with drawing.rc_context(report.STYLE):
        picture, axes = drawing.subplots(
            1, len(counts), figsize=(5.2 * len(counts) + 1, 5.2), sharey=True, squeeze=False, layout="constrained"
        )
        for count, axis in zip(counts, axes[0], strict=True):
            _panel(axis, [row for row in shown if row.clients == count], count)
        axes[0][0].set_ylabel("time per operation, p50, µs")
        handles, labels = axes[0][0].get_legend_handles_labels()
        picture.legend(handles, labels, loc="outside right center", frameon=False)
        picture.suptitle("Operations on files from Python (lower is better)", x=0.02, ha="left")
        return report.saved(drawing, picture, Path(out_dir) / "fs")


def _panel(axis: Any, rows: Sequence[Row], count: int) -> None:
    cases = [case for case in ORDINARY if any(row.case == case for row in rows)]
    systems = _systems(rows)
    width = 0.8 / len(systems)
    for place, system in enumerate(systems):
        found = [(x, median_p50(rows, case=case, system=system)) for x, case in enumerate(cases)]
        xs = [x + (place - (len(systems) - 1) / 2) * width for x, p50 in found if p50 is not None]
        ys = [p50 / 1e3 for _, p50 in found if p50 is not None]
        axis.bar(xs, ys, width, color=COLOURS.get(system, _DISK_COLOUR), label=system, zorder=2)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xticks(range(len(cases)), cases, rotation=50, ha="right")
    axis.set_title(f"{count} client{'s' if count > 1 else ''}", fontsize=11)
    axis.grid(axis="y", color="#dddddd", linewidth=0.7, zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
