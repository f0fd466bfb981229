"""Contents of a volume's small files that came with their opening: a program that reads on at once needs no other call.

They are whole files as they were at one moment, and serve reads for a tenth of a second after it; then the volume is
asked again. So a read sees a file as it was at most that long ago. Nothing of this outlives the process: whoever finds
nothing here asks the volume.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

MOST: Final = 16 << 20  # bytes of all of them; then the oldest go
LASTING_NS: Final = 100_000_000


class Contents(NamedTuple):
    """All of a file, and until when it may be shown, in nanoseconds of the monotonic clock."""

    data: bytes
    until: int


def lasting() -> int:
    """Until when contents may be shown for which a volume is asked now."""
    return time.monotonic_ns() + LASTING_NS


class Fresh:
    """The contents of open files, by the index of their description. Used under the lock of the file system."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held = 0
        self._kept: dict[int, Contents] = {}  # the oldest first

    def __len__(self) -> int:
        return self._held

    def keep(self, index: int, contents: Contents) -> None:
        """Keep the contents of a description that has none yet."""
        self._kept[index] = contents
        self._held += len(contents.data)
        while self._held > self._most:
            self.drop(next(iter(self._kept)))

    def read(self, index: int, offset: int, size: int) -> bytes | None:
        """A part of a file, empty at its end; None: it is not known, or not any more."""
        found = self._kept.get(index)
        if found is None:
            return None
        if time.monotonic_ns() >= found.until:
            self.drop(index)
            return None
        return found.data[offset : offset + size]

    def drop(self, index: int) -> None:
        """A description has gone."""
        found = self._kept.pop(index, None)
        if found is not None:
            self._held -= len(found.data)
