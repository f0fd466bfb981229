"""A block device in memory, and how a file system is laid out on it.

    block 0          superblock: magic, version, sizes, lengths of the two metadata files
    map              one byte per block: 0 free, 1 used (`blocks.py`)
    database         SQLite's main file (`sqlite_vfs.py`, `store.py`)
    log              SQLite's write-ahead log
    redo             what is committed and not in the database yet (`redo.py`)
    data             contents of files

The memory belongs to an object that the core holds, so a write is durable, as far as the death of this service goes,
once it is made. Every write goes through `write` or `put_word`: that is the place to put a real device, or a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BLOCK: Final = 4096
MINIMUM: Final = 4 << 20
_MAGIC: Final = 0x31_53_46_4B_4D_48  # "HMKFS1"
_VERSION: Final = 2
_MAGIC_AT, _VERSION_AT, _SIZE_AT, _LENGTHS_AT = 0, 1, 2, 8
_SMALLEST_PART, _LARGEST_LOG = 512 << 10, 16 << 20
_SMALLEST_REDO, _LARGEST_REDO = 64 << 10, 256 << 10


@dataclass(frozen=True)
class Area:
    """A range of a device: where it starts and how long it is, in bytes."""

    start: int
    size: int


@dataclass(frozen=True)
class Layout:
    """Where everything is on a device of `size` bytes."""

    map: Area
    database: Area
    log: Area
    redo: Area
    data: Area

    @classmethod
    def of(cls, size: int) -> Layout:
        """The layout of a device of that size: an eighth of it for metadata, a 32nd for the log, a 256th for redo.

        Raises:
            ValueError: it is too small.
        """
        if size < MINIMUM:
            raise ValueError(f"a file system needs {MINIMUM >> 20} MiB, the device has {size >> 20}")
        used_map = Area(BLOCK, _up(size // BLOCK))
        database = Area(used_map.start + used_map.size, _up(max(size // 8, _SMALLEST_PART)))
        log = Area(database.start + database.size, _up(min(max(size // 32, _SMALLEST_PART), _LARGEST_LOG)))
        redo = Area(log.start + log.size, _up(min(max(size // 256, _SMALLEST_REDO), _LARGEST_REDO)))
        start = redo.start + redo.size
        return cls(used_map, database, log, redo, Area(start, (size - start) // BLOCK * BLOCK))


def _up(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class Device:
    """A device in memory: bytes, and aligned 64-bit words that change at once or not at all."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self.layout = Layout.of(len(memory))
        self._words = memory[:BLOCK].cast("Q")

    @property
    def formatted(self) -> bool:
        """Whether a file system is on it.

        Raises:
            ValueError: there is one, but not of this kind.
        """
        if self._words[_MAGIC_AT] == 0:
            return False
        said = self._words[_MAGIC_AT], self._words[_VERSION_AT], self._words[_SIZE_AT]
        if said != (_MAGIC, _VERSION, len(self.memory)):
            raise ValueError(f"the device holds something else than a file system of hmk: {said}")
        return True

    def format(self) -> None:
        """Say that a file system is on it: the last step of making one."""
        self.put_word(_SIZE_AT, len(self.memory))
        self.put_word(_VERSION_AT, _VERSION)
        self.put_word(_MAGIC_AT, _MAGIC)

    def length(self, number: int) -> int:
        """Length of metadata file `number`."""
        return self._words[_LENGTHS_AT + number]

    def set_length(self, number: int, length: int) -> None:
        """Set it."""
        self.put_word(_LENGTHS_AT + number, length)

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Write bytes at a position."""
        self.memory[at : at + len(data)] = data

    def clear(self, at: int, size: int) -> None:
        """Write zeros."""
        self.memory[at : at + size] = bytes(size)

    def word(self, index: int) -> int:
        """A word of the superblock."""
        return self._words[index]

    def put_word(self, index: int, value: int) -> None:
        """Write a word of the superblock: one store, never half of it."""
        self._words[index] = value
