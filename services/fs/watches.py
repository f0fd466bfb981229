"""Changes noted for those who watch a file or a directory: the ground of inotify.

A watch stands in an object that the core holds (four words: client + 1, number, mask, inode; the first is stored
last), so it survives this service. What was noted and not yet fetched does not: who watched finds an overflow in its
place.

One client has one queue. An event is Linux's `struct inotify_event`: watch i32, mask u32, cookie u32, length u32, and a
name padded with NULs to a multiple of 16.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from corekernel.condition import Condition
from corekernel.errors import ServiceError

ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
ALL: Final = 0xFFF
OVERFLOW, IGNORED, ONLYDIR, DONT_FOLLOW = 0x4000, 0x8000, 0x01000000, 0x02000000
MASK_CREATE, MASK_ADD, IS_DIRECTORY, ONESHOT = 0x10000000, 0x20000000, 0x40000000, 0x80000000

WATCHES: Final = 1024
PER_CLIENT: Final = 256
WATCHES_SIZE: Final = WATCHES * 32
QUEUED: Final = 4096
_WORDS = 4
_EVENT = struct.Struct("<iIII")


@dataclass(slots=True)
class Watch:
    """One watch; `index` is of its record."""

    index: int
    client: int
    number: int
    mask: int
    inode: int


@dataclass(slots=True)
class _Queue:
    watches: dict[int, Watch] = field(default_factory=dict)
    events: deque[bytes] = field(default_factory=deque)
    last: int = 0
    request: int = 0
    answer: bytes = b""


class Watches:
    """All watches and queues; used under the lock of the file system."""

    def __init__(self, memory: memoryview, changed: Condition) -> None:
        self._words = memory.cast("Q")
        self.changed = changed
        self._queues: dict[int, _Queue] = {}
        self._by_inode: dict[int, list[Watch]] = {}
        self._free: list[int] = []
        for index, client in enumerate(self._words[::_WORDS].tolist()):
            if client:
                number, mask, inode = self._words[index * _WORDS + 1 : index * _WORDS + 4].tolist()
                self._index(Watch(index, client - 1, number, mask, inode))
            else:
                self._free.append(index)
        for queue in self._queues.values():
            queue.events.append(_EVENT.pack(-1, OVERFLOW, 0, 0))

    @property
    def active(self) -> bool:
        """Whether anybody watches anything."""
        return bool(self._by_inode)

    def clients(self) -> list[int]:
        """Who watches."""
        return list(self._queues)

    def _index(self, watch: Watch) -> None:
        queue = self._queues.setdefault(watch.client, _Queue())
        queue.watches[watch.number] = watch
        queue.last = max(queue.last, watch.number)
        self._by_inode.setdefault(watch.inode, []).append(watch)

    # ---- watching

    def add(self, client: int, inode: int, mask: int) -> int:
        """Watch an inode, or change the mask of the watch that there is; its number.

        Raises:
            ServiceError: EINVAL, EEXIST (IN_MASK_CREATE), ENOSPC.
        """
        if not mask & ALL or (mask & MASK_ADD and mask & MASK_CREATE):
            raise ServiceError(errno.EINVAL)
        there = next((w for w in self._by_inode.get(inode, ()) if w.client == client), None)
        kept = mask & (ALL | ONESHOT)
        if there is not None:
            if mask & MASK_CREATE:
                raise ServiceError(errno.EEXIST)
            there.mask = there.mask | kept if mask & MASK_ADD else kept
            self._words[there.index * _WORDS + 2] = there.mask
            return there.number
        queue = self._queues.setdefault(client, _Queue())
        if not self._free or len(queue.watches) >= PER_CLIENT:
            raise ServiceError(errno.ENOSPC)
        index = self._free.pop()
        at, number = index * _WORDS, queue.last + 1
        self._words[at + 1], self._words[at + 2], self._words[at + 3] = number, kept, inode
        self._words[at] = client + 1
        self._index(Watch(index, client, number, kept, inode))
        return number

    def remove(self, client: int, number: int) -> None:
        """Stop watching.

        Raises:
            ServiceError: EINVAL, there is no such watch.
        """
        queue = self._queues.get(client)
        if queue is None or number not in queue.watches:
            raise ServiceError(errno.EINVAL)
        self._strike(queue.watches[number])

    def _strike(self, watch: Watch, tell: bool = True) -> None:
        queue, watched = self._queues[watch.client], self._by_inode[watch.inode]
        self._words[watch.index * _WORDS] = 0
        self._free.append(watch.index)
        del queue.watches[watch.number]
        watched.remove(watch)
        if not watched:
            del self._by_inode[watch.inode]
        if tell:
            self._put(queue, _EVENT.pack(watch.number, IGNORED, 0, 0))

    def forget(self, client: int) -> None:
        """A client is gone."""
        for watch in list(self._queues[client].watches.values()) if client in self._queues else ():
            self._strike(watch, tell=False)
        self._queues.pop(client, None)

    # ---- noting

    def note(self, inode: int, mask: int, name: bytes = b"", cookie: int = 0) -> None:
        """Something has happened to an inode, or to `name` in a directory."""
        for watch in list(self._by_inode.get(inode, ())):
            if watch.mask & mask & ALL:
                padded = name + bytes(16 - len(name) % 16) if name else b""
                event = _EVENT.pack(watch.number, mask, cookie, len(padded)) + padded
                self._put(self._queues[watch.client], event)
                if watch.mask & ONESHOT:
                    self._strike(watch)

    def gone(self, inode: int) -> None:
        """An inode is no more, and nor is what watched it."""
        self.note(inode, DELETE_SELF)
        for watch in list(self._by_inode.get(inode, ())):
            self._strike(watch)

    def _put(self, queue: _Queue, event: bytes) -> None:
        if len(queue.events) < QUEUED and (not queue.events or queue.events[-1] != event):
            full = len(queue.events) == QUEUED - 1
            queue.events.append(_EVENT.pack(-1, OVERFLOW, 0, 0) if full else event)
            self.changed.notify()

    def take(self, client: int, request: int, size: int) -> bytes:
        """Events, the oldest first, as many as fit; b"" when there is none. The same again for the same request."""
        queue = self._queues.get(client)
        if queue is None:
            return b""
        if queue.request != request or not queue.answer:
            taken: list[bytes] = []
            while queue.events and len(queue.events[0]) <= size:
                taken.append(queue.events.popleft())
                size -= len(taken[-1])
            queue.request, queue.answer = request, b"".join(taken)
        return queue.answer
