"""The serial console: what the system and its programs say, and what is typed at it.

Output is kept in a bounded ring for `logs` and handed to whoever watches. Input waits, bounded too, until the service
that has the console says that it is done with it: bytes have positions, counted from the boot, so that neither input
nor the output of that service is lost or doubled when it dies.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from corekernel.condition import Condition

OUTPUT_BYTES = 256 << 10
INPUT_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Typed:
    """What a read finds: bytes from position `start` on, the window (columns << 16 | rows), whether input has ended."""

    start: int
    window: int
    ended: bool
    data: bytes


class Serial:
    """One console; safe to use from every thread of the core."""

    def __init__(self, watch: Callable[[bytes], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._output: deque[bytes] = deque()
        self._held = 0
        self._total = 0
        self._input = bytearray()
        self._start = 0  # position of the first byte kept
        self._closed = False
        self._window = 0
        self._reached = 0  # position of the output that has positions
        self._watch = watch
        self.readable = Condition()

    def write(self, data: bytes) -> int:
        """Append output; the oldest goes when the ring is full."""
        with self._lock:
            self._append(data)
        if self._watch is not None:
            self._watch(data)
        return len(data)

    def _append(self, data: bytes) -> None:
        self._output.append(data)
        self._held += len(data)
        self._total += len(data)
        while self._held > OUTPUT_BYTES and len(self._output) > 1:
            self._held -= len(self._output.popleft())

    def write_at(self, position: int, data: bytes) -> None:
        """Append what of `data`, which starts at a position, has not been written before.

        Raises:
            ValueError: the position is beyond what has been written.
        """
        with self._lock:
            if position > self._reached:
                raise ValueError(f"position {position} is beyond {self._reached}")
            new = data[self._reached - position :]
            self._reached += len(new)
            if new:
                self._append(new)
        if new and self._watch is not None:
            self._watch(new)

    def line(self, source: str, text: str) -> None:
        """One line of a process's own output, with its name."""
        self.write(f"[{source}] {text}\n".encode("utf-8", "replace"))

    def tail(self, after: int = 0) -> tuple[int, bytes]:
        """Output since position `after` (as far as it is kept), and the new position."""
        with self._lock:
            kept = b"".join(self._output)
            start = max(0, len(kept) - max(0, self._total - after))
            return self._total, kept[start:]

    def feed(self, data: bytes, end: bool = False) -> int:
        """Input typed at the console; bytes taken."""
        with self._lock:
            taken = data[: INPUT_BYTES - len(self._input)]
            self._input += taken
            self._closed = self._closed or end
        self.readable.notify()
        return len(taken)

    def resize(self, rows: int, columns: int) -> None:
        """The window at the other end has a size, or another one."""
        with self._lock:
            self._window = columns << 16 | rows
        self.readable.notify()

    def read(self, position: int, limit: int, window: int) -> Typed | None:
        """Forget input before a position, and return up to `limit` bytes from there on; they are kept.

        None: there is no input yet, its end is not known, and the window is the one that the reader knows.

        Raises:
            ValueError: the position is beyond what was typed.
        """
        with self._lock:
            done = position - self._start
            if done > len(self._input):
                raise ValueError(f"position {position} is beyond {self._start + len(self._input)}")
            if done > 0:
                del self._input[:done]
                self._start = position
            data = bytes(self._input[:limit])
            if not data and not self._closed and window == self._window:
                return None
            return Typed(self._start, self._window, self._closed and not data, data)
