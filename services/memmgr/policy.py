"""What a client may use, and what to take back when stacks run out.

Plain figures and pure functions over them, to be replaced by whoever knows better.
"""

from __future__ import annotations

from dataclasses import dataclass

CLIENT_BYTES = 256 << 20
"""What a client may use until its limit is set."""


@dataclass(frozen=True)
class PoolState:
    """One service's pool: stacks bound to threads, and parked."""

    name: str
    number: int
    bound: int
    free: int


def plan(pools: list[PoolState], needy: int, wanted: int) -> list[tuple[str, int]]:
    """Which services give up how many stacks, so that service number `needy` gets `wanted`.

    Parked stacks of the others go first, since nobody will miss them; then bound ones of the needy service itself
    (its own least recently used: the cost stays where the demand is); then of the others, largest pool first.
    """
    chosen: dict[str, int] = {}
    left = wanted
    others = sorted((p for p in pools if p.number != needy), key=lambda p: -(p.bound + p.free))
    own = [p for p in pools if p.number == needy]
    for sources in (
        [(p, p.free) for p in others],
        [(p, p.bound) for p in own],
        [(p, p.bound) for p in others],
    ):
        for pool, available in sources:
            take = min(left, available)
            if take > 0:
                chosen[pool.name] = chosen.get(pool.name, 0) + take
                left -= take
    return list(chosen.items())
