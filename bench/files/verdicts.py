"""The figures required of files, checked against the rows of one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.files import kill, large
from bench.stats import Row, median_p50, number, one
from bench.verdict import Check, Figure, figure, least, most

LARGEST: Final = 100_000
_LINEAR = 2.0
_CALLS: Final = {"open": ("open and close", 2), "read-4k": ("read", 1), "write-4k": ("write", 1), "stat": ("stat", 1)}


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Check a run against every required figure."""
    return [
        figure(
            "create, one client", ">= 4,000 files/s", [least("rate", _one(rows, "create", "per_s"), 4000, "files/s")]
        ),
        figure(
            "stat, open and close",
            "p50 <= 25 µs, <= 50 µs",
            [most(case, _p50_us(rows, case), limit, "µs") for case, limit in (("stat", 25), ("open", 50))],
        ),
        figure(
            "sequential contents, 1 MiB requests",
            "read >= 1,000 MB/s, write >= 700 MB/s",
            [
                least("read", _one(rows, "read-seq", "mb_per_s"), 1000, "MB/s"),
                least("write", _one(rows, "write-seq", "mb_per_s"), 700, "MB/s"),
            ],
        ),
        figure(
            "copy of a tree", ">= 2,000 files/s", [least("rate", _one(rows, "tree-copy", "per_s"), 2000, "files/s")]
        ),
        figure(
            f"directory of {LARGEST:,} entries",
            f"per entry <= {_LINEAR:g} x that of a tenth of it; list >= 200,000 entries/s",
            _large(rows),
        ),
        figure(
            "kill of fs under load, to the next served call",
            "p50 <= 60 ms, p99 <= 250 ms, nothing lost",
            _kill(rows),
        ),
        figure(
            "IPC per operation",
            "open 1, read 1, write 1, close <= 1, stat 1, readdir of 1,000 entries <= 4",
            [
                *(
                    most(label, _one(rows, case, "ipc_per_operation"), limit, "")
                    for case, (label, limit) in _CALLS.items()
                ),
                most("readdir with open and close", _one(rows, "readdir", "ipc_per_operation"), 4, ""),
            ],
        ),
    ]


def _one(rows: Sequence[Row], case: str, field: str, **fields: object) -> float | None:
    return one(rows, field, case=case, system="hmk", clients=1, **fields)


def _p50_us(rows: Sequence[Row], case: str) -> float | None:
    found = median_p50(rows, case=case, system="hmk", clients=1)
    return None if found is None else found / 1e3


def _large(rows: Sequence[Row]) -> list[Check]:
    """Each step's cost per entry over that in the smaller directory; a quick run's directories leave it open."""
    sizes = sorted({row.n for row in rows if row.case == large.CASE and row.n})
    if len(sizes) < 2:
        return [("not measured", None)]
    small, big = sizes[0], sizes[-1]
    checks = []
    for step in large.STEPS:
        costs = [_one(rows, large.CASE, "value", unit=large.unit_of(step, size)) for size in (small, big)]
        times = costs[1] / costs[0] if costs[0] and costs[1] else None
        checks.append(most(step, times, _LINEAR, "x"))
    rate = _one(rows, large.CASE, "per_s", unit=large.unit_of("list", big))
    checks.append(least("list", rate, 200_000, "entries/s"))
    return checks if big >= LARGEST else [*checks, (f"of {number(big)} entries only", None)]


def _kill(rows: Sequence[Row]) -> list[Check]:
    timed = [row for row in rows if row.case == kill.CASE and row.unit is None]
    millis = [None if (ns := one(timed, name)) is None else ns / 1e6 for name in ("p50_ns", "p99_ns")]
    return [
        most("p50", millis[0], 60, "ms"),
        most("p99", millis[1], 250, "ms"),
        most("lost", _one(rows, kill.CASE, "value", unit=kill.LOST), 0, "records"),
    ]
