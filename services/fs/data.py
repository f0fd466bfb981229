"""Reading, writing, seeking and listing of open files."""

from __future__ import annotations

import errno
import os

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.files import AT_POSITION
from services.fs import watches
from services.fs.descriptions import DEVICE, LOCAL, VOLUME, Description
from services.fs.filesystem import FileSystem
from services.fs.journal import MOVE, Request
from services.fs.names import local
from services.fs.permission import WRITE, kept_bits, require
from services.fs.store import Inode
from services.fs.volume import Answers, Remote
from services.fs.walk import Node
from services.stubs.fs import EntriesResult

LARGEST_CALL = 16 << 20
KEEP_SIZE, PUNCH_HOLE = 1, 2  # FALLOC_FL_
KNOWN_MODES = {0, 1, 3, 8, 0x10, 0x11, 0x20, 0x40, 0x41, 0x80}  # those that Linux takes for modes
LARGEST_POSITION = 2**63 - 1
_ENTRY_BYTES = 24  # about what an entry takes


class Data(FileSystem):
    """read, write, truncate, fallocate, lseek, getdents."""

    # ---- reading and writing

    def read(self, caller: Caller, request: int, descriptor: int, offset: int, size: int) -> bytes:
        """See the interface."""
        if offset < AT_POSITION:
            raise ServiceError(errno.EINVAL)
        with self._lock:
            description = self._open.get(caller.client, descriptor).description
            if not description.readable:
                raise ServiceError(errno.EBADF)
            self._refuse_beyond(description, offset, size)
            size = min(size, LARGEST_CALL)
            if description.kind != VOLUME:
                return self._read_local(caller, request, description, offset, size)
            data = self._read_fresh(caller, request, description, offset, size)
            if data is not None:
                return data
        return self._read_volume(caller, request, description, offset, size)

    def _read_local(self, caller: Caller, number: int, description: Description, offset: int, size: int) -> bytes:
        inode = self.regular(description)
        if offset != AT_POSITION:
            data = self._contents.read(inode, offset, size)
        else:
            request = self.request(caller, number)
            before = request.answer()
            if before is not None:
                return self._contents.read(inode, before, min(request.moved_to() - before, LARGEST_CALL))
            at = description.position
            data = self._contents.read(inode, at, size)
            if data:
                request.done(at, (MOVE, description.index, at + len(data)))
        if not description.flags & os.O_NOATIME:
            self._contents.accessed(inode)
        if data and self._watches.active:
            self.noted(description, watches.ACCESS)
        return data

    def _refuse_beyond(self, description: Description, offset: int, size: int) -> None:
        """Refuse a range that ends where no position can be."""
        if size + (description.position if offset == AT_POSITION else offset) > LARGEST_POSITION:
            raise ServiceError(errno.EINVAL)

    def _read_fresh(
        self, caller: Caller, number: int, description: Description, offset: int, size: int
    ) -> bytes | None:
        """Read what came with the opening of a volume's file; None: the volume is to be asked."""
        if offset != AT_POSITION:
            return self._fresh.read(description.index, offset, size)
        request = self.request(caller, number)
        if request.answer() is not None:  # its record tells which bytes they were
            return None
        at = description.position
        data = self._fresh.read(description.index, at, size)
        if data:
            request.done(at, (MOVE, description.index, at + len(data)))
        return data

    def _read_volume(self, caller: Caller, number: int, description: Description, offset: int, size: int) -> bytes:
        """Read from a volume, without the lock; the position moves only if nobody else has moved it meanwhile."""
        while True:
            at = description.position if offset == AT_POSITION else offset
            node = self.opened_remote(description)
            if node.is_directory:
                raise ServiceError(errno.EISDIR)
            with self._lock:
                request = self.request(caller, number)
                before = request.answer() if offset == AT_POSITION else None
                if before is not None:
                    at, size = before, request.moved_to() - before
            data = node.volume.read(node, at, size)
            if offset != AT_POSITION or before is not None or not data:
                return data
            with self._lock:
                if description.position == at:
                    request.done(at, (MOVE, description.index, at + len(data)))
                    return data

    def write(self, caller: Caller, request: int, descriptor: int, offset: int, data: memoryview) -> int:
        """See the interface."""
        if offset < AT_POSITION:
            raise ServiceError(errno.EINVAL)
        with self._lock:
            description = self._open.get(caller.client, descriptor).description
            if not description.writable:
                raise ServiceError(errno.EBADF)
            self._refuse_beyond(description, offset, len(data))
            inode = self.regular(description)
            asked = self.request(caller, request)
            done = asked.answer()
            if done is not None:
                return done
            if not data:
                return 0
            at = description.position if offset == AT_POSITION else offset
            if description.flags & os.O_APPEND:
                at = inode.size
            if at >= LARGEST_POSITION:
                raise ServiceError(errno.EFBIG)
            with self._store.transaction(asked) as change:
                count = self._contents.write(change, inode, at, data[: LARGEST_POSITION - at])
                if caller.uid != 0:
                    inode.mode = kept_bits(inode.mode)
                change.result = count
                if offset == AT_POSITION:
                    change.redo = (MOVE, description.index, at + count)
            if self._watches.active:
                self.noted(description, watches.MODIFY)
            return count

    def truncate(self, caller: Caller, request: int, descriptor: int, length: int, path: memoryview) -> None:
        """See the interface."""
        flat = bytes(path)
        if length > LARGEST_POSITION:
            raise ServiceError(errno.EINVAL)

        def operation(asked: Request, answers: Answers) -> None:
            inode = self._to_truncate(caller, descriptor, flat, answers)
            with self._store.transaction(asked) as change:
                # By path, a length that a file has already is no modification.
                self._contents.truncate(change, inode, length, keep_times=bool(flat) and length == inode.size)
                if caller.uid != 0:
                    inode.mode = kept_bits(inode.mode)
            if self._watches.active:
                self.note(inode, watches.MODIFY, None)

        self.once(caller, request, operation)

    def _to_truncate(self, caller: Caller, descriptor: int, path: bytes, answers: Answers) -> Inode:
        if not path:
            description = self._open.get(caller.client, descriptor).description
            if not description.writable:
                raise ServiceError(errno.EBADF if description.flags & os.O_PATH else errno.EINVAL)
            return self.regular(description)
        node = self.place(caller, descriptor, path, True, answers).existing()
        if node.is_directory:
            raise ServiceError(errno.EISDIR)
        if not node.is_regular:
            raise ServiceError(errno.EINVAL)
        require(caller, node, WRITE)
        return local(node)

    def allocate(self, caller: Caller, request: int, descriptor: int, mode: int, offset: int, length: int) -> None:
        """See the interface."""

        def operation(asked: Request, answers: Answers) -> None:
            description = self._open.get(caller.client, descriptor).description
            if description.flags & os.O_PATH:
                raise ServiceError(errno.EBADF)
            if not length or max(offset, length) > LARGEST_POSITION:
                raise ServiceError(errno.EINVAL)
            if mode not in KNOWN_MODES:
                raise ServiceError(errno.EOPNOTSUPP)
            if not description.writable:
                raise ServiceError(errno.EBADF)
            if description.kind == LOCAL and not self._store.inode(description.file).is_regular:
                raise ServiceError(errno.ENODEV)
            if offset + length > LARGEST_POSITION:
                raise ServiceError(errno.EFBIG)
            if mode not in (0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE):
                raise ServiceError(errno.EOPNOTSUPP)
            inode = self.regular(description)
            with self._store.transaction(asked) as change:
                self._contents.allocate(change, inode, mode, offset, length)
                if caller.uid != 0:
                    inode.mode = kept_bits(inode.mode)

        self.once(caller, request, operation)

    # ---- position

    def seek(self, caller: Caller, request: int, descriptor: int, offset: int, whence: int) -> int:
        """See the interface."""

        def operation(answers: Answers) -> int:
            description = self._open.get(caller.client, descriptor).description
            if description.flags & os.O_PATH:
                raise ServiceError(errno.EBADF)
            asked = self.request(caller, request)
            done = asked.answer()
            if done is not None:
                return done
            if description.kind == DEVICE:
                raise ServiceError(errno.ESPIPE)
            sized = whence not in (os.SEEK_SET, os.SEEK_CUR)
            node = self.node_of(description, answers) if sized else self.opened(description, answers)
            position = self._sought(description, node, offset, whence)
            return asked.done(position, (MOVE, description.index, position))

        return self.run(caller, operation)

    def _sought(self, description: Description, node: Node, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE) and not node.is_directory:
            if isinstance(node, Inode):
                return self._contents.seek(node, offset, whence)
            if not 0 <= offset < node.size:
                raise ServiceError(errno.ENXIO)
            return offset if whence == os.SEEK_DATA else node.size
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: description.position, os.SEEK_END: node.size}
        if whence not in bases or (node.is_directory and whence == os.SEEK_END):
            raise ServiceError(errno.EINVAL)
        position = bases[whence] + offset
        if not 0 <= position <= LARGEST_POSITION:
            raise ServiceError(errno.EINVAL)
        return position

    # ---- directories

    def entries(self, caller: Caller, request: int, descriptor: int, size: int) -> EntriesResult:
        """See the interface."""
        count = min(size, LARGEST_CALL // 2) // _ENTRY_BYTES
        if size < 512:
            raise ServiceError(errno.EINVAL)

        def operation(answers: Answers) -> tuple[Node, int, bytes, bool]:
            description = self._open.get(caller.client, descriptor).description
            node = self.opened(description, answers)
            if not node.is_directory:
                raise ServiceError(errno.ENOTDIR)
            if not description.readable:
                raise ServiceError(errno.EBADF)
            asked = self.request(caller, request)
            before = asked.answer()
            at = description.position if before is None else before
            if isinstance(node, Remote):
                return node, at, b"", False
            if not node.nlink:
                raise ServiceError(errno.ENOENT)
            last, found, packed = self._store.entries(node, at, count)
            if found and before is None:
                asked.done(at, (MOVE, description.index, last))
            if not description.flags & os.O_NOATIME:
                self._contents.accessed(node)
            return node, at, packed, found < count

        node, at, packed, finished = self.run(caller, operation)
        if isinstance(node, Remote):
            return self._entries_of_volume(caller, request, descriptor, node, at, size)
        return EntriesResult(finished, packed)

    def _entries_of_volume(
        self, caller: Caller, number: int, descriptor: int, node: Remote, at: int, size: int
    ) -> EntriesResult:
        last, finished, packed = node.volume.entries(node, at, min(size, LARGEST_CALL // 2))
        with self._lock:
            description = self._open.get(caller.client, descriptor).description
            request = self.request(caller, number)
            if request.answer() is None and last != at:
                request.done(at, (MOVE, description.index, last))
        return EntriesResult(finished, packed)
