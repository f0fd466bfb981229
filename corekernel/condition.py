"""Waiting without holding a stack.

A handler never waits for another client (Microkernel Goes General, OSDI '24). It asks a
`Condition`; if what it wants does not hold yet, `WouldWait` ends the call with WAIT: the stack is free again, the
caller sleeps on its own wait word and re-issues the call once somebody says `notify()`.

No wake-up is lost: the caller's count is read and the caller registered *before* the predicate is tested, and the
count travels back with the WAIT.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from corekernel.errors import WouldWait
from corekernel.port import Caller

T = TypeVar("T")


class Waiter(Caller, Protocol):
    """A caller that can be woken."""

    wait_sequence: int

    def sample(self) -> int:
        """The count in its wait word."""
        ...

    def wake(self) -> None:
        """Add to the count and wake it."""
        ...


class Condition:
    """A set of callers waiting for one thing to change; safe to use from every carrier of a service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: set[Waiter] = set()

    def wait_for(self, caller: Caller, ready: Callable[[], T | None]) -> T:
        """Return what `ready` returns, if it is not None and not False.

        Raises:
            WouldWait: it is not there yet; the caller will re-issue its call after `notify`.
        """
        waiter: Waiter = caller  # type: ignore[assignment]
        sequence = waiter.sample()
        with self._lock:
            self._waiters.add(waiter)
        result = ready()
        if result is not None and result is not False:
            with self._lock:
                self._waiters.discard(waiter)
            return result
        waiter.wait_sequence = sequence
        raise WouldWait(self)

    def notify(self) -> None:
        """Wake every waiter; each tests again."""
        with self._lock:
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.wake()

    def forget(self, client: int) -> None:
        """Drop the waiters of a client that is gone."""
        with self._lock:
            self._waiters = {waiter for waiter in self._waiters if waiter.client != client}

    def __len__(self) -> int:
        return len(self._waiters)
