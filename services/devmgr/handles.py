"""Open handles, in an object that the core holds: a restart of the service closes none.

Record, little-endian, 32 bytes: (handle u64, client u64, rdev u64, flags u64), handle 0 meaning free. The handle is
written last and struck first, each with one store, so that a kill leaves a whole record or none. A handle is a count,
kept in record 0, and the index of its record: none is ever used for another.
"""

from __future__ import annotations

import errno
import struct
import threading
from dataclasses import dataclass

from corekernel.errors import ServiceError

OBJECT_BYTES = 128 << 10
PER_CLIENT = 1024
_RECORD = struct.Struct("<QQQQ")
_INDEX_BITS = 12
_WORDS = _RECORD.size // 8

assert OBJECT_BYTES // _RECORD.size <= 1 << _INDEX_BITS


@dataclass(frozen=True, slots=True)
class Handle:
    """One open device: whose, which, and with what flags."""

    number: int
    client: int
    rdev: int
    flags: int


class Handles:
    """The table; safe to use from every thread."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory.cast("B").cast("Q")
        self._lock = threading.Lock()
        self._open: dict[int, Handle] = {}
        self._counts: dict[int, int] = {}
        self._free: list[int] = []
        for index in range(len(memory) // _RECORD.size - 1, 0, -1):
            record = self._words[index * _WORDS : (index + 1) * _WORDS].tolist()
            if record[0]:
                self._enter(Handle(*record))
            else:
                self._free.append(index)

    def _enter(self, handle: Handle) -> None:
        self._open[handle.number] = handle
        self._counts[handle.client] = self._counts.get(handle.client, 0) + 1

    def open(self, client: int, rdev: int, flags: int) -> int:
        """A new handle.

        Raises:
            ServiceError: EMFILE, the client has too many; ENFILE, all have.
        """
        with self._lock:
            if self._counts.get(client, 0) >= PER_CLIENT:
                raise ServiceError(errno.EMFILE)
            if not self._free:
                raise ServiceError(errno.ENFILE)
            self._words[0] += 1
            index = self._free.pop()
            handle = Handle(self._words[0] << _INDEX_BITS | index, client, rdev, flags)
            self._write(handle)
            self._enter(handle)
        return handle.number

    def _write(self, handle: Handle) -> None:
        at = (handle.number & (1 << _INDEX_BITS) - 1) * _WORDS
        self._words[at + 1], self._words[at + 2], self._words[at + 3] = handle.client, handle.rdev, handle.flags
        self._words[at] = handle.number

    def get(self, number: int, client: int) -> Handle:
        """A client's handle.

        Raises:
            ServiceError: EBADF, it is not open, or another client's.
        """
        handle = self._open.get(number)
        if handle is None or handle.client != client:
            raise ServiceError(errno.EBADF)
        return handle

    def set_flags(self, number: int, mask: int, flags: int) -> None:
        """Change the flags in `mask`.

        Raises:
            ServiceError: EBADF, it is not open.
        """
        with self._lock:
            old = self._open.get(number)
            if old is None:
                raise ServiceError(errno.EBADF)
            self._open[number] = Handle(number, old.client, old.rdev, old.flags & ~mask | flags & mask)
            self._write(self._open[number])

    def release(self, number: int) -> None:
        """Close a handle, if it is open."""
        with self._lock:
            self._strike(number)

    def _strike(self, number: int) -> None:
        handle = self._open.pop(number, None)
        if handle is None:
            return
        index = number & (1 << _INDEX_BITS) - 1
        self._words[index * _WORDS] = 0
        self._free.append(index)
        self._counts[handle.client] -= 1
        if not self._counts[handle.client]:
            del self._counts[handle.client]

    def forget(self, client: int) -> None:
        """A client is gone."""
        with self._lock:
            for handle in list(self._open.values()):
                if handle.client == client:
                    self._strike(handle.number)

    def clients(self) -> list[int]:
        """Whoever has a handle."""
        with self._lock:
            return list(self._counts)

    def opens(self) -> dict[int, int]:
        """How many handles each device has."""
        found: dict[int, int] = {}
        with self._lock:
            for handle in self._open.values():
                found[handle.rdev] = found.get(handle.rdev, 0) + 1
        return found
