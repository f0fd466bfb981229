"""How much a run measures: every number that makes a run short or thorough, in one place."""

from __future__ import annotations

import dataclasses

from bench.peers import SIZES

VARIANTS = ("hmk", "hmk:spin", "hmk:blocking")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The extent of a run.

    Attributes:
        rounds: how often each cell is measured that is compared with others.
        budget_s: seconds of sampling in a cell with one client.
        crowd_s: seconds of sampling in a cell with several.
        sizes: payload bytes measured for `hmk`; 0 is the null call.
        variant_sizes: those measured for its two variants.
        variant_cases: cases measured for its two variants.
        clients: numbers of client processes.
        runs: fresh clients of an unpinned service, one after the other.
        threads: client threads, each bound to three services.
        squeezed: client threads in the run with stacks for a quarter of them.
        callers: client threads that call at a phone's rate.
        phone_s: seconds of paced calls.
        phone_per_s: paced calls per second, all threads together.
        idle_s: seconds of watching a system that nobody calls.
        boots: systems booted.
        peers_s: seconds of sampling per peer's cell.
    """

    rounds: int
    budget_s: float
    crowd_s: float
    sizes: tuple[int, ...]
    variant_sizes: tuple[int, ...]
    variant_cases: tuple[str, ...]
    clients: tuple[int, ...]
    runs: int
    threads: int
    squeezed: int
    callers: int
    phone_s: float
    phone_per_s: int
    idle_s: float
    boots: int
    peers_s: float


FULL = Plan(
    rounds=3,
    budget_s=0.15,
    crowd_s=0.7,
    sizes=SIZES,
    variant_sizes=SIZES,
    variant_cases=("null", "echo", "hog", "clients", "chain2", "chain3"),
    clients=(1, 2, 4, 8),
    runs=10,
    threads=1000,
    squeezed=1000,
    callers=1000,
    phone_s=5.0,
    phone_per_s=41_000,
    idle_s=5.0,
    boots=7,
    peers_s=0.1,
)
QUICK = dataclasses.replace(
    FULL,
    rounds=1,
    budget_s=0.05,
    crowd_s=0.1,
    sizes=(0, 8, 4096, 65536),
    variant_sizes=(0,),
    variant_cases=("null", "chain2"),
    clients=(1, 4, 8),
    threads=300,
    squeezed=60,
    callers=1000,
    phone_s=0.5,
    idle_s=1.0,
    boots=3,
    peers_s=0.02,
)
