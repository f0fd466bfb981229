"""The figures the project set itself, checked against the rows of one run.

What passes a figure is in `bench.verdict`. Ratios are always taken within the run, because two runs on one host differ
by more than what is being compared, and within a round where both were measured in rounds (`bench.rounds`): then the
median of the rounds' ratios counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.placement import HOG_NOTES
from bench.stats import SIDES, Row, match, measured, median_p50, number, one, ratio, size_name
from bench.verdict import Check, Figure, figure, figures_table, least, most

__all__ = ["BLOCKING_PEERS", "Figure", "figures", "figures_table"]

BLOCKING_PEERS = (
    "os.pipe",
    "unix-seqpacket",
    "unix-stream",
    "posix_ipc",
    "sysv_ipc",
    "mp.Connection",
    "pyzmq",
)
_CHECKED_SIZES = (0, 8, 512, 4096, 65536)
_PHONE_CALLS_PER_S = 41_000


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Check a run against every required figure, in the order of the requirements."""
    return [
        figure("C null, cross-core", "p50 <= 0.30 µs, <= 3 x raw spin", _c_cross(rows)),
        figure(
            "C null, same-core, hybrid",
            "<= 0.8 x raw futex; with a hog <= 1.2 x, p99 <= 20 µs",
            _c_same(rows),
        ),
        figure("Python null", "cross-core <= 0.7 µs, same-core <= 4.5 µs", _python_null(rows)),
        figure(
            "Python against blocking peers, same-core",
            "faster than each, null to 64 KiB",
            _faster(rows, "same-core", BLOCKING_PEERS, _CHECKED_SIZES, 1.0),
        ),
        figure(
            "Python against blocking peers, cross-core",
            ">= 20 x faster than each at 8 B",
            _faster(rows, "cross-core", BLOCKING_PEERS, (8,), 20.0),
        ),
        figure(
            "Python against iceoryx2",
            "faster in both placements, null to 64 KiB",
            [
                *_faster(rows, "same-core", ("iceoryx2",), _CHECKED_SIZES, 1.0),
                *_faster(rows, "cross-core", ("iceoryx2",), _CHECKED_SIZES, 1.0),
            ],
        ),
        figure("8 clients, chain of 2", ">= 1.2 x calls/s of hmk:blocking, fairness >= 0.5", _chain_of_two(rows)),
        figure("4 unpinned Python carriers", "fairness >= 0.5, p99 <= 100 µs", _carriers(rows)),
        figure(
            "unpinned service, ten runs",
            "largest p50 <= 2 x smallest, or no further apart than raw spin beside them",
            _ten_runs(rows),
        ),
        figure("1,000 threads, three services", "<= 40 KiB/stack (C), <= 60 (Python)", _threads(rows)),
        figure("1,000 threads, 41k calls/s", "p99 <= 5 ms, <= 1.0 core of service", _phone(rows)),
        figure("idle", "<= 0.5 % of one CPU", [most("CPU", _value(rows, "idle", "%"), 0.5, "%")]),
        figure("boot to first call", "<= 0.5 s", [most("boot", _value(rows, "boot", "s"), 0.5, "s")]),
    ]


def _value(rows: Sequence[Row], case: str, unit: str, **fields: object) -> float | None:
    found = [row.value for row in match(rows, case=case, system="hmk", unit=unit, **fields)]
    return max((value for value in found if value is not None), default=None)


def _micros(value: float | None) -> float | None:
    return None if value is None else value / 1e3


def _c_cross(rows: Sequence[Row]) -> list[Check]:
    where = {"case": "null", "side": "c", "placement": "cross-core"}
    rounds = [row for row in rows if row.value is None]
    return [
        most("p50", _micros(median_p50(rounds, system="hmk", **where)), 0.30, "µs"),
        most("over raw spin", ratio(rounds, "p50_ns", where, "hmk", "raw-spin"), 3.0, "x"),
    ]


def _c_same(rows: Sequence[Row]) -> list[Check]:
    where = {"side": "c", "placement": "same-core"}
    null = {"case": "null", **where}
    checks = [most("over raw futex", ratio(rows, "p50_ns", null, "hmk", "raw-futex"), 0.8, "x")]
    for note in HOG_NOTES:
        hog = {"case": "hog", "note": note, **where}
        checks += [
            most(note.removeprefix("CPU "), ratio(rows, "p50_ns", hog, "hmk", "raw-futex"), 1.2, "x"),
            most("p99", _micros(one(rows, "p99_ns", system="hmk", **hog)), 20.0, "µs"),
        ]
    return checks


