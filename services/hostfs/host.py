"""The host's calls that this service makes, and what becomes of their errors.

Every name is looked up in a directory that is held open, and no symbolic link is followed: a path is never checked
first and used afterwards. All of it is allowed by the filter for `host_paths` (`corekernel.confine`), and no more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

from corekernel.errors import ServiceError
from services.files import Attributes

ST_RDONLY: Final = 1
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_AT_SYMLINK_NOFOLLOW, _AT_NO_AUTOMOUNT, _AT_EMPTY_PATH = 0x100, 0x800, 0x1000
_STATX_ALL = 0xFFF
# struct statx: mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask; then atime, btime,
# ctime, mtime as seconds and nanoseconds; rdev and dev, each as major and minor number.
_STATX = struct.Struct("<IIQIIIHxxQQQQ" + "qIxxxx" * 4 + "IIII")
_STATX_BYTES = 256
# struct statfs: type, bsize, blocks, bfree, bavail, files, ffree, fsid.
_STATFS = struct.Struct("<qq6Q")
_STATFS_BYTES = 120
_BILLION = 1_000_000_000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_char_p)
_Statx = ctypes.c_char * _STATX_BYTES
_Statfs = ctypes.c_char * _STATFS_BYTES

_AS_IT_IS = frozenset({
    errno.EACCES, errno.EINVAL, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.ESTALE,
})  # fmt: skip


class Descriptor:
    """A descriptor that is closed when nobody refers to it any more.

    So whoever uses `fd` holds on to the object meanwhile, and a cache may drop it at any time.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class FileSystem(NamedTuple):
    """What `statfs` tells; `free` is what is there for users."""

    kind: int
    block: int
    blocks: int
    free: int
    files: int
    files_free: int
    identity: int


def refusal(error: OSError) -> ServiceError:
    """What a caller gets for an error of the host; one of this service's own is the caller's as it is."""
    if isinstance(error, ServiceError):
        return error
    number = error.errno or errno.EIO
    if number == errno.EPERM:
        number = errno.EACCES
    return ServiceError(number if number in _AS_IT_IS else errno.EIO, error.strerror or "")


def attributes(directory: int, name: bytes) -> Attributes:
    """Of a name in a directory; of the directory or file itself if the name is empty.

    Raises:
        OSError: the host's.
    """
    found = _Statx()
    flags = _AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT | _AT_EMPTY_PATH
    if _libc.statx(directory, name, flags, _STATX_ALL, found):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    (
        _, blksize, _, nlink, uid, gid, mode, ino, size, blocks, _,
        atime, atime_ns, btime, btime_ns, ctime, ctime_ns, mtime, mtime_ns,
        rdev_major, rdev_minor, dev_major, dev_minor,
    ) = _STATX.unpack_from(found)  # fmt: skip
    return Attributes(
        ino, os.makedev(dev_major, dev_minor), mode, nlink, uid, gid, os.makedev(rdev_major, rdev_minor),
        size, blksize, blocks, atime * _BILLION + atime_ns, mtime * _BILLION + mtime_ns,
        ctime * _BILLION + ctime_ns, btime * _BILLION + btime_ns,
    )  # fmt: skip


def file_system(descriptor: int) -> FileSystem:
    """Of the file that a descriptor refers to.

    Raises:
        OSError: the host's.
    """
    found = _Statfs()
    if _libc.fstatfs(descriptor, found):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    kind, block, blocks, _, available, files, files_free, identity = _STATFS.unpack_from(found)
    return FileSystem(kind, block, blocks, available, files, files_free, identity)


def look(directory: int | None, name: bytes, only_directory: bool = False) -> Descriptor:
    """Hold a name in a directory without opening it for reading; a symbolic link is held itself.

    Raises:
        OSError: the host's; ENOTDIR also for a symbolic link if it must be a directory.
    """
    return Descriptor(os.open(name, _LOOK | (os.O_DIRECTORY if only_directory else 0), dir_fd=directory))


def open_file(directory: int, name: bytes) -> Descriptor:
    """Open a name for reading; never waits, whatever it is.

    Raises:
        OSError: the host's; ELOOP for a symbolic link.
    """
    return Descriptor(os.open(name, _READ, dir_fd=directory))


def open_directory(held: int) -> Descriptor:
    """Open for listing a directory that is held already.

    Raises:
        OSError: the host's.
    """
    return Descriptor(os.open(b".", _READ | os.O_DIRECTORY, dir_fd=held))
