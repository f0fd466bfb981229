"""The serial console: what the system and its programs say, and what is typed at it.

Output is kept in a bounded ring for `logs` and handed to whoever watches; input waits, bounded too, until it is read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from corekernel.condition import Condition

OUTPUT_BYTES = 256 << 10
INPUT_BYTES = 64 << 10


class Serial:
    """One console; safe to use from every thread of the core."""

    def __init__(self, watch: Callable[[bytes], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._output: deque[bytes] = deque()
        self._held = 0
        self._total = 0
        self._input = bytearray()
        self._closed = False
        self._watch = watch
        self.readable = Condition()

    def write(self, data: bytes) -> int:
        """Append output; the oldest goes when the ring is full."""
        with self._lock:
            self._output.append(data)
            self._held += len(data)
            self._total += len(data)
            while self._held > OUTPUT_BYTES and len(self._output) > 1:
                self._held -= len(self._output.popleft())
        if self._watch is not None:
            self._watch(data)
        return len(data)

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

    def take(self, limit: int) -> bytes | None:
        """Up to `limit` bytes of input; b"" at its end; None when there is none yet."""
        with self._lock:
            if not self._input:
                return b"" if self._closed else None
            data = bytes(self._input[:limit])
            del self._input[:limit]
        return data
