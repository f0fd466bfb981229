"""Operations on noted changes, and what the other operations note."""

from __future__ import annotations

import errno

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.fs.filesystem import FileSystem
from services.fs.store import Inode
from services.fs.volume import Answers
from services.fs.watches import ALL, DONT_FOLLOW, MASK_ADD, MASK_CREATE, ONESHOT, ONLYDIR

_LARGEST = 64 << 10
_KNOWN = ALL | ONLYDIR | DONT_FOLLOW | MASK_ADD | MASK_CREATE | ONESHOT | 0x04000000  # IN_EXCL_UNLINK: as if


class Watching(FileSystem):
    """inotify ground: one queue for each client."""

    def watch(self, caller: Caller, request: int, mask: int, path: memoryview) -> int:
        """See the interface; what a volume serves cannot be watched."""
        if mask & ~_KNOWN:
            raise ServiceError(errno.EINVAL)
        flat = bytes(path)

        def operation(answers: Answers) -> int:
            node = self.place(caller, -1, flat, not mask & DONT_FOLLOW, answers).existing()
            if mask & ONLYDIR and not node.is_directory:
                raise ServiceError(errno.ENOTDIR)
            if not isinstance(node, Inode):
                raise ServiceError(errno.EINVAL)
            asked = self.request(caller, request)
            done = asked.answer()
            return done if done is not None else asked.done(self._watches.add(caller.client, node.ino, mask))

        return self.run(caller, operation)

    def unwatch(self, caller: Caller, request: int, number: int) -> None:
        """See the interface."""
        with self._lock:
            asked = self.request(caller, request)
            if asked.answer() is None:
                self._watches.remove(caller.client, number)
                asked.done(0)

    def changes(self, caller: Caller, request: int, wait: bool) -> bytes:
        """See the interface."""

        def taken() -> bytes | None:
            with self._lock:
                return self._watches.take(caller.client, request, _LARGEST) or None

        if wait:
            return self._watches.changed.wait_for(caller, taken)
        events = taken()
        if events is None:
            raise ServiceError(errno.EAGAIN)
        return events
