"""A very large directory: what an entry costs to make, to list, to describe and to remove, in one of two sizes each.

What costs the same per entry in a directory ten times as large is linear. Rows of one size and step differ in their
`unit` (`unit_of`); the listing is repeated, because it is short.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from bench.files.cells import make_root, row_of
from bench.files.operations import WRITE_NEW
from bench.files.places import Calls, Place, Session
from bench.files.plan import Plan
from bench.hmk import cell
from bench.hmk.cell import CellError, Start
from bench.stats import Row

CASE: Final = "large-directory"
STEPS: Final = ("create", "list", "stat", "remove")
_LISTINGS = 5


class Step(NamedTuple):
    """What a step took: nanoseconds and calls for all entries together, once."""

    ns: float
    calls: int


def unit_of(step: str, entries: int) -> str:
    """The unit of a row's `value`: it tells what was done, and how large the directory is."""
    return f"µs/entry, {step}, of {entries:,}"


def rows(places: Sequence[Place], plan: Plan) -> Iterator[Row]:
    """For each place, size and step a row; `per_s` is entries per second, the value what one of them took."""
    for place in places:
        row = row_of(place, CASE)
        try:
            found = _measure(place, plan)
        except CellError as error:
            yield row.unmeasured(str(error))
            continue
        for entries, steps in zip(plan.large, found, strict=True):
            for name, step in zip(STEPS, steps, strict=True):
                yield _row(row, name, entries, step)


def _row(row: Row, name: str, entries: int, step: Step) -> Row:
    return dataclasses.replace(
        row,
        n=entries,
        unit=unit_of(name, entries),
        value=round(step.ns / 1e3 / entries, 4),
        per_s=round(entries / step.ns * 1e9, 1),
        ipc_per_operation=(step.calls if name == "list" else round(step.calls / entries, 4)) or None,
    )


def _measure(place: Place, plan: Plan) -> list[list[Step]]:
    def body(_: int, start: Start) -> list[list[Step]]:
        session = place.session()
        start()
        make_root(session, place)
        return [_steps(session, f"{place.root}/large{entries}", entries) for entries in plan.large]

    return cell.run(place, body, sum(plan.large) / 500).results[0]


def _steps(session: Session, path: str, entries: int) -> list[Step]:
    calls, names = session.calls, [f"{path}/{index:06}" for index in range(entries)]
    calls.mkdir(path)
    made = _taken(session, lambda: _make(calls, names))
    listings = [_taken(session, lambda: _list(calls, path, entries)) for _ in range(_LISTINGS)]
    listed = Step(statistics.median(each.ns for each in listings), listings[0].calls)
    described = _taken(session, lambda: _each(calls.stat, names))
    removed = _taken(session, lambda: _each(calls.unlink, names))
    calls.remove(path)
    return [made, listed, described, removed]


def _taken(session: Session, work: Callable[[], None]) -> Step:
    calls, began = session.made(), time.perf_counter_ns()
    work()
    took = time.perf_counter_ns() - began
    return Step(took, session.made() - calls)


def _make(calls: Calls, names: Sequence[str]) -> None:
    open_, close = calls.open, calls.close
    for name in names:
        close(open_(name, WRITE_NEW, 0o644))


def _list(calls: Calls, path: str, entries: int) -> None:
    found = len(calls.listdir(path))
    assert found == entries, f"{found} of {entries} entries listed"


def _each(act: Callable[[str], object], names: Sequence[str]) -> None:
    for name in names:
        act(name)
