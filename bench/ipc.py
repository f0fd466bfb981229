"""`python -m bench.ipc`: what a call costs, beside what else the host offers, and the project's required figures.

Everything is measured in one run, on one machine: hmk in its three wait policies, other people's ways for two
processes to talk, and the limit of the hardware. While it runs, one line a row goes to stderr; then tables, and
what was required beside what was found. `--json`, `--plots` and `--markdown` store the same rows in other forms.

The exit status is 0 when everything ran, whether or not a figure was met: to judge is the reader's part.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from bench import hmk, report, rounds
from bench.hmk.plan import FULL, QUICK, Plan
from bench.stats import Row, number, read_rows, size_name, write_rows

CASES = (*rounds.CASES, *hmk.CASES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments say, print and store it; returns the exit status."""
    options = _parser().parse_args(arguments)
    rows = read_rows(options.read) if options.read else _measured(options)
    figures = report.figures(rows)
    print(report.table(rows))
    print("\nrequired, and measured in this run\n")
    print(report.figures_table(figures))
    if options.json:
        write_rows(options.json, rows)
    if options.markdown:
        Path(options.markdown).write_text(markdown(rows), encoding="utf-8")
    if options.plots:
        _plot(rows, options.plots)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.ipc", description="what a call costs")
    parser.add_argument("--quick", action="store_true", help="under half a minute, and less exact")
    parser.add_argument("--only", metavar="CASE,...", type=_cases, default=CASES, help=", ".join(CASES))
    parser.add_argument("--read", metavar="FILE", help="report on stored rows, measure nothing")
    parser.add_argument("--json", metavar="FILE", help="write one row per line")
    parser.add_argument("--plots", metavar="DIR", help="write plots as PNG and SVG")
    parser.add_argument("--markdown", metavar="FILE", help="write tables and figures as a Markdown page")
    return parser


def _cases(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    return names


def _measured(options: argparse.Namespace) -> list[Row]:
    began, rows = time.monotonic(), []
    for row in measure(QUICK if options.quick else FULL, options.only):
        rows.append(row)
        print(f"{time.monotonic() - began:6.1f} s  {line(row)}", file=sys.stderr, flush=True)
    return rows


def measure(plan: Plan, cases: Collection[str] = CASES) -> Iterator[Row]:
    """All rows of a run; this process must have one thread."""
    yield from rounds.rows(plan, cases)
    yield from hmk.rows(plan, cases)


def line(row: Row) -> str:
    """One row as a line of progress."""
    what = f"{row.case} {size_name(row.payload_bytes)}" if row.case == "echo" else row.case
    who = f"{row.system} {row.side} {row.placement}" + (f" x{row.clients}" if row.clients > 1 else "")
    found = []
    if row.n and row.p50_ns:
        found.append(f"p50 {number(row.p50_ns / 1e3)} µs, p99 {number(row.p99_ns / 1e3)} µs")
    if row.per_s is not None:
        found.append(f"{number(row.per_s)}/s")
    if row.fairness is not None:
        found.append(f"fairness {number(row.fairness)}")
    if row.value is not None and row.unit:
        found.append(f"{number(row.value)} {row.unit}")
    if row.note:
        found.append(f"({row.note})")
    return f"{what:14} {who:34} {', '.join(found)}"


def markdown(rows: Sequence[Row]) -> str:
    """A page with the figures and tables of one run, for docs/benchmarks.md."""
    host = f"{os.uname().sysname} {os.uname().release}, {os.uname().machine}, {os.cpu_count()} CPUs"
    verdicts = {True: "met", False: "**short**", None: "not measured"}
    lines = [f"Measured on {time.strftime('%Y-%m-%d')}: {host}.", "", "| figure | required | measured | |"]
    lines.append("|---|---|---|---|")
    lines += [
        f"| {figure.name} | {figure.required} | {figure.measured} | {verdicts[figure.ok]} |"
        for figure in report.figures(rows)
    ]
    return "\n".join([*lines, "", "```", report.table(rows), "```", ""])


def _plot(rows: Sequence[Row], directory: str) -> None:
    try:
        for path in report.plot(rows, directory):
            print(path, file=sys.stderr)
    except report.NoPlots as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
