"""Advisory locks: of whole open files (flock) and of ranges (POSIX), in an object that the core holds.

Record: six words: kind (0: free), file, owner, start, end (exclusive; 2**64-1: for ever), -. The owner of a whole-
file lock is a description, that of a range a client. A change of ranges writes the new records first and strikes the
old ones then: a death in between leaves a range locked twice by its own owner, which is no harm.
"""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

from corekernel.condition import Condition
from corekernel.errors import ServiceError
from corekernel.port import Caller

LOCKS: Final = 4096
RANGES_PER_CLIENT: Final = 512
_WORDS = 6
LOCKS_SIZE: Final = LOCKS * _WORDS * 8
SHARED, EXCLUSIVE = 1, 2
_RANGE = 4
_KIND, _FILE, _OWNER, _START, _END = range(5)
FOREVER: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock; `index` is of its record, `start` and `end` are bytes, `end` exclusive."""

    index: int
    exclusive: bool
    of_range: bool
    file: int
    owner: int
    start: int
    end: int

    def conflicts(self, exclusive: bool, owner: int, start: int, end: int) -> bool:
        """Whether it keeps another owner from a lock."""
        return (self.exclusive or exclusive) and self.owner != owner and self.start < end and start < self.end


class Locks:
    """All locks of a file system; used under its lock."""

    def __init__(self, memory: memoryview, changed: Condition) -> None:
        self._words = memory.cast("Q")
        self.changed = changed
        self._by_file: dict[tuple[bool, int], list[Lock]] = defaultdict(list)
        self._whole: dict[int, Lock] = {}  # by description
        self._ranges: Counter[int] = Counter()  # by client
        self._free: list[int] = []
        self._waiting: dict[int, tuple[int, bool, int, int]] = {}  # client -> what range it waits for
        kinds = self._words[::_WORDS].tolist()
        for index, kind in enumerate(kinds):
            if kind:
                _, file, owner, start, end = self._words[index * _WORDS : index * _WORDS + 5].tolist()
                of_range = bool(kind & _RANGE)
                lock = Lock(index, kind & 3 == EXCLUSIVE, of_range, file, owner, start, end)
                self._index(lock)
            else:
                self._free.append(index)

    # ---- records

    def _index(self, lock: Lock) -> None:
        self._by_file[lock.of_range, lock.file].append(lock)
        if lock.of_range:
            self._ranges[lock.owner] += 1
        else:
            self._whole[lock.owner] = lock

    def _add(self, exclusive: bool, of_range: bool, file: int, owner: int, start: int, end: int) -> Lock:
        if not self._free:
            raise ServiceError(errno.ENOLCK)
        index = self._free.pop()
        at, words = index * _WORDS, self._words
        words[at + _FILE], words[at + _OWNER], words[at + _START], words[at + _END] = file, owner, start, end
        words[at + _KIND] = (EXCLUSIVE if exclusive else SHARED) | (_RANGE if of_range else 0)
        lock = Lock(index, exclusive, of_range, file, owner, start, end)
        self._index(lock)
        return lock

    def _strike(self, lock: Lock) -> None:
        self._words[lock.index * _WORDS + _KIND] = 0
        self._free.append(lock.index)
        held = self._by_file[lock.of_range, lock.file]
        held.remove(lock)
        if not held:
            del self._by_file[lock.of_range, lock.file]
        if lock.of_range:
            self._ranges -= Counter({lock.owner: 1})  # drops who has none left
        elif self._whole.get(lock.owner) is lock:
            del self._whole[lock.owner]

    def _all(self) -> list[Lock]:
        return [lock for held in self._by_file.values() for lock in held]

    # ---- whole files

    def lock_description(self, file: int, owner: int, exclusive: bool) -> bool:
        """Lock a whole file for a description, or change its lock; False when another's is in the way."""
        mine = self._whole.get(owner)
        if mine is not None and mine.exclusive == exclusive:
            return True
        if mine is not None:  # as Linux does: a change is an unlock first
            self._strike(mine)
            self.changed.notify()
        if any(lock.conflicts(exclusive, owner, 0, FOREVER) for lock in self._by_file.get((False, file), [])):
            return False
        self._add(exclusive, False, file, owner, 0, FOREVER)
        return True

    def unlock_description(self, owner: int) -> None:
        """A description gives its lock up, if it has one."""
        lock = self._whole.get(owner)
        if lock is not None:
            self._strike(lock)
            self.changed.notify()

    # ---- ranges

    def conflict(self, file: int, client: int, exclusive: bool, start: int, end: int) -> Lock | None:
        """The first lock that keeps a client from a range."""
        held = sorted(self._by_file.get((True, file), []), key=lambda lock: lock.start)
        return next((lock for lock in held if lock.conflicts(exclusive, client, start, end)), None)

    def set_range(self, file: int, client: int, exclusive: bool | None, start: int, end: int) -> None:
        """Give a client a range that is free to it, or (None) take it away; what it held there is replaced."""
        mine = [lock for lock in self._by_file.get((True, file), []) if lock.owner == client]
        touched = [lock for lock in mine if lock.start <= end and start <= lock.end]
        parts: list[tuple[bool, int, int]] = []
        low, high = start, end
        gone = []
        for lock in touched:
            if exclusive is not None and lock.exclusive == exclusive:
                low, high = min(low, lock.start), max(high, lock.end)  # adjoining ranges of a kind become one
            elif lock.start < end and start < lock.end:
                parts += [(lock.exclusive, a, b) for a, b in ((lock.start, start), (end, lock.end)) if a < b]
            else:
                continue
            gone.append(lock)
        if exclusive is not None:
            parts.append((exclusive, low, high))
        if len(parts) > len(self._free) or self._ranges[client] + len(parts) - len(gone) > RANGES_PER_CLIENT:
            raise ServiceError(errno.ENOLCK)
        for kind, a, b in parts:
            self._add(kind, True, file, client, a, b)
        for lock in gone:
            self._strike(lock)
        self._waiting.pop(client, None)
        if gone:
            self.changed.notify()

    def wait(self, caller: Caller, file: int, exclusive: bool, start: int, end: int) -> None:
        """Note that a client waits for a range.

        Raises:
            ServiceError: EDEADLK, who holds it waits for the client, perhaps through others.
        """
        self._waiting[caller.client] = (file, exclusive, start, end)
        seen: set[int] = set()
        who = caller.client
        while who in self._waiting and who not in seen:
            seen.add(who)
            blocking = self.conflict(self._waiting[who][0], who, *self._waiting[who][1:])
            if blocking is None:
                return
            who = blocking.owner
        if who == caller.client:
            del self._waiting[caller.client]
            raise ServiceError(errno.EDEADLK)

    def unlock_file(self, file: int, client: int) -> None:
        """A client has closed a file: its ranges go, as POSIX wants, whichever descriptor it was."""
        if client not in self._ranges:
            return
        gone = [lock for lock in self._by_file.get((True, file), []) if lock.owner == client]
        for lock in gone:
            self._strike(lock)
        if gone:
            self.changed.notify()

    # ---- those who go

    def clients(self) -> list[int]:
        """Who holds ranges."""
        return list(self._ranges)

    def forget(self, client: int) -> None:
        """A client is gone."""
        self._waiting.pop(client, None)
        for lock in [lock for lock in self._all() if lock.of_range and lock.owner == client]:
            self._strike(lock)
        self.changed.notify()

    def keep(self, descriptions: set[int]) -> None:
        """After a death: drop the locks of descriptions that are no more."""
        for lock in [lock for owner, lock in self._whole.items() if owner not in descriptions]:
            self._strike(lock)
