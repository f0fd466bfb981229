"""The core's event loop: one thread that owns all of the core's state, and never waits for anybody.

Work that must wait (starting a process, asking the memory manager) runs on a few helper threads and comes back with
`soon`. A readiness callback that raises ends what it served, not the loop.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
HELPERS = 4


class Loop:
    """Selector, timers, and a way in for other threads."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, self._drain)
        self._soon: deque[Callable[[], object]] = deque()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="helper")
        self._thread = threading.get_ident()
        self._running = True

    def _drain(self) -> None:
        os.eventfd_read(self._wake)

    def watch(self, fd: Any, callback: Callable[[], object]) -> None:
        """Call back whenever `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: Any) -> None:
        """Stop watching; unknown descriptors are ignored."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            return

    def soon(self, callback: Callable[[], object]) -> None:
        """From any thread: run on the loop."""
        self._soon.append(callback)
        if threading.get_ident() != self._thread:
            os.eventfd_write(self._wake, 1)

    def later(self, seconds: float, callback: Callable[[], object]) -> None:
        """On the loop: run after a time."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), callback))

    def aside(self, work: Callable[[], T], then: Callable[[T | None, Exception | None], object]) -> None:
        """Run `work` on a helper thread, then `then(result, error)` on the loop."""

        def body() -> None:
            try:
                result: T | None = work()
                error: Exception | None = None
            except Exception as caught:
                result, error = None, caught
            self.soon(lambda: then(result, error))

        self._helpers.submit(body)

    def ask(self, work: Callable[[], T], timeout: float = 10.0) -> T:
        """From another thread: run on the loop and return its result."""
        future: Future[T] = Future()

        def body() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        self.soon(body)
        return future.result(timeout)

    def stop(self) -> None:
        """End `run`."""
        self.soon(lambda: setattr(self, "_running", False))

    def run(self) -> None:
        """Serve until `stop`."""
        self._thread = threading.get_ident()
        while self._running:
            for key, _ in self._selector.select(self._patience()):
                if self._selector.get_map().get(key.fd) is key:  # not forgotten by an earlier callback
                    _guarded(key.data)
            while self._later and self._later[0][0] <= time.monotonic():
                _guarded(heapq.heappop(self._later)[2])
            while self._soon:
                _guarded(self._soon.popleft())
        self._helpers.shutdown(wait=False, cancel_futures=True)

    def _patience(self) -> float | None:
        if self._soon:
            return 0.0
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None


def _guarded(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        traceback.print_exc(file=sys.stderr)
