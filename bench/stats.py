"""Rows of measurement: what one is, how samples become one, how rows are stored.

A row is one measured cell: one system, on one side (C or Python), in one placement, with one payload. Every
benchmark writes the same rows, one JSON object per line, so that every ratio can be computed from one file.

Invariants: times are nanoseconds and finite; a row with `n == 0` was not measured, its times are 0 and `note`
says why. Optional fields that do not apply are absent from the JSON, never null. A file of rows may come from
another machine: `read_rows` bounds, checks and rejects, and never trusts a type.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SIDES = ("c", "python")
PLACEMENTS = ("same-core", "cross-core", "free")

MAX_FILE_BYTES = 16 << 20
MAX_LINE_BYTES = 8192
MAX_TEXT = 200
MAX_NUMBER = 2**63 - 1


class RowError(ValueError):
    """A line is not a valid row; the message names the line."""


class Summary(NamedTuple):
    """Nearest-rank median and 99th percentile, and mean, of one sample set; nanoseconds."""

    p50_ns: float
    p99_ns: float
    mean_ns: float


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured cell.

    Attributes:
        bench: the command that measured it (`ipc`, `memory`, ...).
        case: what was measured (`null`, `echo`, `hog`, `clients`, ...).
        system: `hmk`, `linux` or the peer's name, with its variant (`hmk:blocking`).
        side: `c` or `python`, the language of both client and server.
        placement: `same-core`, `cross-core` or `free` (not pinned).
        payload_bytes: bytes in the request, and again in the reply.
        clients: client threads or processes that call at the same time.
        n: calls, or other observations, sampled; 0 means not measured, and `note` says why.
        p50_ns: median time per call.
        p99_ns: 99th percentile of the time per call.
        mean_ns: mean time per call.
        per_s: calls per second, all clients together.
        fairness: least calls of a client / most calls of a client.
        unit: unit of `value`, where it is a quantity.
        value: a measured quantity, or the index of a repeated run.
        cpu_us_per_call: CPU time used by both sides, microseconds per call.
        note: what a reader must know to judge the row.
        mb_per_s: 1,000,000 bytes of contents per second, all clients together.
        ipc_per_operation: calls to services that one operation takes, counted.
    """

    bench: str
    case: str
    system: str
    side: str
    placement: str
    payload_bytes: int = 0
    clients: int = 1
    n: int = 0
    p50_ns: float = 0.0
    p99_ns: float = 0.0
    mean_ns: float = 0.0
    per_s: float | None = None
    fairness: float | None = None
    unit: str | None = None
    value: float | None = None
    cpu_us_per_call: float | None = None
    note: str | None = None
    mb_per_s: float | None = None
    ipc_per_operation: float | None = None

    def timed(self, samples: Sequence[int]) -> Row:
        """Return this row with `n` and the times of `samples` (nanoseconds, not empty)."""
        return dataclasses.replace(self, n=len(samples), **summarise(samples)._asdict())

    def unmeasured(self, why: str) -> Row:
        """Return this row as one that was not measured, with the reason."""
        return dataclasses.replace(self, n=0, note=why[:MAX_TEXT])

    def as_dict(self) -> dict[str, Any]:
        """Return the row's JSON object: every required field, and the optional ones that apply."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


def summarise(samples: Sequence[int]) -> Summary:
    """Summarise the times of single calls.

    Args:
        samples: nanoseconds per call, at least one.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("no samples to summarise")
    ordered = sorted(samples)
    return Summary(_rank(ordered, 0.50), _rank(ordered, 0.99), round(sum(ordered) / len(ordered), 1))


def _rank(ordered: Sequence[int], share: float) -> float:
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


def fairness(calls: Sequence[int]) -> float:
    """Return least / most calls of any client in the same time: 1 is fair, 0 means that one starved.

    Args:
        calls: calls completed by each client, at least one client.
    """
    most = max(calls)
    return round(min(calls) / most, 4) if most else 0.0


def dump_row(row: Row) -> str:
    """Return the row's JSON line, without the newline."""
    return json.dumps(row.as_dict(), allow_nan=False)


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write one JSON object per line, replacing the file."""
    Path(path).write_text("".join(dump_row(row) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: str | Path) -> list[Row]:
    """Read a file of rows; blank lines are skipped.

    Raises:
        RowError: the file is too long, or a line is not a valid row; names the line.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise RowError(f"{path}: longer than {MAX_FILE_BYTES} bytes")
    rows = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                rows.append(parse_row(line))
            except RowError as error:
                raise RowError(f"{path}:{number}: {error}") from error
    return rows


