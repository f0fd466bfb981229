"""`python -m bench.fs`: what files cost, beside the host's own file systems, and the project's required figures.

Everything is measured in one run, on one machine, in rounds (`bench.files`); how it is told is shared with the other
benches (`bench.command`).
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence

from bench import command
from bench.command import Bench
from bench.files import cells, kill, large, report, tree
from bench.files.places import places
from bench.files.plan import FULL, QUICK, Plan
from bench.files.verdicts import figures
from bench.stats import Row

CASES = (*cells.CASES, tree.CASE, large.CASE, kill.CASE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments say, print and store it; returns the exit status."""
    return command.main(
        Bench(
            name="fs",
            about="what files cost",
            cases=CASES,
            measure=lambda quick, cases: measure(QUICK if quick else FULL, cases),
            table=report.table,
            figures=figures,
            markdown=report.markdown,
            plot=report.plot,
        ),
        arguments,
    )


def measure(plan: Plan, cases: Collection[str] = CASES) -> Iterator[Row]:
    """All rows of a run; this process must have one thread.

    Raises:
        BootError: a system does not come up.
    """
    if set(cases) - {kill.CASE}:
        with places() as found:
            yield from cells.rows(found, plan, cases)
            if tree.CASE in cases:
                yield from tree.rows(found, plan)
            if large.CASE in cases:
                yield from large.rows(found, plan)
    if kill.CASE in cases:
        yield from kill.rows(plan)


if __name__ == "__main__":
    sys.exit(main())
