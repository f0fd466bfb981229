"""The redo log: what committed transactions changed in the database, kept on the device until the database has it.

    area     records one after the other: length of the rest in bytes, 8 bytes, then number and changes (`marshal`)
    a word   of the superblock: how far the records reach; storing it commits the record before it

The device lives no longer than the program that made it, nor does anybody else write to it: hence `marshal`.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterator
from typing import TypeAlias

from services.fs.device import Device

Value: TypeAlias = "int | str | bytes"
Change: TypeAlias = "tuple[int, tuple[Value, ...]]"  # a statement by its number, and its values

_TAIL_AT = 24
_LENGTH = struct.Struct("<Q")


class RedoLog:
    """The records on one device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._start = device.layout.redo.start
        self._size = device.layout.redo.size
        self._tail = device.word(_TAIL_AT)

    @staticmethod
    def record(number: int, changes: list[Change]) -> bytes:
        """A transaction as it stands in the log."""
        body = marshal.dumps((number, changes))
        return _LENGTH.pack(len(body)) + body

    def fits(self, record: bytes) -> bool:
        """Whether there is room for one more."""
        return self._tail + len(record) <= self._size

    def append(self, record: bytes) -> None:
        """Write a record that fits: from the end of this call on it is committed."""
        self._device.write(self._start + self._tail, record)
        self._tail += len(record)
        self._device.put_word(_TAIL_AT, self._tail)

    def clear(self) -> None:
        """Drop all records: the database has them."""
        if self._tail:
            self._tail = 0
            self._device.put_word(_TAIL_AT, 0)

    def __iter__(self) -> Iterator[tuple[int, list[Change]]]:
        """Number and changes of each record."""
        at, end = self._start, self._start + self._tail
        while at < end:
            (length,) = _LENGTH.unpack(self._device.memory[at : at + _LENGTH.size])
            at += _LENGTH.size
            number, changes = marshal.loads(self._device.memory[at : at + length])
            yield number, changes
            at += length
