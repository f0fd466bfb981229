"""Operations on advisory locks."""

from __future__ import annotations

import errno
import fcntl

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.fs.descriptions import DEVICE, VOLUME, Description
from services.fs.filesystem import FileSystem
from services.fs.locks import FOREVER
from services.stubs.fs import TestRangeResult

_LARGEST = 2**63 - 1


def _range(start: int, length: int) -> tuple[int, int]:
    """Start and exclusive end.

    Raises:
        ServiceError: EINVAL, it leaves the range of positions.
    """
    if start > _LARGEST or length > _LARGEST or start + length > _LARGEST + 1:
        raise ServiceError(errno.EINVAL)
    return start, start + length if length else FOREVER


class Locking(FileSystem):
    """flock and POSIX locks."""

    def _lockable(self, caller: Caller, descriptor: int) -> Description:
        description = self._open.get(caller.client, descriptor).description
        if description.flags & 0o10000000:  # O_PATH
            raise ServiceError(errno.EBADF)
        return description

    def _key(self, description: Description) -> int:
        """What identifies the file of a description among those that are locked."""
        if description.kind == VOLUME:
            return description.mount << 48 ^ description.file & 2**48 - 1 | 1 << 63
        return description.file | (1 << 62 if description.kind == DEVICE else 0)

    def lock_file(self, caller: Caller, descriptor: int, operation: int) -> None:
        """See the interface."""
        kind = operation & ~fcntl.LOCK_NB
        if kind not in (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN):
            raise ServiceError(errno.EINVAL)

        def locked() -> bool:
            with self._lock:
                description = self._lockable(caller, descriptor)
                if kind != fcntl.LOCK_UN and not description.readable and not description.writable:
                    raise ServiceError(errno.EBADF)
                if kind == fcntl.LOCK_UN:
                    self._locks.unlock_description(description.index)
                    return True
                return self._locks.lock_description(self._key(description), description.index, kind == fcntl.LOCK_EX)

        if not operation & fcntl.LOCK_NB:
            self._locks.changed.wait_for(caller, locked)
        elif not locked():
            raise ServiceError(errno.EWOULDBLOCK)

    def lock_range(self, caller: Caller, descriptor: int, kind: int, start: int, length: int, wait: bool) -> None:
        """See the interface."""
        if kind not in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK):
            raise ServiceError(errno.EINVAL)
        begin, end = _range(start, length)

        def locked() -> bool:
            with self._lock:
                description = self._lockable(caller, descriptor)
                if (kind == fcntl.F_RDLCK and not description.readable) or (
                    kind == fcntl.F_WRLCK and not description.writable
                ):
                    raise ServiceError(errno.EBADF)
                file = self._key(description)
                if kind == fcntl.F_UNLCK:
                    self._locks.set_range(file, caller.client, None, begin, end)
                    return True
                exclusive = kind == fcntl.F_WRLCK
                if self._locks.conflict(file, caller.client, exclusive, begin, end) is None:
                    self._locks.set_range(file, caller.client, exclusive, begin, end)
                    return True
                if wait:
                    self._locks.wait(caller, file, exclusive, begin, end)
                return False

        if wait:
            self._locks.changed.wait_for(caller, locked)
        elif not locked():
            raise ServiceError(errno.EAGAIN)

    def test_range(self, caller: Caller, descriptor: int, kind: int, start: int, length: int) -> TestRangeResult:
        """See the interface."""
        if kind not in (fcntl.F_RDLCK, fcntl.F_WRLCK):
            raise ServiceError(errno.EINVAL)
        begin, end = _range(start, length)
        with self._lock:
            description = self._lockable(caller, descriptor)
            found = self._locks.conflict(self._key(description), caller.client, kind == fcntl.F_WRLCK, begin, end)
        if found is None:
            return TestRangeResult(fcntl.F_UNLCK, 0, 0, 0)
        extent = 0 if found.end == FOREVER else found.end - found.start
        return TestRangeResult(fcntl.F_WRLCK if found.exclusive else fcntl.F_RDLCK, found.start, extent, found.owner)
