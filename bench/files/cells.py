"""Rows of the operations: in each round, hmk and the host's file systems one right after the other.

Each row is measured by fresh client processes (`bench.hmk.cell`). A client works in a directory of its own, which it
removes. The calls that an act takes are counted by the service, while one client alone calls it: the count is exact,
and holds for more clients, too, which do the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from bench.files.operations import OPERATIONS, Deed, Operation, Site, furnish, shared_of
from bench.files.places import Place, Session
from bench.files.plan import Plan
from bench.hmk import cell
from bench.hmk.cell import CellError, Start
from bench.stats import Row, fairness

CASES: Final = tuple(OPERATIONS)
WARM_UP = 10


@dataclasses.dataclass(frozen=True)
class Found:
    """What one client found: times of its acts, nanoseconds, and calls of the service made for them, if counted."""

    samples: array[int]
    calls: int


def rows(places: Sequence[Place], plan: Plan, cases: Collection[str]) -> Iterator[Row]:
    """Measure those of `CASES` that are wanted."""
    chosen = [case for case in CASES if case in cases]
    if chosen:
        for place in places:
            prepare(place, plan)
    for case in chosen:
        counted: dict[str, float | None] = {}
        for _, count, place in itertools.product(range(plan.rounds), plan.clients, places):
            row = measure(place, case, count, plan)
            if count == 1:
                counted[place.system] = row.ipc_per_operation
            yield dataclasses.replace(row, ipc_per_operation=counted.get(place.system))


def row_of(place: Place, case: str, clients: int = 1) -> Row:
    """A row that has still to be measured."""
    return Row("fs", case, place.system, "python", "free", clients=clients)


def prepare(place: Place, plan: Plan) -> None:
    """Have a client make what all share.

    Raises:
        CellError: it cannot.
    """

    def body(_: int, start: Start) -> None:
        session = place.session()
        start()
        make_root(session, place)
        furnish(session.calls, place, plan)

    cell.run(place, body, 5.0)


def make_root(session: Session, place: Place) -> None:
    """See that the place's directory is there."""
    with contextlib.suppress(FileExistsError):
        session.calls.mkdir(place.root)


def measure(place: Place, case: str, count: int, plan: Plan) -> Row:
    """One row of one operation."""
    row, operation, alone = row_of(place, case, count), OPERATIONS[case], count == 1
    try:
        outcome = cell.run(place, lambda i, start: _work(place, operation, i, alone, plan, start), 2.0, count)
    except CellError as error:
        return row.unmeasured(str(error))
    found = outcome.results
    acts = sum(len(each.samples) for each in found)
    per_s = sum(len(each.samples) / sum(each.samples) for each in found) * 1e9
    return dataclasses.replace(
        row.timed([sample for each in found for sample in each.samples]),
        per_s=round(per_s, 1),
        mb_per_s=round(per_s * operation.moved / 1e6, 1) if operation.moved else None,
        fairness=fairness([len(each.samples) for each in found]),
        ipc_per_operation=round(sum(each.calls for each in found) / acts, 4) or None,
    )


def _work(place: Place, operation: Operation, index: int, alone: bool, plan: Plan, start: Start) -> Found:
    """The life of one client: the body of a cell; calls are counted if it is alone."""
    session = place.session()
    own = f"{place.root}/client{index}"
    session.calls.mkdir(own)
    site = Site(session.calls, shared_of(place), own, plan, WARM_UP + plan.most)
    deed = operation.prepare(site)
    act = Acting(deed, session.made if alone else lambda: 0)
    act.some(WARM_UP)
    start()
    found = act.some(plan.most, plan.budget_s)
    session.calls.remove(own)
    return found


class Acting:
    """Acts that go on where the last ones ended."""

    def __init__(self, deed: Deed, made: Callable[[], int]) -> None:
        self._made = made
        self._deed = deed
        self._next = 0

    def some(self, most: int, budget_s: float = 60.0) -> Found:
        """So many acts, or what can be done in that time, at least one."""
        clock, act, samples = time.perf_counter_ns, self._deed.act, array("q")
        calls, end = self._made(), clock() + int(budget_s * 1e9)
        for i in range(self._next, self._next + most):
            if self._deed.again is not None and not i % self._deed.period:
                calls += self._untimed()
            before = clock()
            act(i)
            after = clock()
            samples.append(after - before)
            if after > end:
                break
        self._next += len(samples)
        return Found(samples, self._made() - calls)

    def _untimed(self) -> int:
        """Begin anew; the calls that it took, which are not counted."""
        assert self._deed.again is not None
        before = self._made()
        self._deed.again()
        return self._made() - before
