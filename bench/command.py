"""What the commands `bench ipc` and `bench fs` share: arguments, progress, and the report in all its forms.

While a bench runs, one line a row goes to stderr; then tables, and what was required beside what was found. `--json`,
`--plots` and `--markdown` store the same rows in other forms. The exit status is 0 when everything ran, whether or
not a figure was met: to judge is the reader's part.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from bench import report
from bench.stats import Row, number, read_rows, size_name, write_rows
from bench.verdict import Figure, figures_markdown, figures_table


@dataclasses.dataclass(frozen=True)
class Bench:
    """One bench.

    Attributes:
        name: what follows `bench` on the command line.
        about: what it measures, for its help.
        cases: their names.
        measure: gives the rows of some cases, quickly or thoroughly.
        table: rows as text.
        figures: what was required, and found in the rows.
        markdown: rows as a section of docs/benchmarks.md.
        plot: draws them into a directory; the files it wrote.
    """

    name: str
    about: str
    cases: tuple[str, ...]
    measure: Callable[[bool, Collection[str]], Iterator[Row]]
    table: Callable[[Sequence[Row]], str]
    figures: Callable[[Sequence[Row]], list[Figure]]
    markdown: Callable[[Sequence[Row]], str]
    plot: Callable[[Sequence[Row], str], list[Path]]


def main(bench: Bench, arguments: Sequence[str] | None) -> int:
    """Measure what the arguments say, print and store it; returns the exit status."""
    options = _parser(bench).parse_args(arguments)
    rows = read_rows(options.read) if options.read else _measured(bench, options)
    print(bench.table(rows))
    print("\nrequired, and measured in this run\n")
    print(figures_table(bench.figures(rows)))
    if options.json:
        write_rows(options.json, rows)
    if options.markdown:
        Path(options.markdown).write_text(bench.markdown(rows), encoding="utf-8")
    if options.plots:
        _plot(bench, rows, options.plots)
    return 0


def _add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every bench has."""
    parser.add_argument("--quick", action="store_true", help="under half a minute, and less exact")
    parser.add_argument("--json", metavar="FILE", help="write one row per line")
    parser.add_argument("--plots", metavar="DIR", help="write plots as PNG and SVG")
    parser.add_argument("--markdown", metavar="FILE", help="write tables and figures as a Markdown page")


def _parser(bench: Bench) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m bench.{bench.name}", description=bench.about)
    cases = ", ".join(bench.cases)
    parser.add_argument(
        "--only", metavar="CASE,...", type=lambda text: _cases(bench, text), default=bench.cases, help=cases
    )
    parser.add_argument("--read", metavar="FILE", help="report on stored rows, measure nothing")
    _add_options(parser)
    return parser


def _cases(bench: Bench, text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in bench.cases]
    if unknown:
        raise argparse.ArgumentTypeError(f"no case {unknown[0]!r}; there are {', '.join(bench.cases)}")
    return names


def _measured(bench: Bench, options: argparse.Namespace) -> list[Row]:
    began, rows = time.monotonic(), []
    for row in bench.measure(options.quick, options.only):
        rows.append(row)
        print(f"{time.monotonic() - began:6.1f} s  {line(row)}", file=sys.stderr, flush=True)
    return rows


def line(row: Row) -> str:
    """One row as a line of progress."""
    what = f"{row.case} {size_name(row.payload_bytes)}" if row.case == "echo" else row.case
    who = f"{row.system} {row.side} {row.placement}" + (f" x{row.clients}" if row.clients > 1 else "")
    found = []
    if row.n and row.p50_ns:
        found.append(f"p50 {number(row.p50_ns / 1e3)} µs, p99 {number(row.p99_ns / 1e3)} µs")
    if row.per_s is not None:
        found.append(f"{number(row.per_s)}/s")
    if row.mb_per_s is not None:
        found.append(f"{number(row.mb_per_s)} MB/s")
    if row.fairness is not None:
        found.append(f"fairness {number(row.fairness)}")
    if row.value is not None and row.unit:
        found.append(f"{number(row.value)} {row.unit}")
    if row.note:
        found.append(f"({row.note})")
    return f"{what:14} {who:34} {', '.join(found)}"


def measured_markdown(figures: Sequence[Figure], table: str) -> list[str]:
    """Where and when, the figures, and the tables: lines of Markdown."""
    host = f"{os.uname().sysname} {os.uname().release}, {os.uname().machine}, {os.cpu_count()} CPUs"
    head = [f"Measured on {time.strftime('%Y-%m-%d')}: {host}.", ""]
    return [*head, *figures_markdown(figures), "", "```", table, "```", ""]


def _plot(bench: Bench, rows: Sequence[Row], directory: str) -> None:
    try:
        for path in bench.plot(rows, directory):
            print(path, file=sys.stderr)
    except report.NoPlots as error:
        print(error, file=sys.stderr)
