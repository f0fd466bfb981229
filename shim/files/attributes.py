"""Operations on what is known of a file, under the names that `os` gives them."""

from __future__ import annotations

import errno
import os
import stat

from corekernel.errors import ServiceError
from services.files import NAME_MAX, NOW
from shim.files.calls import U64, AnyPath, Calls, decoded, encoded, failure
from shim.files.results import stat_result, statvfs_result

_KEEP_ID = 2**32 - 1
_VALUE_MAX = 64 << 10


def _id(number: int) -> int:
    """A user or group id as it travels; -1 is "leave it"."""
    if not -1 <= number <= _KEEP_ID:
        raise OverflowError("a user or group id has 32 bits")
    return number & _KEEP_ID


def _nanoseconds(seconds: float) -> int:
    whole = int(seconds // 1)
    return whole * 10**9 + int((seconds - whole) * 1e9)


class Attributes(Calls):
    """stat, chmod, chown, utime, access, statvfs, extended attributes. Any may raise `OSError`."""

    # ---- stat

    def stat(self, path: int | AnyPath, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        """Describe a file; it may be given as a descriptor."""
        directory, flags, raw = self._target(path, dir_fd, follow_symlinks)
        try:
            return stat_result(self._fs.stat(directory, flags, raw))
        except ServiceError as error:
            raise failure(error, path) from None

    def lstat(self, path: AnyPath, *, dir_fd: int | None = None) -> os.stat_result:
        """Describe a file, or a symbolic link itself."""
        return self.stat(path, dir_fd=dir_fd, follow_symlinks=False)

    def fstat(self, fd: int) -> os.stat_result:
        """Describe an open file."""
        try:
            return self.stat(fd)
        except OSError as error:
            raise failure(error.errno or errno.EBADF) from None

    def _mode(self, path: int | AnyPath, follow: bool = True) -> int:
        """Type and permissions; 0: there is no such file, or no way to it."""
        try:
            return self.stat(path, follow_symlinks=follow).st_mode
        except (OSError, ValueError):
            return 0

    def exists(self, path: int | AnyPath) -> bool:
        """Whether there is such a file."""
        return self._mode(path) != 0

    def lexists(self, path: AnyPath) -> bool:
        """Whether there is such a file or symbolic link."""
        return self._mode(path, follow=False) != 0

    def isdir(self, path: int | AnyPath) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self._mode(path))

    def isfile(self, path: int | AnyPath) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self._mode(path))

    def islink(self, path: AnyPath) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self._mode(path, follow=False))

    def getsize(self, path: int | AnyPath) -> int:
        """Size in bytes."""
        return self.stat(path).st_size

    def statvfs(self, path: int | AnyPath) -> os.statvfs_result:
        """Describe the file system that a file is in."""
        directory, flags, raw = self._target(path, None)
        if not raw and not flags:
            raise failure(errno.ENOENT, path)  # to the service, an empty path means the descriptor
        try:
            return statvfs_result(self._fs.statfs(directory, raw))
        except ServiceError as error:
            raise failure(error, path) from None

    def access(
        self,
        path: AnyPath,
        mode: int,
        *,
        dir_fd: int | None = None,
        effective_ids: bool = False,
        follow_symlinks: bool = True,
    ) -> bool:
        """Whether this client may read, write or execute a file; `effective_ids` makes no difference."""
        directory, flags, raw = self._target(path, dir_fd, follow_symlinks)
        try:
            self._fs.access(directory, mode & U64, flags, raw)
        except ServiceError:
            return False
        return True

    # ---- permissions, owner, times

    def chmod(self, path: int | AnyPath, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> None:
        """Set permissions; the file may be given as a descriptor."""
        directory, flags, raw = self._changed(path, dir_fd, follow_symlinks)
        try:
            self._fs.change_mode(self._lanes.request(), directory, flags, mode & 0o7777, raw)
        except ServiceError as error:
            raise failure(error, path) from None

    def fchmod(self, fd: int, mode: int) -> None:
        """Set permissions of an open file."""
        self.chmod(fd, mode)

    def chown(
        self,
        path: int | AnyPath,
        uid: int,
        gid: int,
        *,
        dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Set owner and group; -1 leaves one as it is. The file may be given as a descriptor."""
        directory, flags, raw = self._changed(path, dir_fd, follow_symlinks)
        owner, group = _id(uid), _id(gid)
        try:
            self._fs.change_owner(self._lanes.request(), directory, flags, owner, group, raw)
        except ServiceError as error:
            raise failure(error, path) from None

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        """Set owner and group of an open file."""
        self.chown(fd, uid, gid)

    def lchown(self, path: AnyPath, uid: int, gid: int) -> None:
        """Set owner and group, of a symbolic link itself."""
        self.chown(path, uid, gid, follow_symlinks=False)

    def utime(
        self,
        path: int | AnyPath,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Set times of access and modification, in seconds or nanoseconds since 1970; neither: now.

        In `ns`, also `NOW` and `OMIT` of `services.files`.
        """
        if times is not None and ns is not None:
            raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
        if ns is None:
            ns = (NOW, NOW) if times is None else (_nanoseconds(times[0]), _nanoseconds(times[1]))
        directory, flags, raw = self._changed(path, dir_fd, follow_symlinks)
        try:
            self._fs.change_times(self._lanes.request(), directory, flags, ns[0], ns[1], raw)
        except ServiceError as error:
            raise failure(error, path) from None

    # ---- extended attributes

    def getxattr(self, path: int | AnyPath, attribute: AnyPath, *, follow_symlinks: bool = True) -> bytes:
        """Value of an extended attribute."""
        name = self._attribute(path, attribute)
        directory, flags, raw = self._changed(path, None, follow_symlinks)
        try:
            return self._fs.get_attribute(directory, flags, name, raw)
        except ServiceError as error:
            raise failure(error, path) from None

    def setxattr(
        self, path: int | AnyPath, attribute: AnyPath, value: bytes, flags: int = 0, *, follow_symlinks: bool = True
    ) -> None:
        """Set an extended attribute; `flags`: XATTR_CREATE, XATTR_REPLACE."""
        name, value = self._attribute(path, attribute), bytes(value)
        if len(value) > _VALUE_MAX:
            raise failure(errno.E2BIG, path)
        directory, at_flags, raw = self._changed(path, None, follow_symlinks)
        request = self._lanes.request()
        try:
            self._fs.set_attribute(request, directory, at_flags, flags & U64, name, len(raw), raw + value)
        except ServiceError as error:
            raise failure(error, path) from None

    def listxattr(self, path: int | AnyPath | None = None, *, follow_symlinks: bool = True) -> list[str]:
        """Names of a file's extended attributes."""
        path = "." if path is None else path
        directory, flags, raw = self._changed(path, None, follow_symlinks)
        try:
            names = self._fs.list_attributes(directory, flags, raw)
        except ServiceError as error:
            raise failure(error, path) from None
        return [decoded(name) for name in names.split(b"\0")[:-1]]

    def removexattr(self, path: int | AnyPath, attribute: AnyPath, *, follow_symlinks: bool = True) -> None:
        """Remove an extended attribute."""
        name = self._attribute(path, attribute)
        directory, flags, raw = self._changed(path, None, follow_symlinks)
        try:
            self._fs.remove_attribute(self._lanes.request(), directory, flags, name, raw)
        except ServiceError as error:
            raise failure(error, path) from None

    def _attribute(self, path: int | AnyPath, attribute: AnyPath) -> bytes:
        name = encoded(attribute)
        if not 0 < len(name) <= NAME_MAX:
            raise failure(errno.ERANGE, path)
        return name
