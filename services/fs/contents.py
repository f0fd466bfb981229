"""What is in regular files: reading, writing, cutting, reserving and punching, in blocks of a device.

New contents are written before the transaction that names their blocks commits. What a block holds beyond a file's end
is anything: it is zeroed when the file grows over it. A block that is not named by an extent reads as zeros.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import time
from typing import Final

from corekernel.errors import ServiceError
from services.fs.database import ADD_EXTENT, CUT_EXTENTS, GROW_EXTENT
from services.fs.device import BLOCK
from services.fs.store import Extent, Inode, Store, Transaction

LARGEST_FILE: Final = 2**63 - 1
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
_DAY = 86_400 * 10**9


def _blocks(offset: int, end: int) -> tuple[int, int]:
    """The blocks [first, last) that bytes [offset, end) touch."""
    return offset // BLOCK, -(-end // BLOCK)


def _at(extents: list[Extent], block: int) -> int:
    """Index of the first extent that ends beyond a block."""
    index = bisect.bisect_right(extents, block, key=lambda extent: extent[0])
    if index and extents[index - 1][0] + extents[index - 1][1] > block:
        return index - 1
    return index


class Contents:
    """Contents of the files of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._device = store.device

    # ---- reading

    def read(self, inode: Inode, offset: int, size: int) -> bytes:
        """Bytes from an offset on, fewer at the file's end."""
        end = min(offset + size, inode.size)
        if offset >= end:
            return b""
        extents = self._store.extents(inode)
        first, last = _blocks(offset, end)
        index = _at(extents, first)
        if index < len(extents):
            start, count, block = extents[index]
            if start <= first and last <= start + count:  # all of it in one extent, as almost always
                at = (block - start) * BLOCK
                return bytes(self._device.memory[at + offset : at + end])
        return self._gather(extents[index:], offset, end)

    def _gather(self, extents: list[Extent], offset: int, end: int) -> bytes:
        data = bytearray(end - offset)
        for start, count, block in extents:
            low, high = max(offset, start * BLOCK), min(end, (start + count) * BLOCK)
            if low >= end:
                break
            at = (block - start) * BLOCK
            data[low - offset : high - offset] = self._device.memory[at + low : at + high]
        return bytes(data)

    def seek(self, inode: Inode, offset: int, whence: int) -> int:
        """Where data (SEEK_DATA) or a hole (SEEK_HOLE) is, from an offset on.

        Raises:
            ServiceError: ENXIO, there is none.
        """
        if offset < 0 or offset >= inode.size:
            raise ServiceError(errno.ENXIO)
        extents = self._store.extents(inode)
        for start, count, _ in extents[_at(extents, offset // BLOCK) :]:
            low, high = start * BLOCK, (start + count) * BLOCK
            if whence == os.SEEK_DATA:
                if low < inode.size:
                    return max(offset, low)
                break
            if low > offset:
                return offset
            offset = high
        if whence == os.SEEK_DATA:
            raise ServiceError(errno.ENXIO)
        return min(offset, inode.size)

    def accessed(self, inode: Inode) -> None:
        """Note an access as Linux does by default: if the last one noted is older than a change, or than a day."""
        now = time.time_ns()
        if inode.atime <= max(inode.mtime, inode.ctime) or now - inode.atime > _DAY:
            # For want of room it is not noted, for what was read is there all the same.
            with contextlib.suppress(ServiceError), self._store.transaction() as change:
                change.touch(inode)
                inode.atime = now

    # ---- writing

    def write(self, change: Transaction, inode: Inode, offset: int, data: bytes | memoryview) -> int:
        """Write; how many bytes: fewer when the device fills up.

        Raises:
            ServiceError: ENOSPC, EFBIG.
        """
        if offset + len(data) > LARGEST_FILE:
            raise ServiceError(errno.EFBIG)
        change.touch(inode)
        reach = self._reserve(change, inode, offset, offset + len(data))
        if reach <= offset:
            raise ServiceError(errno.ENOSPC)
        count = reach - offset
        self._zero_beyond_end(inode, offset)
        self._put(inode, offset, data if count == len(data) else memoryview(data)[:count])
        inode.size = max(inode.size, reach)
        self._modified(change, inode)
        return count

    def _modified(self, change: Transaction, inode: Inode) -> None:
        inode.mtime = inode.ctime = change.now

    def _put(self, inode: Inode, offset: int, data: bytes | memoryview) -> None:
        """Write bytes to blocks that are there."""
        end, extents = offset + len(data), self._store.extents(inode)
        for start, count, block in extents[_at(extents, offset // BLOCK) :]:
            low, high = max(offset, start * BLOCK), min(end, (start + count) * BLOCK)
            if low >= end:
                return
            whole = low == offset and high == end
            self._device.write((block - start) * BLOCK + low, data if whole else data[low - offset : high - offset])

    def _zero_beyond_end(self, inode: Inode, until: int) -> None:
        """Zero what the file's last block holds beyond its end, as far as the file is to grow over it."""
        if until > inode.size and inode.size % BLOCK:
            self._zero(inode, inode.size, min(until, -(-inode.size // BLOCK) * BLOCK))

    def _zero(self, inode: Inode, offset: int, end: int) -> None:
        """Write zeros to such blocks of a range as are there."""
        extents = self._store.extents(inode)
        for start, count, block in extents[_at(extents, offset // BLOCK) :]:
            low, high = max(offset, start * BLOCK), min(end, (start + count) * BLOCK)
            if low >= end:
                return
            self._device.clear((block - start) * BLOCK + low, high - low)

    # ---- blocks

    def _holes(self, inode: Inode, first: int, last: int) -> list[tuple[int, int]]:
        """Ranges of blocks [first, last) that no extent has."""
        holes, extents = [], self._store.extents(inode)
        for start, count, _ in extents[_at(extents, first) :]:
            if start >= last:
                break
            if start > first:
                holes.append((first, start))
            first = start + count
        if first < last:
            holes.append((first, last))
        return holes

    def _reserve(self, change: Transaction, inode: Inode, offset: int, end: int, clear: bool = False) -> int:
        """Have blocks for bytes [offset, end); how far there are, at most `end`."""
        first, last = _blocks(offset, end)
        for low, high in self._holes(inode, first, last):
            while low < high:
                block, count = change.take(high - low)
                if not count:
                    return min(low * BLOCK, end)
                self._blank(block, low, count, (0, 0) if clear else (offset, end))
                self._add(change, inode, (low, count, block))
                low += count
        return end

    def _blank(self, block: int, start: int, count: int, written: tuple[int, int]) -> None:
        """Zero of new blocks what is not about to be written."""
        low, high = start * BLOCK, (start + count) * BLOCK
        at = block * BLOCK - low
        offset, end = max(written[0], low), min(written[1], high)
        if offset >= end:
            offset = end = high
        for begin, until in ((low, offset), (end, high)):
            if begin < until:
                self._device.clear(at + begin, until - begin)

    def _add(self, change: Transaction, inode: Inode, new: Extent) -> None:
        """Enter blocks in a file, joined to those before them if they adjoin."""
        start, count, block = new
        extents = self._store.extents(inode)
        index = bisect.bisect_left(extents, new)
        inode.blocks += count
        if index:
            before = extents[index - 1]
            if before[0] + before[1] == start and before[2] + before[1] == block:
                extents[index - 1] = joined = (before[0], before[1] + count, before[2])
                change.change(GROW_EXTENT, joined[1], inode.ino, joined[0])
                return
        extents.insert(index, new)
        change.change(ADD_EXTENT, inode.ino, *new)

    def _remove(self, change: Transaction, inode: Inode, first: int, last: int) -> None:
        """Take blocks [first, last) from a file."""
        kept: list[Extent] = []
        gone: list[Extent] = []
        extents = self._store.extents(inode)
        affected = [e for e in extents if e[0] < last and e[0] + e[1] > first]
        for start, count, block in affected:
            low, high = max(start, first), min(start + count, last)
            gone.append((low, high - low, block + low - start))
            if start < low:
                kept.append((start, low - start, block))
            if high < start + count:
                kept.append((high, start + count - high, block + high - start))
        if affected:
            change.change(CUT_EXTENTS, inode.ino, affected[0][0], affected[-1][0])
        for extent in kept:
            change.change(ADD_EXTENT, inode.ino, *extent)
        inode.extents = sorted([e for e in extents if e not in affected] + kept)
        inode.blocks -= sum(count for _, count, _ in gone)
        change.free(gone)

    # ---- length and reservation

    def truncate(self, change: Transaction, inode: Inode, length: int, keep_times: bool = False) -> None:
        """Cut a file, or extend it by a hole."""
        change.touch(inode)
        if length > inode.size:
            self._zero_beyond_end(inode, length)
        else:
            self._remove(change, inode, -(-length // BLOCK), LARGEST_FILE // BLOCK + 1)
        inode.size = length
        if not keep_times:
            self._modified(change, inode)

    def allocate(self, change: Transaction, inode: Inode, mode: int, offset: int, length: int) -> None:
        """Reserve, zero or punch out a range (fallocate).

        Raises:
            ServiceError: ENOSPC, EFBIG, EINVAL, EOPNOTSUPP.
        """
        end = offset + length
        change.touch(inode)
        match mode & ~KEEP_SIZE:
            case 0:
                self._fill(change, inode, offset, end)
            case 2 if mode & KEEP_SIZE:
                self._punch(change, inode, offset, end)
            case _:
                raise ServiceError(errno.EOPNOTSUPP)
        if not mode & (KEEP_SIZE | PUNCH_HOLE) and end > inode.size:
            self._zero_beyond_end(inode, end)
            inode.size = end
        self._modified(change, inode)

    def _fill(self, change: Transaction, inode: Inode, offset: int, end: int) -> None:
        if end > LARGEST_FILE:
            raise ServiceError(errno.EFBIG)
        if end - offset > self._store.blocks.total * BLOCK:
            raise ServiceError(errno.ENOSPC)
        if self._reserve(change, inode, offset, end, clear=True) < end:
            raise ServiceError(errno.ENOSPC)

    def _punch(self, change: Transaction, inode: Inode, offset: int, end: int) -> None:
        first, last = -(-offset // BLOCK), end // BLOCK
        self._zero(inode, offset, min(end, first * BLOCK))
        self._zero(inode, max(offset, last * BLOCK), end)
        if first < last:
            self._remove(change, inode, first, last)
