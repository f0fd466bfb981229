"""The figures the project set itself, checked against the rows of one run.

A figure is passed, missed, or open: whatever a run did not measure leaves it open, and says so. One missed
check misses the figure; a figure only passes when every check of it was measured. Ratios are always taken
within the run, because two runs on one host differ by more than what is being compared, and within a round where both
were measured in rounds (`bench.rounds`): then the median of the rounds' ratios counts.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.placement import HOG_NOTES
from bench.stats import SIDES, Row, match, measured, median_p50, number, size_name

Check = tuple[str, bool | None]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure the project set itself: passed, missed, or (`ok is None`) not measured in this run."""

    name: str
    required: str
    measured: str
    ok: bool | None


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
        _figure("C null, cross-core", "p50 <= 0.30 µs, <= 3 x raw spin", _c_cross(rows)),
        _figure(
            "C null, same-core, hybrid",
            "<= 0.8 x raw futex; with a hog <= 1.2 x, p99 <= 20 µs",
            _c_same(rows),
        ),
        _figure("Python null", "cross-core <= 0.7 µs, same-core <= 4.5 µs", _python_null(rows)),
        _figure(
            "Python against blocking peers, same-core",
            "faster than each, null to 64 KiB",
            _faster(rows, "same-core", BLOCKING_PEERS, _CHECKED_SIZES, 1.0),
        ),
        _figure(
            "Python against blocking peers, cross-core",
            ">= 20 x faster than each at 8 B",
            _faster(rows, "cross-core", BLOCKING_PEERS, (8,), 20.0),
        ),
        _figure(
            "Python against iceoryx2",
            "faster in both placements, null to 64 KiB",
            [
                *_faster(rows, "same-core", ("iceoryx2",), _CHECKED_SIZES, 1.0),
                *_faster(rows, "cross-core", ("iceoryx2",), _CHECKED_SIZES, 1.0),
            ],
        ),
        _figure("8 clients, chain of 2", ">= 1.2 x calls/s of hmk:blocking, fairness >= 0.5", _chain_of_two(rows)),
        _figure("4 unpinned Python carriers", "fairness >= 0.5, p99 <= 100 µs", _carriers(rows)),
        _figure(
            "unpinned service, ten runs",
            "largest p50 <= 2 x smallest, or no further apart than raw spin beside them",
            _ten_runs(rows),
        ),
        _figure("1,000 threads, three services", "<= 40 KiB/stack (C), <= 60 (Python)", _threads(rows)),
        _figure("1,000 threads, 41k calls/s", "p99 <= 5 ms, <= 1.0 core of service", _phone(rows)),
        _figure("idle", "<= 0.5 % of one CPU", [_most("CPU", _value(rows, "idle", "%"), 0.5, "%")]),
        _figure("boot to first call", "<= 0.5 s", [_most("boot", _value(rows, "boot", "s"), 0.5, "s")]),
    ]


def figures_table(found: Sequence[Figure]) -> str:
    """Return each figure with its verdict and, below it, what was measured; then the count of those met."""
    verdicts = {True: "pass ", False: "SHORT", None: "  -  "}
    lines = []
    for figure in found:
        lines.append(f"{verdicts[figure.ok]}  {figure.name}: {figure.required}")
        lines.append(f"         {figure.measured}")
    met, short = (sum(figure.ok is verdict for figure in found) for verdict in (True, False))
    return "\n".join([*lines, f"{met} met, {short} short, {len(found) - met - short} not measured"])


def _figure(name: str, required: str, checks: Iterable[Check]) -> Figure:
    """Join checks: one miss is a miss; otherwise one that was not measured leaves the figure open."""
    texts, verdicts = zip(*checks, strict=True)
    ok = False if False in verdicts else None if None in verdicts else True
    if set(verdicts) == {None} and all(text.endswith("not measured") for text in texts):
        texts = ("not measured",)
    return Figure(name, required, "; ".join(texts), ok)


def _most(label: str, value: float | None, limit: float, unit: str) -> Check:
    if value is None:
        return f"{label}: not measured", None
    return f"{label} {number(value)} {unit}", value <= limit


def _least(label: str, value: float | None, limit: float, unit: str) -> Check:
    if value is None:
        return f"{label}: not measured", None
    return f"{label} {number(value)} {unit}".rstrip(), value >= limit


def _over(value: float | None, divisor: float | None) -> float | None:
    return value / divisor if value is not None and divisor else None


