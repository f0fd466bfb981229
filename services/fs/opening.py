"""Opening and closing: how a name becomes a description, and a description gets and loses descriptors."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from corekernel.errors import CallError, ServiceError
from corekernel.port import Caller
from services.files import LARGEST_WHOLE
from services.fs import watches
from services.fs.descriptions import DEVICE, LOCAL, VOLUME, Descriptor
from services.fs.filesystem import FileSystem
from services.fs.journal import CLOSE, MADE, Request
from services.fs.names import local
from services.fs.permission import EXECUTE, READ, WRITE, kept_bits, new_mode, owns, require
from services.fs.store import Inode
from services.fs.volume import Answers, Remote
from services.fs.walk import Last, Node, Place, place_of
from services.stubs.devmgr import DevmgrClient
from services.stubs.fs import FetchResult, GetFlagsResult, OpenResult

T = TypeVar("T")
FS, DEVMGR = 0, 1
TMPFILE = 0o20000000
LARGE_FILE = 0o100000  # every open file on x86-64 says so
_HELD = (stat.S_IFREG, stat.S_IFDIR)  # what is read and written here
_CHANGING = os.O_CREAT | os.O_TRUNC | TMPFILE
_SETTABLE = os.O_APPEND | os.O_NONBLOCK | os.O_NOATIME | os.O_DIRECT | os.O_ASYNC
_REPORTED = os.O_ACCMODE | TMPFILE | os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_SYNC | LARGE_FILE | _SETTABLE


def wanted_of(flags: int) -> int:
    """What opening a file with these flags needs permission for."""
    mode = (READ, WRITE, READ | WRITE, READ | WRITE)[flags & os.O_ACCMODE]
    return mode | (WRITE if flags & os.O_TRUNC else 0)


def checked_flags(flags: int) -> int:
    """Flags of `open` as Linux takes them.

    Raises:
        ServiceError: EINVAL, they contradict each other.
    """
    if flags & os.O_PATH:
        return flags & (os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if flags & TMPFILE and (not flags & os.O_DIRECTORY or flags & os.O_ACCMODE == os.O_RDONLY or flags & os.O_CREAT):
        raise ServiceError(errno.EINVAL)
    if flags & os.O_CREAT and flags & os.O_DIRECTORY:
        raise ServiceError(errno.EINVAL)
    return flags | LARGE_FILE


class Opening(FileSystem):
    """open, fetch, store, close, dup, flags, fsync."""

    # ---- opening

    def open(self, caller: Caller, request: int, directory: int, flags: int, mode: int, path: memoryview) -> OpenResult:
        """See the interface."""
        flags, flat = checked_flags(flags), bytes(path)
        found = self.run(
            caller,
            lambda answers: self._open_here(caller, request, directory, flags, mode, flat, answers),
            flat,
            0 if flags & (os.O_ACCMODE | os.O_PATH | os.O_DIRECTORY) else LARGEST_WHOLE,
        )
        return self._opened(caller, request, flags, found)

    def _opened(self, caller: Caller, request: int, flags: int, found: Descriptor | Inode) -> OpenResult:
        """The answer to an `open` that has found this: a descriptor, or the file of a device, still to be opened."""
        if isinstance(found, Inode):
            handle = self._open_device(caller, found.rdev, flags)
            device = found.ino
            found = self.run(
                caller,
                lambda answers: self._open.open(caller.client, request, flags, DEVICE, handle, 0, device=device),
            )
        description = found.description
        if description.kind == DEVICE:
            return OpenResult(found.number, DEVMGR, description.file)
        return OpenResult(found.number, FS, description.type)

    def _open_here(
        self, caller: Caller, number: int, directory: int, flags: int, mode: int, path: bytes, answers: Answers
    ) -> Descriptor | Inode:
        """Open what is not a device; a device's file."""
        again = self._open.opened_by(caller.client, number)
        if again is not None:
            return again
        if flags & _CHANGING:
            made = self.request(caller, number).made()
            if made is not None:  # it was made, and then this service died
                return self._describe(caller, number, self._store.inode(made), flags)
        self._open.room(caller.client)
        if flags & TMPFILE:
            place = self.place(caller, directory, path, not flags & os.O_NOFOLLOW or path[-1:] == b"/", answers)
            return self._describe(caller, number, self._unnamed(caller, number, mode, place), flags)
        follow = not flags & os.O_NOFOLLOW and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL
        creating = bool(flags & os.O_CREAT)
        place = self.place(caller, directory, path, follow or path[-1:] == b"/", answers, creating)
        if creating:
            if place.last is not Last.NAME:
                raise ServiceError(errno.EEXIST if flags & os.O_EXCL else errno.EISDIR)
            if place.slash:
                raise ServiceError(errno.EISDIR)
            if place.node is None:
                return self._describe(caller, number, self._create(caller, number, mode, place), flags, place)
            if flags & os.O_EXCL:
                raise ServiceError(errno.EEXIST)
            if place.node.is_directory:
                raise ServiceError(errno.EISDIR)
        node = place.existing()
        if isinstance(node, Remote) and not node.found.ctime:
            found = answers.of(node.volume, node.path)
            node = Remote(node.volume, node.path, found.attributes)
        kind = stat.S_IFMT(node.mode)
        self._may_open(caller, node, kind, flags)
        if not flags & os.O_PATH:
            if kind not in _HELD:
                if kind == stat.S_IFCHR and isinstance(node, Inode):
                    return node
                raise ServiceError(errno.ENXIO)
            if flags & os.O_TRUNC and kind == stat.S_IFREG and isinstance(node, Inode):
                with self._store.transaction(self.request(caller, number)) as change:
                    self._contents.truncate(change, node, 0)
                    if caller.uid != 0:
                        node.mode = kept_bits(node.mode)
                    change.result, change.redo = node.ino, (MADE, 0, 0)
                if self._watches.active:
                    self.note(node, watches.MODIFY, place_of(place))
        return self._describe(caller, number, node, flags, place)

    def fetch(self, caller: Caller, request: int, directory: int, path: memoryview) -> FetchResult:
        """See the interface."""
        flat, flags = bytes(path), checked_flags(os.O_RDONLY | os.O_CLOEXEC)

        def operation(answers: Answers) -> bytes | Descriptor | Inode:
            again = self._open.opened_by(caller.client, request)
            if again is not None:
                return again
            data = self._whole(caller, self.place(caller, directory, flat, True, answers).existing())
            return self._open_here(caller, request, directory, flags, 0, flat, answers) if data is None else data

        found = self.run(caller, operation, flat, LARGEST_WHOLE)
        if isinstance(found, bytes):
            return FetchResult(True, 0, 0, 0, found)
        return FetchResult(False, *self._opened(caller, request, flags, found), b"")

    def _whole(self, caller: Caller, node: Node) -> bytes | None:
        """All of a file that may be read, if it is small, regular and nobody is told when it is opened."""
        if stat.S_IFMT(node.mode) != stat.S_IFREG or self._watches.active:
            return None
        require(caller, node, READ)
        if isinstance(node, Remote):
            return node.contents.data if node.contents is not None else None
        if node.size > LARGEST_WHOLE:
            return None
        data = self._contents.read(node, 0, node.size)
        self._contents.accessed(node)
        return data

    def store(self, caller: Caller, request: int, directory: int, mode: int, length: int, data: memoryview) -> bool:
        """See the interface."""
        path = bytes(data[:length])

        def operation(answers: Answers) -> bool:
            asked = self.request(caller, request)
            if asked.answer() is not None:
                return True
            place = self.place(caller, directory, path, True, answers, True)
            return not self._watches.active and self._replace(caller, asked, mode, place, data[length:])

        return self.run(caller, operation, path)

    def _replace(self, caller: Caller, asked: Request, mode: int, place: Place, data: memoryview) -> bool:
        """Make or replace a regular file; whether that could be done at once."""
        there = place.node
        if place.last is not Last.NAME or place.slash:
            return False
        if there is None:
            parent = self._names.may_create(caller, place)
        elif isinstance(there, Inode) and there.is_regular:
            require(caller, there, WRITE)
        else:
            return False
        try:
            with self._store.transaction(asked) as change:
                if there is None:
                    node = self._names.make(change, caller, place, parent, stat.S_IFREG | (mode & 0o7777))
                else:
                    node = there
                    self._contents.truncate(change, node, 0)
                if data and self._contents.write(change, node, 0, data) < len(data):
                    raise ServiceError(errno.ENOSPC)
                if caller.uid != 0 and (data or there is not None):
                    node.mode = kept_bits(node.mode)
        except ServiceError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        return True

    def _may_open(self, caller: Caller, node: Node, kind: int, flags: int) -> None:
        if flags & os.O_DIRECTORY and kind != stat.S_IFDIR:
            raise ServiceError(errno.ENOTDIR)
        if flags & os.O_PATH:
            return
        if kind == stat.S_IFLNK:
            raise ServiceError(errno.ELOOP)
        wanted = wanted_of(flags)
        if wanted & WRITE:
            if kind == stat.S_IFDIR:
                raise ServiceError(errno.EISDIR)
            if isinstance(node, Remote):
                raise ServiceError(errno.EROFS)
        require(caller, node, wanted)
        if flags & os.O_NOATIME and not owns(caller, node):
            raise ServiceError(errno.EPERM)

    def _create(self, caller: Caller, number: int, mode: int, place: Place) -> Inode:
        parent = self._names.may_create(caller, place)
        with self._store.transaction(self.request(caller, number)) as change:
            made = self._names.make(change, caller, place, parent, stat.S_IFREG | (mode & 0o7777))
            change.result, change.redo = made.ino, (MADE, 0, 0)
        if self._watches.active:
            self._watches.note(parent.ino, watches.CREATE, place.name)
        return made

    def _unnamed(self, caller: Caller, number: int, mode: int, place: Place) -> Inode:
        """A file without a name (O_TMPFILE)."""
        directory = place.existing()
        if not directory.is_directory:
            raise ServiceError(errno.ENOTDIR)
        parent = local(directory)
        require(caller, parent, WRITE | EXECUTE)
        with self._store.transaction(self.request(caller, number)) as change:
            mode, group = new_mode(caller, parent, stat.S_IFREG | (mode & 0o7777))
            made = change.make(mode, caller.uid, group)
            change.result, change.redo = made.ino, (MADE, 0, 0)
        return made

    def _describe(self, caller: Caller, number: int, node: Node, flags: int, place: Place | None = None) -> Descriptor:
        """A description of an open file on the device or of a volume, and its descriptor."""
        kept, kind = flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY), stat.S_IFMT(node.mode)
        if isinstance(node, Remote):
            if node.refused:
                raise ServiceError(node.refused)
            where = node.volume.number, node.found.dev, node.path
            made = self._open.open(caller.client, number, kept, VOLUME, node.ino, kind, *where)
            if node.contents is not None:
                self._fresh.keep(made.description.index, node.contents)
            return made
        made = self._open.open(caller.client, number, kept, LOCAL, node.ino, kind)
        if place is not None and isinstance(place.parent, Inode):
            made.description.place = (place.parent.ino, place.name)
        if self._watches.active:
            self.noted(made.description, watches.OPEN)
        return made

    def _open_device(self, caller: Caller, rdev: int, flags: int) -> int:
        """The device manager's handle for a device."""
        return self._device_answers(lambda devices: devices.open(caller.client, rdev, flags))

    def _device_answers(self, ask: Callable[[DevmgrClient], T]) -> T:
        """An answer of the device manager; without one there are no devices, and one that does not answer is EIO."""
        if self._devices is None:
            raise ServiceError(errno.ENXIO)
        try:
            return ask(self._devices)
        except ServiceError:
            raise
        except CallError as error:
            raise ServiceError(errno.EIO, str(error)) from error

    def close(self, caller: Caller, request: int, descriptor: int) -> None:
        """See the interface."""
        with self._lock:
            asked = self.request(caller, request)
            if asked.answer() is not None:
                return
            found = self._open.get(caller.client, descriptor)
            description = found.description
            if description.kind == LOCAL:
                self._locks.unlock_file(description.file, caller.client)
            asked.prepare(0, 0, (CLOSE, found.index, 0))
            self._open.close(found)  # what the redo would do, at hand
            asked.finish()
            released, self._released = self._released, []
        for handle in released:
            self._device_answers(partial(DevmgrClient.release, handle=handle))

    # ---- descriptors

    def duplicate(self, caller: Caller, request: int, descriptor: int, wanted: int, exactly: bool, flags: int) -> int:
        """See the interface."""
        with self._lock:
            again = self._open.opened_by(caller.client, request)
            if again is not None:
                return again.number
            found = self._open.get(caller.client, descriptor)
            if flags & ~os.O_CLOEXEC or (exactly and wanted == descriptor):
                raise ServiceError(errno.EINVAL)
            if exactly:
                self._make_way(caller, wanted)
            number = wanted if exactly else self._open.room(caller.client, wanted)
            close_on_exec = bool(flags & os.O_CLOEXEC)
            made = self._open.refer(caller.client, number, found.description, close_on_exec, request)
        return made.number

    def _make_way(self, caller: Caller, wanted: int) -> None:
        """Close what stands at a descriptor's number."""
        if wanted >= 1024:
            raise ServiceError(errno.EBADF)
        taken = next((d for d in self._open.of(caller.client) if d.number == wanted), None)
        if taken is not None:
            if taken.description.kind == LOCAL:
                self._locks.unlock_file(taken.description.file, caller.client)
            self._open.close(taken)
        self._open.room(caller.client)

    def get_flags(self, caller: Caller, descriptor: int) -> GetFlagsResult:
        """See the interface."""
        with self._lock:
            found = self._open.get(caller.client, descriptor)
            return GetFlagsResult(found.description.flags & _REPORTED, 1 if found.close_on_exec else 0)

    def set_flags(self, caller: Caller, descriptor: int, of_descriptor: bool, flags: int) -> None:
        """See the interface."""
        with self._lock:
            found = self._open.get(caller.client, descriptor)
            if of_descriptor:
                self._open.set_close_on_exec(found, bool(flags & 1))
                return
            description = found.description
            if description.flags & os.O_PATH:
                raise ServiceError(errno.EBADF)
            if flags & os.O_NOATIME and description.kind == LOCAL:
                inode = self._store.inode(description.file)
                if not description.flags & os.O_NOATIME and not owns(caller, inode):
                    raise ServiceError(errno.EPERM)
            self._open.set_flags(description, description.flags & ~_SETTABLE | flags & _SETTABLE)
        if description.kind == DEVICE:
            self._device_answers(lambda devices: devices.set_flags(description.file, description.flags))

    def sync(self, caller: Caller, descriptor: int, data_only: bool) -> None:
        """See the interface; whatever was answered is on the device already."""
        if descriptor == 2**64 - 1:
            return
        with self._lock:
            description = self._open.get(caller.client, descriptor).description
            if description.flags & os.O_PATH:
                raise ServiceError(errno.EBADF)
            if description.kind == DEVICE:
                raise ServiceError(errno.EINVAL)
