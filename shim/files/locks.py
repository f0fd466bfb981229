"""Advisory locks, under the names that `fcntl` gives them. One that waits can be interrupted, and is then given up."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final, NamedTuple

from corekernel.errors import ServiceError
from shim.files.attributes import Attributes
from shim.files.calls import U64, HasFileno, failure
from shim.files.descriptors import Descriptors, number_of

_LARGEST: Final = 2**63 - 1


class RangeLock(NamedTuple):
    """A lock on a range: F_RDLCK or F_WRLCK; where it starts; its length, 0 to the end; pid of its process."""

    kind: int
    start: int
    length: int
    pid: int


class Locks(Descriptors, Attributes):
    """flock, lockf. Any may raise `OSError`; BlockingIOError where somebody else has the lock and LOCK_NB was given."""

    def flock(self, file: int | HasFileno, operation: int) -> None:
        """Lock or unlock a whole open file: LOCK_SH, LOCK_EX, LOCK_UN; LOCK_NB."""
        fd = number_of(file)
        try:
            self._fs.lock_file(fd, operation & U64)
        except ServiceError as error:
            raise failure(error) from None

    def lockf(self, file: int | HasFileno, cmd: int, len: int = 0, start: int = 0, whence: int = 0) -> None:
        """Lock or unlock a range for this client: LOCK_SH, LOCK_EX, LOCK_UN; LOCK_NB. Length 0: to the end."""
        fd = number_of(file)
        kinds = {fcntl.LOCK_SH: fcntl.F_RDLCK, fcntl.LOCK_EX: fcntl.F_WRLCK, fcntl.LOCK_UN: fcntl.F_UNLCK}
        kind = kinds.get(cmd & ~fcntl.LOCK_NB)
        if kind is None:
            raise ValueError("unrecognized lockf argument")
        begin, length = self._range(fd, len, start, whence)
        try:
            self._fs.lock_range(fd, kind, begin, length, not cmd & fcntl.LOCK_NB)
        except ServiceError as error:
            raise failure(error) from None

    def getlk(self, file: int | HasFileno, cmd: int, len: int = 0, start: int = 0, whence: int = 0) -> RangeLock | None:
        """Which lock keeps this client from LOCK_SH or LOCK_EX of its own on a range (F_GETLK); None: none."""
        fd = number_of(file)
        begin, length = self._range(fd, len, start, whence)
        kind = fcntl.F_RDLCK if cmd == fcntl.LOCK_SH else fcntl.F_WRLCK
        try:
            found = self._fs.test_range(fd, kind, begin, length)
        except ServiceError as error:
            raise failure(error) from None
        if found.found == fcntl.F_UNLCK:
            return None
        return RangeLock(found.found, found.begin, found.extent, found.holder)

    def _range(self, fd: int, length: int, start: int, whence: int) -> tuple[int, int]:
        """Start from the beginning of the file, and length, by the rules of fcntl(2)."""
        if fd in self._path_only:
            raise failure(errno.EBADF)
        if whence == os.SEEK_CUR:
            start += self.lseek(fd, 0, os.SEEK_CUR)
        elif whence == os.SEEK_END:
            start += self.fstat(fd).st_size
        wrong = 0
        if start > _LARGEST or length - 1 > _LARGEST - start:
            wrong = errno.EOVERFLOW
        elif start < 0 or start + min(length, 0) < 0 or whence not in (0, 1, 2):
            wrong = errno.EINVAL
        if wrong:
            self._flags(fd)  # EBADF comes first
            raise failure(wrong)
        return (start, length) if length >= 0 else (start + length, -length)
