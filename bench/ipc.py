"""`python -m bench.ipc`: what a call costs, beside what else the host offers, and the project's required figures.

Everything is measured in one run, on one machine: hmk in its three wait policies, other people's ways for two
processes to talk, and the limit of the hardware. While it runs, one line a row goes to stderr; then tables, and
what was required beside what was found. `--json`, `--plots` and `--markdown` store the same rows in other forms.

The exit status is 0 when everything ran, whether or not a figure was met: to judge is the reader's part.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence

from bench import command, hmk, report, rounds
from bench.command import Bench
from bench.hmk.plan import FULL, QUICK, Plan
from bench.stats import Row

CASES = (*rounds.CASES, *hmk.CASES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments say, print and store it; returns the exit status."""
    return command.main(
        Bench(
            name="ipc",
            about="what a call costs",
            cases=CASES,
            measure=lambda quick, cases: measure(QUICK if quick else FULL, cases),
            table=report.table,
            figures=report.figures,
            markdown=markdown,
            plot=report.plot,
        ),
        arguments,
    )


def measure(plan: Plan, cases: Collection[str] = CASES) -> Iterator[Row]:
    """All rows of a run; this process must have one thread."""
    yield from rounds.rows(plan, cases)
    yield from hmk.rows(plan, cases)


def markdown(rows: Sequence[Row]) -> str:
    """A page with the figures and tables of one run, for docs/benchmarks.md."""
    return "\n".join(command.measured_markdown(report.figures(rows), report.table(rows)))


if __name__ == "__main__":
    sys.exit(main())
