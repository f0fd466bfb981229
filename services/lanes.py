"""Where the last request of each lane is recorded, so that a request that is issued again is answered, not done again.

A request that changes something carries a number that its client chose: a *lane*, one per thread, in the upper 16 bits,
and a count. Of each lane of each client a service keeps the last request and its answer, in records of an object that
the core holds. What a record has in it and how it is written so that a kill leaves it whole is the service's own
(`fs/journal.py`, `devmgr/journal.py`); which record a lane has, and who must give one up, is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LANE_SHIFT: Final = 48


class Lanes:
    """Records of lanes by number. Made empty: `enter` and `vacate` say what was found in an object."""

    def __init__(self, per_client: int) -> None:
        """Make a table in which one client has at most so many lanes."""
        self._per_client = per_client
        self._records: dict[int, dict[int, int]] = {}  # client -> lane -> record, the least recently used lane first
        self._free: list[int] = []

    def enter(self, client: int, request: int, record: int) -> None:
        """A record is the lane's of a request."""
        self._records.setdefault(client, {})[request >> LANE_SHIFT] = record

    def vacate(self, record: int) -> None:
        """A record is free."""
        self._free.append(record)

    def find(self, client: int, request: int) -> int:
        """The record of a request's lane; -1: it has none."""
        lanes = self._records.get(client)
        return lanes.get(request >> LANE_SHIFT, -1) if lanes else -1

    def use(self, client: int, request: int) -> int:
        """The same, made if need be; it is now the one used last.

        If the client has its share, the one of its lanes that was used longest ago gives its record up; if none is
        free, that of the client with the most. So whoever fills the table loses by it: what is issued again was just
        done.
        """
        lanes = self._records.setdefault(client, {})
        lane = request >> LANE_SHIFT
        record = lanes.pop(lane, -1)
        if record < 0:
            if self._free and len(lanes) < self._per_client:
                record = self._free.pop()
            else:
                giving = lanes if len(lanes) >= self._per_client else max(self._records.values(), key=len)
                record = giving.pop(next(iter(giving)))
        lanes[lane] = record
        return record

    def forget(self, client: int) -> list[int]:
        """A client is gone: the records that it had, which are free now."""
        records = list(self._records.pop(client, {}).values())
        self._free += records
        return records

    def clients(self) -> list[int]:
        """Who has a record."""
        return list(self._records)

    def __iter__(self) -> Iterator[int]:
        """All records that lanes have."""
        for lanes in self._records.values():
            yield from lanes.values()
