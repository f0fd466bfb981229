"""The memory devices of Linux: each is what a read gives and what becomes of a write. They keep nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from corekernel.errors import ServiceError


@dataclass(frozen=True, slots=True)
class MemoryDevice:
    """A device of major number 1: its minor number, and what a read of so many bytes gives."""

    minor: int
    read: Callable[[int], bytes]
    full: bool = False

    def write(self, size: int) -> int:
        """Take so many bytes: all of them.

        Raises:
            ServiceError: ENOSPC, from the device that is always full.
        """
        if self.full and size:
            raise ServiceError(errno.ENOSPC)
        return size


MAJOR = 1
DEVICES = {
    "null": MemoryDevice(3, lambda size: b""),
    "zero": MemoryDevice(5, bytes),
    "full": MemoryDevice(7, bytes, full=True),
    "random": MemoryDevice(8, os.urandom),
    "urandom": MemoryDevice(9, os.urandom),
}
