"""The host's side: `os` under the names that `shim.files.Files` has, and a tmpfs that is all a process sees."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import Any

from corekernel import namespaces

_FLOCK = struct.Struct("hhqqi4x")
_KINDS = {fcntl.LOCK_SH: fcntl.F_RDLCK, fcntl.LOCK_EX: fcntl.F_WRLCK}
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def enter_tmpfs(directories: Sequence[str], mebibytes: int = 256) -> None:
    """Mount a tmpfs, with some directories, that only this process and its children have, as their root. Needs root."""
    namespaces.private_mounts()
    target = b"/mnt"
    options = f"size={mebibytes}m,mode=0755".encode()
    if _libc.mount(b"tmpfs", target, b"tmpfs", ctypes.c_ulong(0), options):
        raise OSError(ctypes.get_errno(), "mount")
    os.chroot(target)
    os.chdir("/")
    for name in directories:
        os.mkdir(name)


class Host:
    """`os`, and what is not in it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    open_descriptor = staticmethod(os.open)
    flock = staticmethod(fcntl.flock)
    lockf = staticmethod(fcntl.lockf)
    fcntl = staticmethod(fcntl.fcntl)

    @staticmethod
    def read_bytes(path: str) -> bytes:
        """See `shim.files.Files`."""
        with open(path, "rb", buffering=0) as file:
            return file.read()

    @staticmethod
    def write_bytes(path: str, data: bytes) -> int:
        """See `shim.files.Files`."""
        with open(path, "wb") as file:
            return file.write(data)

    def renameat2(
        self, src: str, dst: str, flags: int, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        """See `shim.files.Files`."""
        old = _AT_FDCWD if src_dir_fd is None else src_dir_fd
        new = _AT_FDCWD if dst_dir_fd is None else dst_dir_fd
        _checked(_libc.renameat2(old, os.fsencode(src), new, os.fsencode(dst), ctypes.c_uint(flags)))

    def link(
        self, src: str, dst: str, *, src_dir_fd: int | None, dst_dir_fd: int | None, follow_symlinks: bool
    ) -> None:
        """`os.link` without `follow_symlinks` leaves to the host what it means; this says it."""
        old = _AT_FDCWD if src_dir_fd is None else src_dir_fd
        new = _AT_FDCWD if dst_dir_fd is None else dst_dir_fd
        _checked(_libc.linkat(old, os.fsencode(src), new, os.fsencode(dst), 0x400 if follow_symlinks else 0))

    def fallocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """See `shim.files.Files`."""
        _checked(_libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))

    def getlk(self, fd: int, cmd: int, length: int, start: int, whence: int) -> tuple[int, int, int, int] | None:
        """See `shim.files.Files`."""
        asked = _FLOCK.pack(_KINDS[cmd], whence, start, length, 0)
        kind, _, begin, extent, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else (kind, begin, extent, pid)


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
