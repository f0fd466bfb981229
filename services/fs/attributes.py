"""What is known of a file: permissions, owner, times, extended attributes, and the file system it is in."""

from __future__ import annotations

import errno
import stat

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.files import NAME_MAX, NOW, OMIT
from services.fs import watches
from services.fs.device import BLOCK
from services.fs.filesystem import EMPTY_PATH, NOFOLLOW, FileSystem
from services.fs.journal import Request
from services.fs.names import local
from services.fs.permission import READ, WRITE, kept_bits, owns, require, require_owner
from services.fs.store import Inode
from services.fs.volume import Answers, Remote
from services.stubs.fs import StatfsResult

KEEP_ID = 2**32 - 1
EACCESS = 0x200
NO_AUTOMOUNT, SYNC_TYPES = 0x800, 0x6000
VALUE_MAX = 65536
_FLAGS = NOFOLLOW | EMPTY_PATH
_MAGIC = 0x01021994  # as tmpfs says
_CREATE, _REPLACE = 1, 2


def _only(flags: int, known: int) -> None:
    if flags & ~known:
        raise ServiceError(errno.EINVAL)


class AttributeOperations(FileSystem):
    """stat, chmod, chown, utimens, access, statfs, xattr."""

    def stat(self, caller: Caller, directory: int, flags: int, path: memoryview) -> bytes:
        """See the interface."""
        _only(flags, _FLAGS | NO_AUTOMOUNT | SYNC_TYPES)
        flat = bytes(path)

        def operation(answers: Answers) -> bytes:
            node = self.node(caller, directory, flags, flat, answers)
            if isinstance(node, Inode):
                return node.packed()
            if not node.found.ctime:  # passed through on the way, or a mount's root
                node = Remote(node.volume, node.path, answers.of(node.volume, node.path).attributes)
            return node.attributes().pack()

        return self.run(caller, operation, flat)

    def change_mode(
        self, caller: Caller, request: int, directory: int, flags: int, mode: int, path: memoryview
    ) -> None:
        """See the interface."""
        _only(flags, _FLAGS)
        flat = bytes(path)

        def operation(asked: Request, answers: Answers) -> None:
            node, place = self.located(caller, directory, flags, flat, answers)
            inode = local(node)
            if inode.is_symlink:
                raise ServiceError(errno.EOPNOTSUPP)
            require_owner(caller, inode)
            wanted = mode & 0o7777
            if caller.uid != 0 and caller.gid != inode.gid:
                wanted &= ~stat.S_ISGID
            with self._store.transaction(asked) as change:
                change.touch(inode)
                inode.mode = stat.S_IFMT(inode.mode) | wanted
                inode.ctime = change.now
            if self._watches.active:
                self.note(inode, watches.ATTRIB, place)

        self.once(caller, request, operation)

    def change_owner(
        self, caller: Caller, request: int, directory: int, flags: int, owner: int, group: int, path: memoryview
    ) -> None:
        """See the interface."""
        _only(flags, _FLAGS)
        if max(owner, group) > KEEP_ID:
            raise ServiceError(errno.EINVAL)
        flat = bytes(path)

        def operation(asked: Request, answers: Answers) -> None:
            node, place = self.located(caller, directory, flags, flat, answers)
            inode = local(node)
            self._may_give(caller, inode, owner, group)
            with self._store.transaction(asked) as change:
                change.touch(inode)
                inode.uid = inode.uid if owner == KEEP_ID else owner
                inode.gid = inode.gid if group == KEEP_ID else group
                if not inode.is_directory:
                    inode.mode = kept_bits(inode.mode)
                inode.ctime = change.now
            if self._watches.active:
                self.note(inode, watches.ATTRIB, place)

        self.once(caller, request, operation)

    def _may_give(self, caller: Caller, inode: Inode, owner: int, group: int) -> None:
        if caller.uid == 0:
            return
        if owner not in (KEEP_ID, inode.uid) or (owner == inode.uid and caller.uid != inode.uid):
            raise ServiceError(errno.EPERM)
        if group != KEEP_ID and (caller.uid != inode.uid or group not in (inode.gid, caller.gid)):
            raise ServiceError(errno.EPERM)
        if inode.mode & (stat.S_ISUID | stat.S_ISGID) and not inode.is_directory and caller.uid != inode.uid:
            raise ServiceError(errno.EPERM)

    def change_times(
        self, caller: Caller, request: int, directory: int, flags: int, accessed: int, modified: int, path: memoryview
    ) -> None:
        """See the interface."""
        _only(flags, _FLAGS)
        flat = bytes(path)

        def operation(asked: Request, answers: Answers) -> None:
            if accessed == modified == OMIT:
                self.node(caller, directory, flags, flat, answers)
                return
            node, place = self.located(caller, directory, flags, flat, answers)
            inode = local(node)
            if accessed == modified == NOW:
                if not owns(caller, inode):
                    require(caller, inode, WRITE)
            else:
                require_owner(caller, inode)
            with self._store.transaction(asked) as change:
                change.touch(inode)
                times = [change.now if wanted == NOW else wanted for wanted in (accessed, modified)]
                inode.atime = inode.atime if accessed == OMIT else times[0]
                inode.mtime = inode.mtime if modified == OMIT else times[1]
                inode.ctime = change.now
            if self._watches.active:
                self.note(inode, watches.ATTRIB, place)

        self.once(caller, request, operation)

    def access(self, caller: Caller, directory: int, mode: int, flags: int, path: memoryview) -> None:
        """See the interface."""
        _only(flags, _FLAGS | EACCESS)
        _only(mode, 7)
        flat = bytes(path)

        def operation(answers: Answers) -> None:
            node = self.node(caller, directory, flags, flat, answers)
            special = stat.S_IFMT(node.mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
            if isinstance(node, Remote) and mode & WRITE and not special:
                raise ServiceError(errno.EROFS)
            require(caller, node, mode)

        self.run(caller, operation)

    def statfs(self, caller: Caller, directory: int, path: memoryview) -> StatfsResult:
        """See the interface."""
        flat = bytes(path)

        def operation(answers: Answers) -> StatfsResult | Remote:
            node = self.node(caller, directory, EMPTY_PATH, flat, answers)
            if isinstance(node, Remote):
                return node
            blocks, files = self._store.blocks, self._store.files()
            room = files + (self._store.device.layout.database.size - self._store.device.length(0)) // 256
            return StatfsResult(_MAGIC, BLOCK, blocks.total, blocks.free, room, room - files, 0, 0)

        found = self.run(caller, operation)
        return StatfsResult(*found.volume.statfs(found.path)) if isinstance(found, Remote) else found

    # ---- extended attributes

    def _attributed(
        self, caller: Caller, directory: int, flags: int, path: bytes, name: bytes, write: bool, answers: Answers
    ) -> tuple[Inode, tuple[int, bytes] | None]:
        """The file whose attribute `name` a caller wants to read or write, if it may."""
        _only(flags, _FLAGS)
        if not name or len(name) > NAME_MAX or b"\0" in name:
            raise ServiceError(errno.ERANGE)
        node, place = self.located(caller, directory, flags, path, answers)
        inode = local(node)
        self._may_attribute(caller, inode, name, write)
        space, dot, rest = name.partition(b".")
        if space not in (b"user", b"trusted", b"security") or not dot:
            raise ServiceError(errno.EOPNOTSUPP)
        if not rest:
            raise ServiceError(errno.EINVAL)
        return inode, place

    def _may_attribute(self, caller: Caller, inode: Inode, name: bytes, write: bool) -> None:
        """Whether a caller may read or write an attribute, even one whose name is none."""
        if name.startswith((b"security.", b"system.")):
            if write and caller.uid != 0 and name.startswith(b"security."):
                raise ServiceError(errno.EPERM)
            return
        if name.startswith(b"trusted."):
            if caller.uid != 0:
                raise ServiceError(errno.EPERM if write else errno.ENODATA)
            return
        if name.startswith(b"user."):
            if not inode.is_regular and not inode.is_directory:
                raise ServiceError(errno.EPERM if write else errno.ENODATA)
            if inode.is_directory and inode.mode & stat.S_ISVTX and write and not owns(caller, inode):
                raise ServiceError(errno.EPERM)
        require(caller, inode, WRITE if write else READ)

    def get_attribute(self, caller: Caller, directory: int, flags: int, name: bytes, path: memoryview) -> bytes:
        """See the interface."""
        flat = bytes(path)

        def operation(answers: Answers) -> bytes:
            inode, _ = self._attributed(caller, directory, flags, flat, name, False, answers)
            value = self._store.attribute(inode, name)
            if value is None:
                raise ServiceError(errno.ENODATA)
            return value

        return self.run(caller, operation)

    def set_attribute(
        self,
        caller: Caller,
        request: int,
        directory: int,
        flags: int,
        how: int,
        name: bytes,
        first: int,
        contents: memoryview,
    ) -> None:
        """See the interface."""
        if how & ~(_CREATE | _REPLACE) or first > len(contents):
            raise ServiceError(errno.EINVAL)
        flat = bytes(contents)
        path, value = flat[:first], flat[first:]
        if len(value) > VALUE_MAX:
            raise ServiceError(errno.E2BIG)

        def operation(asked: Request, answers: Answers) -> None:
            inode, place = self._attributed(caller, directory, flags, path, name, True, answers)
            present = self._store.attribute(inode, name) is not None
            if present and how & _CREATE:
                raise ServiceError(errno.EEXIST)
            if not present and how & _REPLACE:
                raise ServiceError(errno.ENODATA)
            if not present and self._store.attributes_size(inode) + len(name) + 1 > VALUE_MAX:
                raise ServiceError(errno.ENOSPC)  # a list of them must fit a call, and all of them one change
            with self._store.transaction(asked) as change:
                change.set_attribute(inode, name, value)
            if self._watches.active:
                self.note(inode, watches.ATTRIB, place)

        self.once(caller, request, operation)

    def list_attributes(self, caller: Caller, directory: int, flags: int, path: memoryview) -> bytes:
        """See the interface; `trusted.` names are for user id 0."""
        _only(flags, _FLAGS)
        flat = bytes(path)

        def operation(answers: Answers) -> bytes:
            node = self.node(caller, directory, flags, flat, answers)
            names = [] if isinstance(node, Remote) else self._store.attributes(node)
            shown = [name for name in names if caller.uid == 0 or not name.startswith(b"trusted.")]
            found = b"".join(name + b"\0" for name in shown)
            if len(found) > VALUE_MAX:
                raise ServiceError(errno.E2BIG)
            return found

        return self.run(caller, operation)

    def remove_attribute(
        self, caller: Caller, request: int, directory: int, flags: int, name: bytes, path: memoryview
    ) -> None:
        """See the interface."""
        flat = bytes(path)

        def operation(asked: Request, answers: Answers) -> None:
            inode, place = self._attributed(caller, directory, flags, flat, name, True, answers)
            if self._store.attribute(inode, name) is None:
                raise ServiceError(errno.ENODATA)
            with self._store.transaction(asked) as change:
                change.remove_attribute(inode, name)
            if self._watches.active:
                self.note(inode, watches.ATTRIB, place)

        self.once(caller, request, operation)
