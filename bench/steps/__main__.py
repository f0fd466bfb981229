"""`python -m bench.steps [--quick] [--markdown]`: a table of steps for each path of a call; see the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.steps import ledger, live, loops
from bench.steps.probes import FULL, QUICK, Effort, Figures, Samples, add, figures_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description="what each step of a call costs")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, with how each step was measured")
    options = parser.parse_args(arguments)
    figures = measure(QUICK if options.quick else FULL)
    print(ledger.markdown(figures) if options.markdown else ledger.text(figures))
    return 0


def measure(effort: Effort) -> Figures:
    """Every figure, over all passes; this process must have one thread.

    Raises:
        BootError: a system does not come up.
        CellError: a client process failed.
    """
    samples: Samples = {}
    with live.system() as measure_live:
        for number in range(effort.passes):
            print(f"pass {number + 1} of {effort.passes} ...", file=sys.stderr, flush=True)
            add(samples, loops.measure(effort))
            add(samples, measure_live(effort))
    return figures_of(samples)


if __name__ == "__main__":
    sys.exit(main())
