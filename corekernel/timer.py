"""The core's timers: one thread, one heap, nothing when no timer is set.

Times are CLOCK_MONOTONIC nanoseconds. A waiter is woken through the condition of its timer; the thread does not know
who waits. Each client may own `MAX_TIMERS` timers.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from dataclasses import dataclass, field

from corekernel.condition import Condition

MAX_TIMERS = 256


@dataclass(eq=False)
class Timer:
    """A timer of one client; `expirations` counts those not yet collected."""

    owner: int
    next_ns: int
    period_ns: int
    expirations: int = 0
    dead: bool = False
    condition: Condition = field(default_factory=Condition)


class Timers:
    """All timers of a system."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._timers: dict[tuple[int, int], Timer] = {}
        self._sleepers: dict[int, Timer] = {}
        self._numbers = itertools.count(1)
        self._thread: threading.Thread | None = None

    def create(self, owner: int, first_ns: int, period_ns: int) -> int | None:
        """A new timer's number; None when the owner has too many."""
        with self._changed:
            if sum(1 for client, _ in self._timers if client == owner) >= MAX_TIMERS:
                return None
            number = next(self._numbers)
            timer = Timer(owner, first_ns, period_ns)
            self._timers[owner, number] = timer
            self._push(timer)
        return number

    def at(self, deadline_ns: int, owner: int) -> Condition:
        """A condition that is notified at a time."""
        with self._changed:
            timer = self._sleepers.get(deadline_ns)
            if timer is None:
                timer = self._sleepers[deadline_ns] = Timer(owner, deadline_ns, 0)
                self._push(timer)
        return timer.condition

    def get(self, owner: int, number: int) -> Timer | None:
        """The owner's timer of that number."""
        return self._timers.get((owner, number))

    def collect(self, timer: Timer) -> int:
        """Expirations since the last collection."""
        with self._changed:
            count, timer.expirations = timer.expirations, 0
        return count

    def delete(self, owner: int, number: int) -> bool:
        """Forget a timer; its waiters wake and find it gone."""
        with self._changed:
            timer = self._timers.pop((owner, number), None)
            if timer is None:
                return False
            timer.dead = True
        timer.condition.notify()
        return True

    def client_gone(self, client: int) -> None:
        """Forget all timers of a client."""
        for owner, number in [key for key in self._timers if key[0] == client]:
            self.delete(owner, number)

    # ---- the thread

    def _push(self, timer: Timer) -> None:
        heapq.heappush(self._heap, (timer.next_ns, next(self._order), timer))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap:
                    self._changed.wait()
                wait_ns = self._heap[0][0] - time.monotonic_ns()
                if wait_ns > 0:
                    self._changed.wait(min(wait_ns / 1e9, 3600.0))
                    continue
                timer = heapq.heappop(self._heap)[2]
                if timer.dead:
                    continue
                self._expire(timer)
            timer.condition.notify()

    def _expire(self, timer: Timer) -> None:
        timer.expirations += 1
        self._sleepers.pop(timer.next_ns, None)
        if timer.period_ns:
            missed = max(0, (time.monotonic_ns() - timer.next_ns) // timer.period_ns)
            timer.expirations += missed
            timer.next_ns += (missed + 1) * timer.period_ns
            heapq.heappush(self._heap, (timer.next_ns, next(self._order), timer))