def _one(rows: Sequence[Row], field: str, **fields: object) -> float | None:
    """The median of a field over the measured rows that match and have it."""
    found = measured(rows, field, **fields)
    return statistics.median(found) if found else None


def _value(rows: Sequence[Row], case: str, unit: str, **fields: object) -> float | None:
    found = [row.value for row in match(rows, case=case, system="hmk", unit=unit, **fields)]
    return max((value for value in found if value is not None), default=None)


def _micros(value: float | None) -> float | None:
    return None if value is None else value / 1e3


def _ratio(rows: Sequence[Row], field: str, where: Mapping[str, object], ours: str, theirs: str) -> float | None:
    """Our figure over theirs, round by round; None when one of them was not measured."""
    mine, other = (measured(rows, field, system=system, **where) for system in (ours, theirs))
    if not mine or not other:
        return None
    if len(mine) != len(other):
        return _over(statistics.median(mine), statistics.median(other))
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


def _c_cross(rows: Sequence[Row]) -> list[Check]:
    where = {"case": "null", "side": "c", "placement": "cross-core"}
    rounds = [row for row in rows if row.value is None]
    return [
        _most("p50", _micros(median_p50(rounds, system="hmk", **where)), 0.30, "µs"),
        _most("over raw spin", _ratio(rounds, "p50_ns", where, "hmk", "raw-spin"), 3.0, "x"),
    ]


def _c_same(rows: Sequence[Row]) -> list[Check]:
    where = {"side": "c", "placement": "same-core"}
    null = {"case": "null", **where}
    checks = [_most("over raw futex", _ratio(rows, "p50_ns", null, "hmk", "raw-futex"), 0.8, "x")]
    for note in HOG_NOTES:
        hog = {"case": "hog", "note": note, **where}
        checks += [
            _most(note.removeprefix("CPU "), _ratio(rows, "p50_ns", hog, "hmk", "raw-futex"), 1.2, "x"),
            _most("p99", _micros(_one(rows, "p99_ns", system="hmk", **hog)), 20.0, "µs"),
        ]
    return checks


def _python_null(rows: Sequence[Row]) -> list[Check]:
    return [
        _most(
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
            ratio = _ratio(rows, "p50_ns", where, peer, "hmk")
            if ratio is None:
                absent.setdefault(peer, []).append(size_name(size))
            else:
                ratios.append((ratio, f"{peer}, {size_name(size)}"))
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
            _least(f"{side} {placement}", _ratio(rows, "per_s", cell, "hmk", "hmk:blocking"), 1.2, "x"),
            _least("fairness", _one(rows, "fairness", system="hmk", **cell), 0.5, ""),
        ]
    return checks or [("not measured", None)]


def _carriers(rows: Sequence[Row]) -> list[Check]:
    where = {"case": "clients", "clients": 4, "placement": "free", "side": "python", "system": "hmk"}
    return [
        _least("fairness", _one(rows, "fairness", **where), 0.5, ""),
        _most("p99", _micros(_one(rows, "p99_ns", **where)), 100.0, "µs"),
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
    ratio = max(runs) / min(runs)
    text, good = _most(side, ratio, 2.0, "x")
    if len(limits) != len(runs):
        return text, good
    own = max(limits) / min(limits)
    return f"{text} (raw spin itself {number(own)} x)", good or ratio <= own


def _threads(rows: Sequence[Row]) -> list[Check]:
    return [
        _most(side, _value(rows, "threads", "KiB/stack", side=side, clients=1000), limit, "KiB")
        for side, limit in (("c", 40.0), ("python", 60.0))
    ]


def _phone(rows: Sequence[Row]) -> list[Check]:
    """The latency only counts when the rate was really offered: a run that fell behind does not pass."""
    checks: list[Check] = []
    for side in SIDES:
        where: dict[str, Any] = {"case": "phone", "system": "hmk", "side": side, "clients": 1000}
        timed = [row for row in rows if row.unit is None]
        p99 = _one(timed, "p99_ns", **where)
        checks += [
            _most(f"{side} p99", None if p99 is None else p99 / 1e6, 5.0, "ms"),
            _most("service", _value(rows, "phone", "cores", side=side), 1.0, "cores"),
            _least("rate", _one(timed, "per_s", **where), 0.95 * _PHONE_CALLS_PER_S, "calls/s"),
        ]
    return checks
