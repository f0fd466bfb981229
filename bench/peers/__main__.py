"""`python -m bench.peers [--quick] [--json FILE] [--plots DIR]`: peers and raw limits alone, without hmk."""

from __future__ import annotations

import argparse
import sys

from bench import peers, raw, report
from bench.stats import PLACEMENTS, Row, write_rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, store what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the time per row")
    parser.add_argument("--json", metavar="FILE", help="write one row per line")
    parser.add_argument("--plots", metavar="DIR", help="write plots as PNG and SVG")
    options = parser.parse_args(arguments)
    budget_s = peers.QUICK_BUDGET_S if options.quick else peers.FULL_BUDGET_S
    rows: list[Row] = []
    for name in PLACEMENTS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += peers.rows(budget_s, [name])
        rows += raw.rows(budget_s, [name])
    print(report.table(rows))
    if options.json:
        write_rows(options.json, rows)
    if options.plots:
        try:
            report.plot(rows, options.plots)
        except report.NoPlots as error:
            print(error, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
