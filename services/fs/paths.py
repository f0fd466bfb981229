"""Operations that take a path and change or find names."""

from __future__ import annotations

import errno
import itertools
import stat

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.files import PATH_MAX
from services.fs import watches
from services.fs.filesystem import FileSystem
from services.fs.journal import Request
from services.fs.names import EXCHANGE, NOREPLACE, local
from services.fs.store import Inode
from services.fs.volume import Answers, Remote
from services.fs.walk import Last, Place

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

    _cookies = itertools.count(1)

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
        def operation(asked: Request, answers: Answers) -> None:
            place = self.place(caller, directory, path, False, answers)
            parent = self._names.may_create(caller, place, directory=stat.S_ISDIR(mode))
            if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK) and caller.uid != 0:
                raise ServiceError(errno.EPERM)
            with self._store.transaction(asked) as change:
                self._names.make(change, caller, place, parent, mode, rdev, target)
            if self._watches.active:
                kind = watches.IS_DIRECTORY if stat.S_ISDIR(mode) else 0
                self._watches.note(parent.ino, watches.CREATE | kind, place.name)

        self.once(caller, number, operation)

    def unlink(self, caller: Caller, request: int, directory: int, flags: int, path: memoryview) -> None:
        """See the interface."""
        if flags & ~REMOVE_DIRECTORY:
            raise ServiceError(errno.EINVAL)
        flat = bytes(path)

        def operation(asked: Request, answers: Answers) -> None:
            place = self.place(caller, directory, flat, False, answers)
            with self._store.transaction(asked) as change:
                if flags:
                    node = self._names.remove_directory(change, caller, place)
                else:
                    node = self._names.unlink(change, caller, place)
            if self._watches.active:
                self._note_struck(node, place)

        self.once(caller, request, operation)

    def _note_struck(self, node: Inode, place: Place) -> None:
        """A name was struck, and with its last one perhaps the file."""
        if not node.is_directory:
            self._watches.note(node.ino, watches.ATTRIB)
        if not node.nlink and not self._open.is_open(node.ino):
            self._watches.gone(node.ino)
        kind = watches.IS_DIRECTORY if node.is_directory else 0
        self._watches.note(place.parent.ino, watches.DELETE | kind, place.name)

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

        def operation(asked: Request, answers: Answers) -> None:
            old = self.place(caller, from_directory, old_path, False, answers)
            new = self.place(caller, to_directory, new_path, False, answers)
            with self._store.transaction(asked) as change:
                done = self._names.rename(change, caller, old, new, flags)
            if done and self._watches.active:
                self._note_renamed(old, new, flags)

        self.once(caller, request, operation)

    def _note_renamed(self, old: Place, new: Place, flags: int) -> None:
        moves = [(old, new), (new, old)] if flags & EXCHANGE else [(old, new)]
        for source, target in moves:
            node = source.node
            assert isinstance(node, Inode)
            kind = watches.IS_DIRECTORY if node.is_directory else 0
            cookie = next(self._cookies) & 0xFFFFFFFF
            self._watches.note(source.parent.ino, watches.MOVED_FROM | kind, source.name, cookie)
            self._watches.note(target.parent.ino, watches.MOVED_TO | kind, target.name, cookie)
            self._watches.note(node.ino, watches.MOVE_SELF)
        if not flags & EXCHANGE and isinstance(new.node, Inode) and not new.node.nlink:
            self._watches.gone(new.node.ino)

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

        def operation(asked: Request, answers: Answers) -> None:
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
            if place.slash:
                raise ServiceError(errno.ENOENT)
            self._names.may_link(caller, source)
            parent = self._names.may_create(caller, place)
            if source.is_directory:
                raise ServiceError(errno.EPERM)
            if not source.nlink:
                raise ServiceError(errno.ENOENT)
            with self._store.transaction(asked) as change:
                self._names.link(change, caller, source, place, parent)
            if self._watches.active:
                self._watches.note(source.ino, watches.ATTRIB)
                self._watches.note(parent.ino, watches.CREATE, place.name)

        self.once(caller, request, operation)

    def read_symlink(self, caller: Caller, directory: int, path: memoryview) -> bytes:
        """See the interface."""
        flat = bytes(path)

        def operation(answers: Answers) -> bytes:
            node = self.node(caller, directory, EMPTY_PATH | 0x100, flat, answers)
            if not node.is_symlink:
                raise ServiceError(errno.EINVAL if flat else errno.ENOENT)
            return node.target

        return self.run(caller, operation)
