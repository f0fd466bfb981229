"""What was used last is kept, within bounds."""

from __future__ import annotations

import resource
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_DESCRIPTORS = 512  # of one cache


def descriptors() -> int:
    """How many descriptors one cache may hold: both together leave most of this process's limit free."""
    return min(MOST_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)


class Recent(Generic[K, V]):
    """The most recently used values, up to a total cost; the one used last stays, whatever it costs.

    Safe to use from several threads. A value that is dropped lives on with whoever has it.
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._held = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value of a key, which is then the most recently used; None if there is none."""
        try:  # each step by itself is one of the interpreter's own: this is taken too often for a lock
            value = self._values[key][0]
            self._values.move_to_end(key)
        except KeyError:
            return None
        return value

    def put(self, key: K, value: V, cost: int = 1) -> None:
        """Keep a value in the place of what the key had."""
        dropped = []  # goes after the lock: its end may take a while
        values = self._values
        with self._lock:
            if key in values:
                dropped.append(self._take(key))
            values[key] = (value, cost)
            self._held += cost
            while self._held > self._most and len(values) > 1:
                dropped.append(self._take(next(iter(values))))

    def drop(self, key: K) -> None:
        """Take a value out."""
        with self._lock:
            dropped = self._take(key)
        del dropped

    def _take(self, key: K) -> V | None:
        value, cost = self._values.pop(key, (None, 0))
        self._held -= cost
        return value
