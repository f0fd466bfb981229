"""Operations that take a path and change or find names."""

from __future__ import annotations

import errno
import stat

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.files import PATH_MAX
from services.fs.filesystem import FileSystem
from services.fs.names import EXCHANGE, NOREPLACE, local
from services.fs.store import Inode
from services.fs.walk import Answers, Last, Remote

SYMLINK_FOLLOW, REMOVE_DIRECTORY = 0x400, 0x200
EMPTY_PATH = 0x1000
_KINDS = {0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}


def two_paths(first: int, paths: memoryview) -> tuple[bytes, bytes]:
    """The two paths that travel in one buffer.

    Raises:
        ServiceError: EINVAL, the length of the first is not within it.
    """
    if first > len(paths):
        raise ServiceError(errno.EINVAL)
    flat = bytes(paths)
    return flat[:first], flat[first:]


class Paths(FileSystem):
    """Making, striking, linking, renaming."""

    def make_directory(self, caller: Caller, request: int, directory: int, mode: int, path: memoryview) -> None:
        """See the interface."""
        self._make(caller, request, directory, stat.S_IFDIR | (mode & 0o1777), 0, bytes(path))

    def make_node(self, caller: Caller, request: int, directory: int, mode: int, device: int, path: memoryview) -> None:
        """See the interface; only user id 0 makes devices."""
        kind = stat.S_IFMT(mode & 0xFFFF)
        if kind == stat.S_IFDIR:
            raise ServiceError(errno.EPERM)
        if kind not in _KINDS:
            raise ServiceError(errno.EINVAL)
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            device &= 2**32 - 1
        else:
            device = 0
        self._make(caller, request, directory, (kind or stat.S_IFREG) | (mode & 0o7777), device, bytes(path))

    def make_symlink(self, caller: Caller, request: int, directory: int, first: int, paths: memoryview) -> None:
        """See the interface."""
        target, path = two_paths(first, paths)
        if not target:
            raise ServiceError(errno.ENOENT)
        if len(target) >= PATH_MAX:
            raise ServiceError(errno.ENAMETOOLONG)
        if b"\0" in target:
            raise ServiceError(errno.EINVAL)
        self._make(caller, request, directory, stat.S_IFLNK | 0o777, 0, path, target)

    def _make(
        self, caller: Caller, number: int, directory: int, mode: int, rdev: int, path: bytes, target: bytes = b""
    ) -> None:
        def operation(answers: Answers) -> None:
            request = self.request(caller, number)
            if request.answer() is not None:
                return
            place = self.place(caller, directory, path, False, answers)
            parent = self._names.may_create(caller, place, directory=stat.S_ISDIR(mode))
            if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK) and caller.uid != 0:
                raise ServiceError(errno.EPERM)
            with self._store.transaction(request) as change:
                self._names.make(change, caller, place, parent, mode, rdev, target)

        self.run(caller, operation)

    def unlink(self, caller: Caller, request: int, directory: int, flags: int, path: memoryview) -> None:
        """See the interface."""
        if flags & ~REMOVE_DIRECTORY:
            raise ServiceError(errno.EINVAL)
        flat = bytes(path)

        def operation(answers: Answers) -> None:
            asked = self.request(caller, request)
            if asked.answer() is not None:
                return
            place = self.place(caller, directory, flat, False, answers)
            with self._store.transaction(asked) as change:
                if flags:
                    self._names.remove_directory(change, caller, place)
                else:
                    self._names.unlink(change, caller, place)

        self.run(caller, operation)

    def rename(
        self,
        caller: Caller,
        request: int,
        from_directory: int,
        to_directory: int,
        flags: int,
        first: int,
        paths: memoryview,
    ) -> None:
        """See the interface."""
        if flags & ~(NOREPLACE | EXCHANGE) or flags == NOREPLACE | EXCHANGE:
            raise ServiceError(errno.EINVAL)
        old_path, new_path = two_paths(first, paths)

        def operation(answers: Answers) -> None:
            asked = self.request(caller, request)
            if asked.answer() is not None:
                return
            old = self.place(caller, from_directory, old_path, False, answers)
            new = self.place(caller, to_directory, new_path, False, answers)
            with self._store.transaction(asked) as change:
                self._names.rename(change, caller, old, new, flags)

        self.run(caller, operation)

    def link(
        self,
        caller: Caller,
        request: int,
        from_directory: int,
        to_directory: int,
        flags: int,
        first: int,
        paths: memoryview,
    ) -> None:
        """See the interface."""
        if flags & ~(SYMLINK_FOLLOW | EMPTY_PATH):
            raise ServiceError(errno.EINVAL)
        old_path, new_path = two_paths(first, paths)

        def operation(answers: Answers) -> None:
            asked = self.request(caller, request)
            if asked.answer() is not None:
                return
            if not old_path and flags & EMPTY_PATH and caller.uid == 0:
                node = self.node(caller, from_directory, EMPTY_PATH, b"", answers)
            else:
                follow = bool(flags & SYMLINK_FOLLOW) or old_path.endswith(b"/")
                node = self.place(caller, from_directory, old_path, follow, answers).existing()
            place = self.place(caller, to_directory, new_path, False, answers)
            if isinstance(node, Remote) and isinstance(place.parent, Inode) and place.node is None:
                raise ServiceError(errno.EXDEV)
            if place.last is Last.NAME and place.node is None and isinstance(place.parent, Remote):
                raise ServiceError(errno.EROFS if isinstance(node, Remote) else errno.EXDEV)
            if place.last is not Last.NAME or place.node is not None:
                raise ServiceError(errno.EEXIST)
            source = local(node)
            self._names.may_link(caller, source)
            parent = self._names.may_create(caller, place)
            if source.is_directory:
                raise ServiceError(errno.EPERM)
            if not source.nlink:
                raise ServiceError(errno.ENOENT)
            with self._store.transaction(asked) as change:
                self._names.link(change, caller, source, place, parent)

        self.run(caller, operation)

    def read_symlink(self, caller: Caller, directory: int, path: memoryview) -> bytes:
        """See the interface."""
        flat = bytes(path)

        def operation(answers: Answers) -> bytes:
            node = self.node(caller, directory, EMPTY_PATH | 0x100, flat, answers)
            if not node.is_symlink:
                raise ServiceError(errno.EINVAL if flat else errno.ENOENT)
            return node.target

        return self.run(caller, operation)
