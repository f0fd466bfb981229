"""hmk's own half of `bench ipc`: every case of the plan as rows, each from fresh client processes.

Cases that compare wait policies run on one system per variant (`hmk`, `hmk:spin`, `hmk:blocking`), booted once for
all of them; the others boot what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final, TypeAlias

from bench.hmk import crowd, latency, phone, resting, threads
from bench.hmk.plan import CASES, FULL, QUICK, VARIANTS, Plan
from bench.hmk.system import Booted, boot_text, pinned_services
from bench.stats import Row

__all__ = ["CASES", "FULL", "QUICK", "Plan", "rows"]

OnVariant: TypeAlias = Callable[[Booted, Plan], Iterator[Row]]
_ON_VARIANTS: Final[Mapping[str, OnVariant]] = {
    "null": latency.null,
    "echo": latency.echo,
    "hog": latency.hog,
    "clients": crowd.clients,
    "chain2": crowd.chain2,
    "chain3": crowd.chain3,
}
_ALONE: Final[Mapping[str, Callable[[Plan], Iterator[Row]]]] = {
    "threads": threads.threads,
    "phone": phone.phone,
    "idle": resting.idle,
    "boot": resting.boots,
}


def rows(plan: Plan, cases: Collection[str] = CASES, variants: Collection[str] = VARIANTS) -> Iterator[Row]:
    """Measure cases; this process must have one thread.

    Args:
        plan: how much to measure.
        cases: names out of `CASES`.
        variants: for the cases that compare wait policies.

    Raises:
        BootError: a system does not come up.
    """
    for system in variants:
        wanted = set(cases) if system == "hmk" else set(cases) & set(plan.variant_cases)
        chosen = [measure for case, measure in _ON_VARIANTS.items() if case in wanted]
        if chosen:
            with boot_text(pinned_services(), system) as booted:
                for measure in chosen:
                    yield from measure(booted, plan)
    for case, measure_alone in _ALONE.items():
        if case in cases:
            yield from measure_alone(plan)