def parse_row(line: bytes) -> Row:
    """Check one untrusted JSON line and return its row.

    Raises:
        RowError: it is too long, not one JSON object, has unknown, repeated or missing keys, or a value of
            the wrong type or out of range.
    """
    if len(line) > MAX_LINE_BYTES:
        raise RowError(f"line longer than {MAX_LINE_BYTES} bytes")
    try:
        fields = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise RowError(f"not a JSON row: {error}") from error
    if not isinstance(fields, dict):
        raise RowError("not a JSON object")
    return _checked(fields)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise RowError("a key is repeated")
    return fields


_TYPES: Mapping[str, str] = {f.name: str(f.type).split(" ")[0] for f in dataclasses.fields(Row)}
_REQUIRED = tuple(f.name for f in dataclasses.fields(Row) if "None" not in str(f.type))


def _checked(fields: dict[str, Any]) -> Row:
    for name in fields:
        if name not in _TYPES:
            raise RowError(f"unknown key {name[:40]!r}")
    for name in _REQUIRED:
        if name not in fields:
            raise RowError(f"missing key {name!r}")
    checked: dict[str, Any] = {name: _value(name, value) for name, value in fields.items()}
    row = Row(**checked)
    if row.side not in SIDES or row.placement not in PLACEMENTS:
        raise RowError(f"no such side or placement: {row.side!r}, {row.placement!r}")
    return row


def _value(name: str, value: object) -> str | int | float:
    kind = _TYPES[name]
    if kind == "str":
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
            raise RowError(f"{name} is not a short printable text")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or (kind == "int" and value != value // 1):
        raise RowError(f"{name} is not {'a whole' if kind == 'int' else 'a'} number")
    if not 0 <= value <= MAX_NUMBER:
        raise RowError(f"{name} is out of range")
    return int(value) if kind == "int" else float(value)


def match(rows: Iterable[Row], **fields: object) -> Iterator[Row]:
    """Return the rows whose fields have these values."""
    return (row for row in rows if all(getattr(row, name) == value for name, value in fields.items()))


def measured(rows: Iterable[Row], field: str, **fields: object) -> list[float]:
    """Return one field of the measured rows that match; absent optional fields are left out."""
    values = [getattr(row, field) for row in match(rows, **fields) if row.n > 0]
    return [value for value in values if value is not None]


def median_p50(rows: Iterable[Row], **fields: object) -> float | None:
    """Return the median of the matching rows' p50, nanoseconds; None when nothing was measured."""
    found = measured(rows, "p50_ns", **fields)
    return statistics.median(found) if found else None


def one(rows: Iterable[Row], field: str, **fields: object) -> float | None:
    """Return the median of a field over the measured rows that match and have it; None when there is none."""
    found = measured(rows, field, **fields)
    return statistics.median(found) if found else None


def ratio(rows: Sequence[Row], field: str, where: Mapping[str, object], ours: str, theirs: str) -> float | None:
    """Return our figure over theirs, round by round; None when one of them was not measured."""
    mine, other = (measured(rows, field, system=system, **where) for system in (ours, theirs))
    if not mine or not other:
        return None
    if len(mine) != len(other):
        divisor = statistics.median(other)
        return statistics.median(mine) / divisor if divisor else None
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


_IDENTITY = ("bench", "case", "system", "side", "placement", "payload_bytes", "clients", "unit")


_MEASURED = (
    *("p50_ns", "p99_ns", "mean_ns", "per_s", "fairness", "value"),
    *("cpu_us_per_call", "mb_per_s", "ipc_per_operation"),
)


def merged(rows: Iterable[Row]) -> list[Row]:
    """Rows of the same cell as one, with the medians of what was measured; `n` is the sum.

    A row that was not measured stays as it is; notes that differ are left out.
    """
    cells: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        note = row.note if not row.n or row.case == "hog" else None
        cells.setdefault((*(getattr(row, name) for name in _IDENTITY), note, row.n > 0), []).append(row)
    return [_median_row(same) if len(same) > 1 else same[0] for same in cells.values()]


def _median_row(rows: Sequence[Row]) -> Row:
    fields: dict[str, Any] = {}
    for name in _MEASURED:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        fields[name] = statistics.median(values) if values else None
    notes = {row.note for row in rows}
    note = notes.pop() if len(notes) == 1 else None
    return dataclasses.replace(rows[0], n=sum(row.n for row in rows), note=note, **fields)


def size_name(payload_bytes: int) -> str:
    """Return a payload as people say it: `null`, `8 B`, `64 KiB`, `1 MiB`."""
    for unit, shift in (("MiB", 20), ("KiB", 10)):
        if payload_bytes and payload_bytes % (1 << shift) == 0:
            return f"{payload_bytes >> shift} {unit}"
    return f"{payload_bytes} B" if payload_bytes else "null"


def number(value: float) -> str:
    """Return a number in three significant digits and no exponent."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
