"""Operations on descriptors, under the names that `os` and `fcntl` give them."""

from __future__ import annotations

import errno
import fcntl
import os
import termios
from typing import Any, Final, TypeAlias

from corekernel.errors import NoSuchService, ServiceError
from corekernel.port import MAX_BULK_BYTES, Payload
from services.files import AT_POSITION
from services.stubs.devmgr import DevmgrClient
from shim.files.calls import U64, AnyPath, Calls, HasFileno, failure

DEVMGR: Final = 1  # as the server of an open file: its data is the device manager's
Opened: TypeAlias = tuple[int, int, int]  # descriptor, server, and its handle or the type of the file


def number_of(file: int | HasFileno) -> int:
    """A descriptor, of an open file too.

    Raises:
        ValueError: it is negative, as `fcntl` and `os.fsync` see it.
    """
    fd = file if isinstance(file, int) else file.fileno()
    if fd < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
    return fd


class Descriptors(Calls):
    """open, close, read, write and what else takes a descriptor. Any may raise `OSError`."""

    # ---- opening and closing

    def open_descriptor(self, path: AnyPath, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """What `os.open` does: a descriptor, with O_CLOEXEC."""
        return self._open(path, flags | os.O_CLOEXEC, mode, dir_fd)[0]

    def _open(self, path: AnyPath, flags: int, mode: int, dir_fd: int | None = None) -> Opened:
        directory, raw = self._at(path, dir_fd)
        try:
            opened = self._fs.open(self._lanes.request(), directory, flags & U64, mode & 0o7777 & ~self._umask, raw)
        except ServiceError as error:
            raise failure(error, path) from None
        if opened.server == DEVMGR:
            self._devices[opened.descriptor] = opened.handle
        if flags & os.O_PATH:
            self._path_only.add(opened.descriptor)
        return opened

    def _fetch(self, path: AnyPath) -> bytes | Opened:
        """All of a file, or what opening it for reading gave."""
        directory, raw = self._at(path)
        try:
            whole, descriptor, server, handle, data = self._fs.fetch(self._lanes.request(), directory, raw)
        except ServiceError as error:
            raise failure(error, path) from None
        if whole:
            return bytes(data)
        if server == DEVMGR:
            self._devices[descriptor] = handle
        return descriptor, server, handle

    def _store(self, path: AnyPath, data: Payload) -> bool:
        """Make or replace a file at once; False: it is to be opened and written."""
        directory, raw = self._at(path)
        mode = 0o666 & ~self._umask
        try:
            return self._fs.store(self._lanes.request(), directory, mode, len(raw), b"".join((raw, data)))
        except ServiceError as error:
            raise failure(error, path) from None

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        self._forget(fd)
        try:
            self._fs.close(self._lanes.request(), fd & U64)
        except ServiceError as error:
            raise failure(error) from None

    def dup(self, fd: int) -> int:
        """Another descriptor of the same open file, with O_CLOEXEC."""
        return self._duplicate(fd, 0, False, os.O_CLOEXEC)

    def dup2(self, fd: int, fd2: int, inheritable: bool = True) -> int:
        """Make `fd2` a descriptor of the open file `fd`, closing what it was."""
        if fd == fd2:
            self._flags(fd)
            return fd2
        return self._duplicate(fd, fd2, True, 0 if inheritable else os.O_CLOEXEC)

    def _duplicate(self, fd: int, wanted: int, exactly: bool, flags: int) -> int:
        try:
            made = self._fs.duplicate(self._lanes.request(), fd & U64, wanted & U64, exactly, flags)
        except ServiceError as error:
            raise failure(error) from None
        self._forget(made)
        if fd in self._devices:
            self._devices[made] = self._devices[fd]
        if fd in self._path_only:
            self._path_only.add(made)
        return made

    def _forget(self, fd: int) -> None:
        """What is known of a descriptor no longer holds."""
        if self._devices:
            self._devices.pop(fd, None)
        if self._path_only:
            self._path_only.discard(fd)

    def _flags(self, fd: int) -> tuple[int, int]:
        try:
            return self._fs.get_flags(fd & U64)
        except ServiceError as error:
            raise failure(error) from None

    def fcntl(self, file: int | HasFileno, command: int, argument: int = 0) -> int:
        """F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD, F_DUPFD_CLOEXEC; another command is EINVAL."""
        fd = number_of(file)
        if command == fcntl.F_GETFL:
            return self._flags(fd)[0]
        if command == fcntl.F_GETFD:
            return self._flags(fd)[1]
        if command in (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC):
            return self._duplicate(fd, argument, False, os.O_CLOEXEC if command == fcntl.F_DUPFD_CLOEXEC else 0)
        if command not in (fcntl.F_SETFL, fcntl.F_SETFD):
            raise failure(errno.EINVAL)
        try:
            self._fs.set_flags(fd, command == fcntl.F_SETFD, argument & U64)
        except ServiceError as error:
            raise failure(error) from None
        return 0

    # ---- data

    def read(self, fd: int, n: int) -> bytes:
        """Read at most `n` bytes, and at most 16 MiB, at the position; nothing at the end of the file."""
        if n < 0:
            raise failure(errno.EINVAL)
        if self._devices and fd in self._devices:
            return self._read_device(fd, n)
        try:
            return self._fs.read(self._lanes.request(), fd & U64, AT_POSITION, n)
        except ServiceError as error:
            raise failure(error) from None

    def pread(self, fd: int, n: int, offset: int) -> bytes:
        """Read at most `n` bytes, and at most 16 MiB, at an offset; the position stays."""
        if n < 0 or offset < 0:
            raise failure(errno.EINVAL)
        if self._devices and fd in self._devices:
            raise failure(errno.ESPIPE)
        try:
            return self._fs.read(self._lanes.request(), fd & U64, offset, n)
        except ServiceError as error:
            raise failure(error) from None

    def write(self, fd: int, data: Any) -> int:
        """Write at the position; how many bytes were written: at most 16 MiB."""
        flat = _flat(data)
        if self._devices and fd in self._devices:
            return self._write_device(fd, flat)
        try:
            return self._fs.write(self._lanes.request(), fd & U64, AT_POSITION, flat)
        except ServiceError as error:
            raise failure(error) from None

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        """Write at an offset; how many bytes were written: at most 16 MiB. The position stays."""
        if offset < 0:
            raise failure(errno.EINVAL)
        if self._devices and fd in self._devices:
            raise failure(errno.ESPIPE)
        try:
            return self._fs.write(self._lanes.request(), fd & U64, offset, _flat(data))
        except ServiceError as error:
            raise failure(error) from None

    def lseek(self, fd: int, pos: int, how: int) -> int:
        """Move the position, also to data or a hole (SEEK_DATA, SEEK_HOLE); where it is then."""
        try:
            return self._fs.seek(self._lanes.request(), fd & U64, pos, how & U64)
        except ServiceError as error:
            raise failure(error) from None

    def ftruncate(self, fd: int, length: int) -> None:
        """Set the length of an open file, in bytes."""
        if length < 0:
            raise failure(errno.EINVAL)
        try:
            self._fs.truncate(self._lanes.request(), fd if fd >= 0 else -2, length, b"")
        except ServiceError as error:
            raise failure(error) from None

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """Reserve, punch out or zero a range; `mode` is that of the system call."""
        try:
            self._fs.allocate(self._lanes.request(), fd & U64, mode & U64, offset & U64, length & U64)
        except ServiceError as error:
            raise failure(error) from None

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        """Reserve a range, making the file longer if need be."""
        self.fallocate(fd, 0, offset, length)

    def fsync(self, file: int | HasFileno) -> None:
        """Return when what was written to a file is on the device."""
        self._sync(number_of(file), False)

    def fdatasync(self, file: int | HasFileno) -> None:
        """The same, except for times."""
        self._sync(number_of(file), True)

    def sync(self) -> None:
        """Return when everything is on the device."""
        self._sync(U64, False)

    def _sync(self, fd: int, data_only: bool) -> None:
        try:
            self._fs.sync(fd, data_only)
        except ServiceError as error:
            raise failure(error) from None

    # ---- devices, which the device manager knows by their handles

    def _devmgr(self) -> DevmgrClient:
        try:
            return self._device_manager()
        except NoSuchService:
            raise failure(errno.ENXIO) from None

    def _read_device(self, fd: int, n: int) -> bytes:
        try:
            return self._devmgr().read(self._lanes.request(), self._devices[fd], n)
        except ServiceError as error:
            raise failure(error) from None

    def _write_device(self, fd: int, data: Payload) -> int:
        try:
            return self._devmgr().write(self._lanes.request(), self._devices[fd], data)
        except ServiceError as error:
            raise failure(error) from None

    def ioctl(self, file: int | HasFileno, request: int, argument: bytes = b"") -> bytes:
        """Control a device: what the command writes where `argument` stands for a place in memory.

        Raises:
            OSError: ENOTTY, it is no device, or does not know the command.
        """
        fd = number_of(file)
        if fd not in self._devices:
            self._flags(fd)
            raise failure(errno.ENOTTY)
        try:
            return bytes(self._devmgr().control(self._lanes.request(), self._devices[fd], request, argument).data)
        except ServiceError as error:
            raise failure(error) from None

    def isatty(self, fd: int) -> bool:
        """Whether it is a terminal."""
        if fd not in self._devices:
            return False
        try:
            self.ioctl(fd, termios.TCGETS)
        except OSError:
            return False
        return True


def _flat(data: Any) -> Payload:
    """What a call takes: at most 16 MiB of bytes."""
    flat: bytes | memoryview = data if data.__class__ is bytes else memoryview(data)
    if isinstance(flat, memoryview) and (flat.nbytes != len(flat) or flat.format != "B" or not flat.c_contiguous):
        flat = flat.cast("B") if flat.c_contiguous else memoryview(flat.tobytes())
    return memoryview(flat)[:MAX_BULK_BYTES] if len(flat) > MAX_BULK_BYTES else flat
