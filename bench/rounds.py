"""hmk beside what it is compared with, in turns.

A host that is shared changes its own speed by a factor of two or three within a second: two cells measured a minute
apart compare the host with itself. So each cell is measured in rounds, and in each round hmk's variants, the peers and
the limits come one right after the other. Ratios are taken within a round (`bench.figures`), and of all rounds the
median counts. Rows of one cell differ only in what was measured; their order is that of the rounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, TypeAlias

from bench import peers, raw
from bench.hmk import crowd, latency
from bench.hmk.plan import VARIANTS, Plan
from bench.hmk.system import Booted, boot_text, pinned_services
from bench.stats import PLACEMENTS, SIDES, Row

CASES: Final = ("null", "echo", "hog", "clients", "chain2", "chain3")
Systems: TypeAlias = Sequence[Booted]


def rows(plan: Plan, cases: Collection[str]) -> Iterator[Row]:
    """Measure those of `CASES` that are wanted; this process must have one thread.

    Raises:
        BootError: a system does not come up.
    """
    chosen = [measure for case, measure in _MEASURES.items() if case in cases]
    if chosen:
        with contextlib.ExitStack() as stack:
            systems = [stack.enter_context(boot_text(pinned_services(), system)) for system in VARIANTS]
            for measure in chosen:
                yield from measure(systems, plan)


def _of(case: str, systems: Systems, plan: Plan) -> Systems:
    """The systems that a case is measured on: hmk, and its variants where the plan says so."""
    return systems if case in plan.variant_cases else systems[:1]


def _null(systems: Systems, plan: Plan) -> Iterator[Row]:
    for place in PLACEMENTS:
        yield from _latency("null", systems, plan, place, 0)
    yield from _repeated(systems[0], plan)


def _echo(systems: Systems, plan: Plan) -> Iterator[Row]:
    for place in PLACEMENTS:
        for size in plan.sizes:
            if size:
                yield from _latency("echo", systems, plan, place, size)


def _latency(case: str, systems: Systems, plan: Plan, place: str, size: int) -> Iterator[Row]:
    chosen = _of(case, systems, plan) if size in plan.variant_sizes else systems[:1]
    for _ in range(plan.rounds):
        for side in SIDES:
            for booted in chosen:
                yield latency.measure(booted, side, place, size, plan.budget_s)
        yield from raw.rows(plan.budget_s, [place], [size])
        yield from peers.rows(plan.peers_s, [place], [size])


def _repeated(booted: Booted, plan: Plan) -> Iterator[Row]:
    """Fresh clients of an unpinned service, numbered by `value`, and beside each the limit: the host's own speed."""
    for run in range(plan.runs):
        for side in SIDES:
            yield dataclasses.replace(latency.measure(booted, side, "free", 0, plan.budget_s), value=float(run))
        for row in raw.rows(plan.budget_s, ["cross-core"], [0]):
            if row.system == raw.RAW_SPIN.name:
                yield dataclasses.replace(row, value=float(run))


def _hog(systems: Systems, plan: Plan) -> Iterator[Row]:
    for _ in range(plan.rounds):
        for same_session in (True, False):
            for booted in _of("hog", systems, plan):
                yield from latency.hog(booted, same_session, plan.budget_s)
            yield raw.hog_row(same_session, plan.budget_s)


def _crowd(case: str, counts: Sequence[int], systems: Systems, plan: Plan) -> Iterator[Row]:
    for side in SIDES:
        for count in counts:
            for _ in range(plan.rounds):
                for booted in _of(case, systems, plan):
                    yield crowd.measure(booted, case, crowd.task(case, side, plan.crowd_s), count)


_MEASURES: Final[dict[str, Callable[[Systems, Plan], Iterator[Row]]]] = {
    "null": _null,
    "echo": _echo,
    "hog": _hog,
    "clients": lambda systems, plan: _crowd("clients", plan.clients, systems, plan),
    "chain2": lambda systems, plan: _crowd("chain2", crowd.ALONE_AND_MANY, systems, plan),
    "chain3": lambda systems, plan: _crowd("chain3", crowd.ALONE_AND_MANY, systems, plan),
}