def _python_null(rows: Sequence[Row]) -> list[Check]:
    return [
        most(
            name,
            _micros(median_p50(rows, case="null", system="hmk", side="python", placement=name)),
            limit,
            "µs",
        )
        for name, limit in (("cross-core", 0.7), ("same-core", 4.5))
    ]


def _faster(
    rows: Sequence[Row], placement: str, peers: Sequence[str], sizes: Sequence[int], least: float
) -> list[Check]:
    """Compare hmk's p50 with each peer's at each size; report the closest, and what was not measured."""
    ratios: list[tuple[float, str]] = []
    absent: dict[str, list[str]] = {}
    for peer in peers:
        for size in sizes:
            case = "echo" if size else "null"
            where = {"case": case, "side": "python", "placement": placement, "payload_bytes": size}
            times = ratio(rows, "p50_ns", where, peer, "hmk")
            if times is None:
                absent.setdefault(peer, []).append(size_name(size))
            else:
                ratios.append((times, f"{peer}, {size_name(size)}"))
    checks: list[Check] = []
    if ratios:
        closest, where_closest = min(ratios)
        good = closest >= least if least > 1 else closest > 1
        checks.append((f"{placement}: at least {number(closest)} x ({where_closest})", good))
    if absent:
        if not ratios:
            return [(f"{placement}: not measured", None)]
        missing = ", ".join(peer if len(at) == len(sizes) else f"{peer} {'/'.join(at)}" for peer, at in absent.items())
        checks.append((f"{placement}: without {missing}", None))
    return checks


def _chain_of_two(rows: Sequence[Row]) -> list[Check]:
    where = {"case": "chain2", "clients": 8}
    pairs = dict.fromkeys((row.side, row.placement) for row in match(rows, system="hmk", **where))
    checks: list[Check] = []
    for side, placement in pairs:
        cell = {**where, "side": side, "placement": placement}
        checks += [
            least(f"{side} {placement}", ratio(rows, "per_s", cell, "hmk", "hmk:blocking"), 1.2, "x"),
            least("fairness", one(rows, "fairness", system="hmk", **cell), 0.5, ""),
        ]
    return checks or [("not measured", None)]


def _carriers(rows: Sequence[Row]) -> list[Check]:
    where = {"case": "clients", "clients": 4, "placement": "free", "side": "python", "system": "hmk"}
    return [
        least("fairness", one(rows, "fairness", **where), 0.5, ""),
        most("p99", _micros(one(rows, "p99_ns", **where)), 100.0, "µs"),
    ]


def _ten_runs(rows: Sequence[Row]) -> list[Check]:
    """How far apart the runs are; a host that changes its speed shows in the limit measured beside each of them."""
    limits = measured([row for row in rows if row.value is not None], "p50_ns", case="null", system="raw-spin")
    checks: list[Check] = []
    for side in SIDES:
        found = match(rows, case="null", system="hmk", side=side, placement="free")
        runs = [row.p50_ns for row in found if row.value is not None and row.n > 0]
        if 0 < len(runs) < 10:
            checks.append((f"{side}: only {len(runs)} runs", None))
        elif runs:
            checks.append(_spread(side, runs, limits))
    return checks or [("not measured", None)]


def _spread(side: str, runs: Sequence[float], limits: Sequence[float]) -> Check:
    apart = max(runs) / min(runs)
    text, good = most(side, apart, 2.0, "x")
    if len(limits) != len(runs):
        return text, good
    own = max(limits) / min(limits)
    return f"{text} (raw spin itself {number(own)} x)", good or apart <= own


def _threads(rows: Sequence[Row]) -> list[Check]:
    return [
        most(side, _value(rows, "threads", "KiB/stack", side=side, clients=1000), limit, "KiB")
        for side, limit in (("c", 40.0), ("python", 60.0))
    ]


def _phone(rows: Sequence[Row]) -> list[Check]:
    """The latency only counts when the rate was really offered: a run that fell behind does not pass."""
    checks: list[Check] = []
    for side in SIDES:
        where: dict[str, Any] = {"case": "phone", "system": "hmk", "side": side, "clients": 1000}
        timed = [row for row in rows if row.unit is None]
        p99 = one(timed, "p99_ns", **where)
        checks += [
            most(f"{side} p99", None if p99 is None else p99 / 1e6, 5.0, "ms"),
            most("service", _value(rows, "phone", "cores", side=side), 1.0, "cores"),
            least("rate", one(timed, "per_s", **where), 0.95 * _PHONE_CALLS_PER_S, "calls/s"),
        ]
    return checks
