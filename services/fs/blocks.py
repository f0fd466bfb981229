"""Which blocks of a device are used: one byte each, on the device, so that a search is the host's own `memchr`.

Blocks are marked before the transaction that names them commits and freed after the one that forgets them has. A word
on the device says that such a transaction is under way; who finds it set after a death reads the truth from the
extents.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.fs.device import BLOCK, Device

_UNSURE_AT = 16


class BlockMap:
    """Allocation on one device; a block's number counts from the start of the device."""

    def __init__(self, device: Device) -> None:
        area, data = device.layout.map, device.layout.data
        self._device = device
        self._start = area.start
        self.first = data.start // BLOCK
        self.last = self.first + data.size // BLOCK
        self.total = self.last - self.first
        self._used = bytearray(device.memory[area.start : area.start + area.size])  # the same, to search in
        self.free = self._used.count(0, self.first, self.last)
        self._next = self.first

    # ---- a transaction under way

    @property
    def unsure(self) -> bool:
        """Whether a transaction that moved blocks was cut short."""
        return self._device.word(_UNSURE_AT) != 0

    def begin(self) -> None:
        """Blocks are about to change hands."""
        self._device.put_word(_UNSURE_AT, 1)

    def settled(self) -> None:
        """Map and extents agree."""
        self._device.put_word(_UNSURE_AT, 0)

    def rebuild(self, extents: Iterable[tuple[int, int]]) -> None:
        """Make the map anew from (block, count) of every extent."""
        self._mark(self.first, bytes(self.total))
        for block, count in extents:
            self._mark(block, b"\1" * count)
        self.free = self._used.count(0, self.first, self.last)
        self.settled()

    # ---- blocks

    def take(self, wanted: int) -> tuple[int, int]:
        """Mark up to `wanted` adjoining blocks as used: first block and how many; (0, 0) when none is free."""
        if not self.free:
            return 0, 0
        wanted = min(wanted, self.free)
        block = self._find(wanted)
        count = self._run(block, wanted)
        self._mark(block, b"\1" * count)
        self.free -= count
        self._next = block + count
        return block, count

    def _find(self, wanted: int) -> int:
        """Where a run of `wanted` starts: from the last one taken, or the first one given back, on; else any block."""
        here, there = self._next, self.first
        for run in (wanted, 1):
            for start, end in ((here, self.last), (there, self.last)):
                found = self._used.find(bytes(run), start, end)
                if found >= 0:
                    return found
        raise AssertionError("the count of free blocks is wrong")

    def _run(self, block: int, wanted: int) -> int:
        end = min(block + wanted, self.last)
        used = self._used.find(1, block, end)
        return (end if used < 0 else used) - block

    def give(self, block: int, count: int) -> None:
        """Mark blocks as free; they are the next to be taken: the host has given memory to them already."""
        self._mark(block, bytes(count))
        self.free += count
        self._next = min(self._next, block)

    def _mark(self, block: int, states: bytes) -> None:
        self._used[block : block + len(states)] = states
        self._device.write(self._start + block, states)
