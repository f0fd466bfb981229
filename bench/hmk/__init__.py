"""hmk's own half of `bench ipc`: rows, each from fresh client processes.

What is compared with others is measured cell by cell (`latency`, `crowd`; `bench.rounds` says in which order); here is
what stands alone, on systems booted for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from bench.hmk import phone, resting, threads
from bench.hmk.plan import Plan
from bench.stats import Row

_ALONE: Final[Mapping[str, Callable[[Plan], Iterator[Row]]]] = {
    "threads": threads.threads,
    "phone": phone.phone,
    "idle": resting.idle,
    "boot": resting.boots,
}
CASES: Final = tuple(_ALONE)


def rows(plan: Plan, cases: Collection[str] = CASES) -> Iterator[Row]:
    """Measure those of `CASES` that are wanted; this process must have one thread.

    Raises:
        BootError: a system does not come up.
    """
    for case, measure in _ALONE.items():
        if case in cases:
            yield from measure(plan)
