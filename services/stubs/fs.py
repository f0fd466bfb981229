"""The file system: the namespace and its mounts, files and directories, descriptors, locks.

Every operation may be re-issued when the service dies. Where that could be noticed there is a
`request`: a number that the client chooses, and that a re-issue repeats; what has been done under it is
answered, not done again. Flags and constants are those of Linux on x86-64, a path is bytes without NUL,
and what is true of a system call of Linux is true here unless docs/files.md says otherwise.

Generated from services/interfaces/fs.toml by `python -m services.generate`: edit that file.
"""

from __future__ import annotations

import abc
import enum
import errno
from typing import Final, NamedTuple

from corekernel.errors import BadFrame, ServiceError, TooBig, WouldWait
from corekernel.interface import EMPTY, SIGN_BIT, U64_MAX, InterfaceInfo, OperationInfo
from corekernel.interface import Bytes as _Bytes
from corekernel.interface import copied as _copied
from corekernel.interface import flat as _flat
from corekernel.interface import text as _text
from corekernel.port import Caller, HandlerTable, Payload, Port, Registers, Reply

_OP_OPEN: Final = 1
_OP_CLOSE: Final = 2
_OP_READ: Final = 3
_OP_WRITE: Final = 4
_OP_SEEK: Final = 5
_OP_STAT: Final = 6
_OP_ENTRIES: Final = 7
_OP_MAKE_DIRECTORY: Final = 8
_OP_MAKE_NODE: Final = 9
_OP_UNLINK: Final = 10
_OP_RENAME: Final = 11
_OP_LINK: Final = 12
_OP_MAKE_SYMLINK: Final = 13
_OP_READ_SYMLINK: Final = 14
_OP_TRUNCATE: Final = 15
_OP_ALLOCATE: Final = 16
_OP_CHANGE_MODE: Final = 17
_OP_CHANGE_OWNER: Final = 18
_OP_CHANGE_TIMES: Final = 19
_OP_ACCESS: Final = 20
_OP_STATFS: Final = 21
_OP_GET_ATTRIBUTE: Final = 22
_OP_SET_ATTRIBUTE: Final = 23
_OP_LIST_ATTRIBUTES: Final = 24
_OP_REMOVE_ATTRIBUTE: Final = 25
_OP_LOCK_FILE: Final = 26
_OP_LOCK_RANGE: Final = 27
_OP_TEST_RANGE: Final = 28
_OP_SYNC: Final = 29
_OP_DUPLICATE: Final = 30
_OP_GET_FLAGS: Final = 31
_OP_SET_FLAGS: Final = 32
_OP_PATH_OF: Final = 33
_OP_MOUNT: Final = 34
_OP_UNMOUNT: Final = 35
_OP_MOUNTS: Final = 36
_OP_WATCH: Final = 37
_OP_UNWATCH: Final = 38
_OP_CHANGES: Final = 39
_OP_FETCH: Final = 40
_OP_STORE: Final = 41


class FsOperation(enum.IntEnum):
    """Operation numbers of `fs`."""

    OPEN = 1
    CLOSE = 2
    READ = 3
    WRITE = 4
    SEEK = 5
    STAT = 6
    ENTRIES = 7
    MAKE_DIRECTORY = 8
    MAKE_NODE = 9
    UNLINK = 10
    RENAME = 11
    LINK = 12
    MAKE_SYMLINK = 13
    READ_SYMLINK = 14
    TRUNCATE = 15
    ALLOCATE = 16
    CHANGE_MODE = 17
    CHANGE_OWNER = 18
    CHANGE_TIMES = 19
    ACCESS = 20
    STATFS = 21
    GET_ATTRIBUTE = 22
    SET_ATTRIBUTE = 23
    LIST_ATTRIBUTES = 24
    REMOVE_ATTRIBUTE = 25
    LOCK_FILE = 26
    LOCK_RANGE = 27
    TEST_RANGE = 28
    SYNC = 29
    DUPLICATE = 30
    GET_FLAGS = 31
    SET_FLAGS = 32
    PATH_OF = 33
    MOUNT = 34
    UNMOUNT = 35
    MOUNTS = 36
    WATCH = 37
    UNWATCH = 38
    CHANGES = 39
    FETCH = 40
    STORE = 41


INTERFACE: Final = InterfaceInfo(
    "fs",
    {
        _OP_OPEN: OperationInfo(
            "open",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EBUSY,
                errno.EEXIST,
                errno.EINVAL,
                errno.EIO,
                errno.EISDIR,
                errno.ELOOP,
                errno.EMFILE,
                errno.ENAMETOOLONG,
                errno.ENFILE,
                errno.ENODEV,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.ENXIO,
                errno.EOPNOTSUPP,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
                errno.ETXTBSY,
            }),
        ),
        _OP_CLOSE: OperationInfo("close", True, False, frozenset({errno.EBADF, errno.EIO})),
        _OP_READ: OperationInfo(
            "read",
            True,
            False,
            frozenset({errno.EACCES, errno.EBADF, errno.EINVAL, errno.EIO, errno.EISDIR, errno.ESTALE}),
        ),
        _OP_WRITE: OperationInfo(
            "write",
            True,
            False,
            frozenset({errno.EBADF, errno.EFBIG, errno.EINVAL, errno.EIO, errno.ENOSPC, errno.EROFS}),
        ),
        _OP_SEEK: OperationInfo(
            "seek",
            True,
            False,
            frozenset({
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ENXIO,
                errno.EOVERFLOW,
                errno.ESPIPE,
                errno.ESTALE,
            }),
        ),
        _OP_STAT: OperationInfo(
            "stat",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
        _OP_ENTRIES: OperationInfo(
            "entries",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
        _OP_MAKE_DIRECTORY: OperationInfo(
            "make_directory",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EEXIST,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.EMLINK,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_MAKE_NODE: OperationInfo(
            "make_node",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EEXIST,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_UNLINK: OperationInfo(
            "unlink",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EBUSY,
                errno.EINVAL,
                errno.EIO,
                errno.EISDIR,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.ENOTEMPTY,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_RENAME: OperationInfo(
            "rename",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EBUSY,
                errno.EEXIST,
                errno.EINVAL,
                errno.EIO,
                errno.EISDIR,
                errno.ELOOP,
                errno.EMLINK,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.ENOTEMPTY,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
                errno.EXDEV,
            }),
        ),
        _OP_LINK: OperationInfo(
            "link",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EEXIST,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.EMLINK,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
                errno.EXDEV,
            }),
        ),
        _OP_MAKE_SYMLINK: OperationInfo(
            "make_symlink",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EEXIST,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_READ_SYMLINK: OperationInfo(
            "read_symlink",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
        _OP_TRUNCATE: OperationInfo(
            "truncate",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EFBIG,
                errno.EINVAL,
                errno.EIO,
                errno.EISDIR,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
                errno.ETXTBSY,
            }),
        ),
        _OP_ALLOCATE: OperationInfo(
            "allocate",
            True,
            False,
            frozenset({
                errno.EBADF,
                errno.EFBIG,
                errno.EINVAL,
                errno.EIO,
                errno.EISDIR,
                errno.ENODEV,
                errno.ENOSPC,
                errno.EOPNOTSUPP,
                errno.EPERM,
                errno.EROFS,
                errno.ESPIPE,
            }),
        ),
        _OP_CHANGE_MODE: OperationInfo(
            "change_mode",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EOPNOTSUPP,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_CHANGE_OWNER: OperationInfo(
            "change_owner",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_CHANGE_TIMES: OperationInfo(
            "change_times",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_ACCESS: OperationInfo(
            "access",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_STATFS: OperationInfo(
            "statfs",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
        _OP_GET_ATTRIBUTE: OperationInfo(
            "get_attribute",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENODATA,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.EOPNOTSUPP,
                errno.EPERM,
                errno.ERANGE,
                errno.ESTALE,
            }),
        ),
        _OP_SET_ATTRIBUTE: OperationInfo(
            "set_attribute",
            True,
            False,
            frozenset({
                errno.E2BIG,
                errno.EACCES,
                errno.EBADF,
                errno.EEXIST,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENODATA,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EOPNOTSUPP,
                errno.EPERM,
                errno.ERANGE,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_LIST_ATTRIBUTES: OperationInfo(
            "list_attributes",
            True,
            False,
            frozenset({
                errno.E2BIG,
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.EOPNOTSUPP,
                errno.ESTALE,
            }),
        ),
        _OP_REMOVE_ATTRIBUTE: OperationInfo(
            "remove_attribute",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENODATA,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EOPNOTSUPP,
                errno.EPERM,
                errno.ERANGE,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
        _OP_LOCK_FILE: OperationInfo(
            "lock_file",
            True,
            True,
            frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EWOULDBLOCK}),
        ),
        _OP_LOCK_RANGE: OperationInfo(
            "lock_range",
            True,
            True,
            frozenset({errno.EAGAIN, errno.EBADF, errno.EDEADLK, errno.EINVAL, errno.ENOLCK}),
        ),
        _OP_TEST_RANGE: OperationInfo("test_range", True, False, frozenset({errno.EBADF, errno.EINVAL})),
        _OP_SYNC: OperationInfo(
            "sync",
            True,
            False,
            frozenset({errno.EBADF, errno.EINVAL, errno.EIO, errno.ENOSPC, errno.EROFS}),
        ),
        _OP_DUPLICATE: OperationInfo(
            "duplicate",
            True,
            False,
            frozenset({errno.EBADF, errno.EINVAL, errno.EMFILE}),
        ),
        _OP_GET_FLAGS: OperationInfo("get_flags", True, False, frozenset({errno.EBADF})),
        _OP_SET_FLAGS: OperationInfo(
            "set_flags",
            True,
            False,
            frozenset({errno.EBADF, errno.EINVAL, errno.EPERM}),
        ),
        _OP_PATH_OF: OperationInfo(
            "path_of",
            True,
            False,
            frozenset({errno.EBADF, errno.ENAMETOOLONG, errno.ENOENT}),
        ),
        _OP_MOUNT: OperationInfo(
            "mount",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EBUSY,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENODEV,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.EPERM,
                errno.ESTALE,
            }),
        ),
        _OP_UNMOUNT: OperationInfo(
            "unmount",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EBUSY,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.EPERM,
                errno.ESTALE,
            }),
        ),
        _OP_MOUNTS: OperationInfo("mounts", True, False, frozenset()),
        _OP_WATCH: OperationInfo(
            "watch",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EEXIST,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
        _OP_UNWATCH: OperationInfo("unwatch", True, False, frozenset({errno.EINVAL})),
        _OP_CHANGES: OperationInfo("changes", True, True, frozenset({errno.EAGAIN, errno.EINVAL})),
        _OP_FETCH: OperationInfo(
            "fetch",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.ELOOP,
                errno.EMFILE,
                errno.ENAMETOOLONG,
                errno.ENFILE,
                errno.ENODEV,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ENXIO,
                errno.EPERM,
                errno.ESTALE,
            }),
        ),
        _OP_STORE: OperationInfo(
            "store",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EBADF,
                errno.EINVAL,
                errno.EIO,
                errno.EISDIR,
                errno.ELOOP,
                errno.ENAMETOOLONG,
                errno.ENODEV,
                errno.ENOENT,
                errno.ENOSPC,
                errno.ENOTDIR,
                errno.EPERM,
                errno.EROFS,
                errno.ESTALE,
            }),
        ),
    },
)


class OpenResult(NamedTuple):
    """What `open` returns.

    Attributes:
        descriptor: the lowest free one (u64)
        server: 0: this service; 1: devmgr (u64)
        handle: the device manager's; of a file served here its type (S_IFMT) (u64)
    """

    descriptor: int
    server: int
    handle: int


class EntriesResult(NamedTuple):
    """What `entries` returns.

    Attributes:
        finished: there is nothing after these (bool)
        entries: `services.files.unpack_entries` (buffer <= 16 MiB)
    """

    finished: bool
    entries: Payload


class StatfsResult(NamedTuple):
    """What `statfs` returns.

    Attributes:
        kind: magic number (u64)
        block: bytes of a block (u64)
        blocks: u64
        free: blocks (u64)
        files: u64
        files_free: u64
        flags: ST_RDONLY (u64)
        identity: u64
    """

    kind: int
    block: int
    blocks: int
    free: int
    files: int
    files_free: int
    flags: int
    identity: int


class TestRangeResult(NamedTuple):
    """What `test_range` returns.

    Attributes:
        found: its kind; F_UNLCK: none (u64)
        begin: where it starts (u64)
        extent: its length; 0: to the end (u64)
        holder: pid of its process (u64)
    """

    found: int
    begin: int
    extent: int
    holder: int


class GetFlagsResult(NamedTuple):
    """What `get_flags` returns.

    Attributes:
        status: u64
        descriptor_flags: FD_CLOEXEC (u64)
    """

    status: int
    descriptor_flags: int


class FetchResult(NamedTuple):
    """What `fetch` returns.

    Attributes:
        whole: `data` is the file; false: there is a descriptor instead, as of `open` (bool)
        descriptor: u64
        server: u64
        handle: u64
        data: buffer <= 128 KiB
    """

    whole: bool
    descriptor: int
    server: int
    handle: int
    data: Payload


class FsClient:
    """Calls `fs` through a port; every method may also raise a `CallError`."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def open(self, request: int, directory: int, flags: int, mode: int, path: Payload) -> OpenResult:
        """Open a file, perhaps making it. A character device is served by the device manager: its
        descriptor is closed here, but read and written there, under `handle`.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: O_ flags of Linux (u64)
            mode: permissions of a new file, the umask already taken off (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EEXIST, EINVAL, EIO, EISDIR, ELOOP, EMFILE,
            ENAMETOOLONG, ENFILE, ENODEV, ENOENT, ENOSPC, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM, EROFS,
            ESTALE, ETXTBSY.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if (
            request >> 64
            or not -SIGN_BIT <= directory < SIGN_BIT
            or flags >> 64
            or mode >> 64
            or len(path_) > 4096
        ):
            raise TooBig("fs.open: an argument is out of range")
        _registers, _payload = self._port.call(_OP_OPEN, (request, directory & U64_MAX, flags, mode, len(path_)), path_, 3, 0, True)
        if len(_registers) != 3 or len(_payload):
            raise BadFrame("fs.open: malformed reply")
        return OpenResult(_registers[0], _registers[1], _registers[2])

    def close(self, request: int, descriptor: int) -> None:
        """Close a descriptor; the description goes with its last one, and a file that has no name with
        that.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64

        Raises:
            ServiceError: EBADF, EIO.
        """
        if request >> 64 or descriptor >> 64:
            raise TooBig("fs.close: an argument is out of range")
        self._port.call(_OP_CLOSE, (request, descriptor), b"", 0, 0, True)

    def read(self, request: int, descriptor: int, offset: int, size: int) -> bytes:
        """Read from a file. No data: its end.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            offset: -1: at the description's position, which moves (i64)
            size: bytes wanted at most; more than 16 MiB count as 16 MiB (u64)

        Returns:
            data: buffer <= 16 MiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, EISDIR, ESTALE.
        """
        if request >> 64 or descriptor >> 64 or not -SIGN_BIT <= offset < SIGN_BIT or size >> 64:
            raise TooBig("fs.read: an argument is out of range")
        _registers, _payload = self._port.call(_OP_READ, (request, descriptor, offset & U64_MAX, size), b"", 1, 16777216, True)
        if len(_registers) != 1 or _registers[0] > 16777216 or _registers[0] != len(_payload):
            raise BadFrame("fs.read: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def write(self, request: int, descriptor: int, offset: int, data: Payload) -> int:
        """Write to a file.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            offset: -1: at the description's position, which moves (i64)
            data: buffer <= 16 MiB

        Returns:
            written: fewer than given when the device fills up (u64)

        Raises:
            ServiceError: EBADF, EFBIG, EINVAL, EIO, ENOSPC, EROFS.
        """
        data_ = data if data.__class__ is _Bytes else _flat(data)
        if request >> 64 or descriptor >> 64 or not -SIGN_BIT <= offset < SIGN_BIT or len(data_) > 16777216:
            raise TooBig("fs.write: an argument is out of range")
        _registers, _payload = self._port.call(_OP_WRITE, (request, descriptor, offset & U64_MAX, len(data_)), data_, 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("fs.write: malformed reply")
        return _registers[0]

    def seek(self, request: int, descriptor: int, offset: int, whence: int) -> int:
        """Move a description's position. Of a directory, only to 0 or to a position that was returned.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            offset: i64
            whence: SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA or SEEK_HOLE (u64)

        Returns:
            position: u64

        Raises:
            ServiceError: EBADF, EINVAL, EIO, ENXIO, EOVERFLOW, ESPIPE, ESTALE.
        """
        if request >> 64 or descriptor >> 64 or not -SIGN_BIT <= offset < SIGN_BIT or whence >> 64:
            raise TooBig("fs.seek: an argument is out of range")
        _registers, _payload = self._port.call(_OP_SEEK, (request, descriptor, offset & U64_MAX, whence), b"", 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("fs.seek: malformed reply")
        return _registers[0]

    def stat(self, directory: int, flags: int, path: Payload) -> bytes:
        """Describe a file.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            path: buffer <= 4 KiB

        Returns:
            attributes: `services.files.Attributes` (bytes <= 112 bytes)

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if not -SIGN_BIT <= directory < SIGN_BIT or flags >> 64 or len(path_) > 4096:
            raise TooBig("fs.stat: an argument is out of range")
        _registers, _payload = self._port.call(_OP_STAT, (directory & U64_MAX, flags, len(path_)), path_, 1, 112, True)
        if len(_registers) != 1 or _registers[0] > 112 or _registers[0] != len(_payload):
            raise BadFrame("fs.stat: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def entries(self, request: int, descriptor: int, size: int) -> EntriesResult:
        """Read names from an open directory, from its position on. An empty answer is the end.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            size: bytes wanted at most, at least 512 (u64)

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ENOENT, ENOTDIR, ESTALE.
        """
        if request >> 64 or descriptor >> 64 or size >> 64:
            raise TooBig("fs.entries: an argument is out of range")
        _registers, _payload = self._port.call(_OP_ENTRIES, (request, descriptor, size), b"", 2, 16777216, True)
        if (
            len(_registers) != 2
            or _registers[0] > 1
            or _registers[1] > 16777216
            or _registers[1] != len(_payload)
        ):
            raise BadFrame("fs.entries: malformed reply")
        return EntriesResult(
            _registers[0] == 1,
            _payload if _payload.__class__ is _Bytes else _copied(_payload),
        )

    def make_directory(self, request: int, directory: int, mode: int, path: Payload) -> None:
        """Make a directory.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            mode: u64
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, EMLINK, ENAMETOOLONG, ENOENT,
            ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if request >> 64 or not -SIGN_BIT <= directory < SIGN_BIT or mode >> 64 or len(path_) > 4096:
            raise TooBig("fs.make_directory: an argument is out of range")
        self._port.call(
            _OP_MAKE_DIRECTORY,
            (request, directory & U64_MAX, mode, len(path_)),
            path_,
            0,
            0,
            True,
        )

    def make_node(self, request: int, directory: int, mode: int, device: int, path: Payload) -> None:
        """Make a file, a device, a pipe's or a socket's name.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            mode: with the type (u64)
            device: rdev of a device (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC,
            ENOTDIR, EPERM, EROFS, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if (
            request >> 64
            or not -SIGN_BIT <= directory < SIGN_BIT
            or mode >> 64
            or device >> 64
            or len(path_) > 4096
        ):
            raise TooBig("fs.make_node: an argument is out of range")
        self._port.call(
            _OP_MAKE_NODE,
            (request, directory & U64_MAX, mode, device, len(path_)),
            path_,
            0,
            0,
            True,
        )

    def unlink(self, request: int, directory: int, flags: int, path: Payload) -> None:
        """Remove a name.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_REMOVEDIR: of an empty directory (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EINVAL, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT,
            ENOSPC, ENOTDIR, ENOTEMPTY, EPERM, EROFS, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if request >> 64 or not -SIGN_BIT <= directory < SIGN_BIT or flags >> 64 or len(path_) > 4096:
            raise TooBig("fs.unlink: an argument is out of range")
        self._port.call(_OP_UNLINK, (request, directory & U64_MAX, flags, len(path_)), path_, 0, 0, True)

    def rename(
        self,
        request: int,
        from_directory: int,
        to_directory: int,
        flags: int,
        first: int,
        paths: Payload,
    ) -> None:
        """Give a file another name.

        Args:
            request: number of this request, see docs/files.md (u64)
            from_directory: as `directory` elsewhere (i64)
            to_directory: i64
            flags: RENAME_NOREPLACE, RENAME_EXCHANGE (u64)
            first: length of the old path in `paths` (u64)
            paths: the old path, then the new one (buffer <= 8 KiB)

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EEXIST, EINVAL, EIO, EISDIR, ELOOP, EMLINK,
            ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, EPERM, EROFS, ESTALE, EXDEV.
        """
        paths_ = paths if paths.__class__ is _Bytes else _flat(paths)
        if (
            request >> 64
            or not -SIGN_BIT <= from_directory < SIGN_BIT
            or not -SIGN_BIT <= to_directory < SIGN_BIT
            or flags >> 64
            or first >> 64
            or len(paths_) > 8192
        ):
            raise TooBig("fs.rename: an argument is out of range")
        self._port.call(
            _OP_RENAME,
            (request, from_directory & U64_MAX, to_directory & U64_MAX, flags, first, len(paths_)),
            paths_,
            0,
            0,
            True,
        )

    def link(
        self,
        request: int,
        from_directory: int,
        to_directory: int,
        flags: int,
        first: int,
        paths: Payload,
    ) -> None:
        """Give a file one more name.

        Args:
            request: number of this request, see docs/files.md (u64)
            from_directory: as `directory` elsewhere (i64)
            to_directory: i64
            flags: AT_SYMLINK_FOLLOW, AT_EMPTY_PATH (u64)
            first: length of the old path in `paths` (u64)
            paths: the old path, then the new one (buffer <= 8 KiB)

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, EMLINK, ENAMETOOLONG, ENOENT,
            ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE, EXDEV.
        """
        paths_ = paths if paths.__class__ is _Bytes else _flat(paths)
        if (
            request >> 64
            or not -SIGN_BIT <= from_directory < SIGN_BIT
            or not -SIGN_BIT <= to_directory < SIGN_BIT
            or flags >> 64
            or first >> 64
            or len(paths_) > 8192
        ):
            raise TooBig("fs.link: an argument is out of range")
        self._port.call(
            _OP_LINK,
            (request, from_directory & U64_MAX, to_directory & U64_MAX, flags, first, len(paths_)),
            paths_,
            0,
            0,
            True,
        )

    def make_symlink(self, request: int, directory: int, first: int, paths: Payload) -> None:
        """Make a symbolic link.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            first: length of the target in `paths` (u64)
            paths: the target, then the path (buffer <= 8 KiB)

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC,
            ENOTDIR, EPERM, EROFS, ESTALE.
        """
        paths_ = paths if paths.__class__ is _Bytes else _flat(paths)
        if request >> 64 or not -SIGN_BIT <= directory < SIGN_BIT or first >> 64 or len(paths_) > 8192:
            raise TooBig("fs.make_symlink: an argument is out of range")
        self._port.call(
            _OP_MAKE_SYMLINK,
            (request, directory & U64_MAX, first, len(paths_)),
            paths_,
            0,
            0,
            True,
        )

    def read_symlink(self, directory: int, path: Payload) -> bytes:
        """Tell where a symbolic link points.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            path: buffer <= 4 KiB

        Returns:
            target: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if not -SIGN_BIT <= directory < SIGN_BIT or len(path_) > 4096:
            raise TooBig("fs.read_symlink: an argument is out of range")
        _registers, _payload = self._port.call(_OP_READ_SYMLINK, (directory & U64_MAX, len(path_)), path_, 1, 4096, True)
        if len(_registers) != 1 or _registers[0] > 4096 or _registers[0] != len(_payload):
            raise BadFrame("fs.read_symlink: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def truncate(self, request: int, descriptor: int, length: int, path: Payload) -> None:
        """Set a file's length.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: an open file if the path is empty, else as `directory` (i64)
            length: u64
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EFBIG, EINVAL, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT,
            ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE, ETXTBSY.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if request >> 64 or not -SIGN_BIT <= descriptor < SIGN_BIT or length >> 64 or len(path_) > 4096:
            raise TooBig("fs.truncate: an argument is out of range")
        self._port.call(_OP_TRUNCATE, (request, descriptor & U64_MAX, length, len(path_)), path_, 0, 0, True)

    def allocate(self, request: int, descriptor: int, mode: int, offset: int, length: int) -> None:
        """Reserve or punch out a range of a file (fallocate).

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            mode: 0, FALLOC_FL_KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE (u64)
            offset: u64
            length: u64

        Raises:
            ServiceError: EBADF, EFBIG, EINVAL, EIO, EISDIR, ENODEV, ENOSPC, EOPNOTSUPP, EPERM, EROFS,
            ESPIPE.
        """
        if request >> 64 or descriptor >> 64 or mode >> 64 or offset >> 64 or length >> 64:
            raise TooBig("fs.allocate: an argument is out of range")
        self._port.call(_OP_ALLOCATE, (request, descriptor, mode, offset, length), b"", 0, 0, True)

    def change_mode(self, request: int, directory: int, flags: int, mode: int, path: Payload) -> None:
        """Set a file's permissions.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            mode: u64
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR,
            EOPNOTSUPP, EPERM, EROFS, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if (
            request >> 64
            or not -SIGN_BIT <= directory < SIGN_BIT
            or flags >> 64
            or mode >> 64
            or len(path_) > 4096
        ):
            raise TooBig("fs.change_mode: an argument is out of range")
        self._port.call(
            _OP_CHANGE_MODE,
            (request, directory & U64_MAX, flags, mode, len(path_)),
            path_,
            0,
            0,
            True,
        )

    def change_owner(
        self,
        request: int,
        directory: int,
        flags: int,
        owner: int,
        group: int,
        path: Payload,
    ) -> None:
        """Set a file's owner and group.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            owner: 2**32-1: leave it (u64)
            group: 2**32-1: leave it (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR,
            EPERM, EROFS, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if (
            request >> 64
            or not -SIGN_BIT <= directory < SIGN_BIT
            or flags >> 64
            or owner >> 64
            or group >> 64
            or len(path_) > 4096
        ):
            raise TooBig("fs.change_owner: an argument is out of range")
        self._port.call(
            _OP_CHANGE_OWNER,
            (request, directory & U64_MAX, flags, owner, group, len(path_)),
            path_,
            0,
            0,
            True,
        )

    def change_times(
        self,
        request: int,
        directory: int,
        flags: int,
        accessed: int,
        modified: int,
        path: Payload,
    ) -> None:
        """Set a file's times.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            accessed: nanoseconds since 1970, or `NOW`, `OMIT` of `services.files` (i64)
            modified: i64
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR,
            EPERM, EROFS, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if (
            request >> 64
            or not -SIGN_BIT <= directory < SIGN_BIT
            or flags >> 64
            or not -SIGN_BIT <= accessed < SIGN_BIT
            or not -SIGN_BIT <= modified < SIGN_BIT
            or len(path_) > 4096
        ):
            raise TooBig("fs.change_times: an argument is out of range")
        self._port.call(
            _OP_CHANGE_TIMES,
            (request, directory & U64_MAX, flags, accessed & U64_MAX, modified & U64_MAX, len(path_)),
            path_,
            0,
            0,
            True,
        )

    def access(self, directory: int, mode: int, flags: int, path: Payload) -> None:
        """Tell whether the caller may read, write or execute a file.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            mode: R_OK, W_OK, X_OK; F_OK (u64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH; AT_EACCESS changes nothing (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EROFS,
            ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if not -SIGN_BIT <= directory < SIGN_BIT or mode >> 64 or flags >> 64 or len(path_) > 4096:
            raise TooBig("fs.access: an argument is out of range")
        self._port.call(_OP_ACCESS, (directory & U64_MAX, mode, flags, len(path_)), path_, 0, 0, True)

    def statfs(self, directory: int, path: Payload) -> StatfsResult:
        """Describe the file system that a file is in.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if not -SIGN_BIT <= directory < SIGN_BIT or len(path_) > 4096:
            raise TooBig("fs.statfs: an argument is out of range")
        _registers, _payload = self._port.call(_OP_STATFS, (directory & U64_MAX, len(path_)), path_, 8, 0, True)
        if len(_registers) != 8 or len(_payload):
            raise BadFrame("fs.statfs: malformed reply")
        return StatfsResult(
            _registers[0],
            _registers[1],
            _registers[2],
            _registers[3],
            _registers[4],
            _registers[5],
            _registers[6],
            _registers[7],
        )

    def get_attribute(self, directory: int, flags: int, name: bytes, path: Payload) -> bytes:
        """Read an extended attribute.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            name: bytes <= 255 bytes
            path: buffer <= 4 KiB

        Returns:
            value: buffer <= 64 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODATA, ENOENT, ENOTDIR,
            EOPNOTSUPP, EPERM, ERANGE, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if not -SIGN_BIT <= directory < SIGN_BIT or flags >> 64 or len(name) > 255 or len(path_) > 4096:
            raise TooBig("fs.get_attribute: an argument is out of range")
        _registers, _payload = self._port.call(
            _OP_GET_ATTRIBUTE,
            (directory & U64_MAX, flags, len(name), len(path_)),
            b"".join((name, path_)),
            1,
            65536,
            True,
        )
        if len(_registers) != 1 or _registers[0] > 65536 or _registers[0] != len(_payload):
            raise BadFrame("fs.get_attribute: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def set_attribute(
        self,
        request: int,
        directory: int,
        flags: int,
        how: int,
        name: bytes,
        first: int,
        contents: Payload,
    ) -> None:
        """Set an extended attribute.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            how: XATTR_CREATE, XATTR_REPLACE (u64)
            name: bytes <= 255 bytes
            first: length of the path in `contents` (u64)
            contents: the path, then the value (buffer <= 68 KiB)

        Raises:
            ServiceError: E2BIG, EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODATA,
            ENOENT, ENOSPC, ENOTDIR, EOPNOTSUPP, EPERM, ERANGE, EROFS, ESTALE.
        """
        contents_ = contents if contents.__class__ is _Bytes else _flat(contents)
        if (
            request >> 64
            or not -SIGN_BIT <= directory < SIGN_BIT
            or flags >> 64
            or how >> 64
            or len(name) > 255
            or first >> 64
            or len(contents_) > 69632
        ):
            raise TooBig("fs.set_attribute: an argument is out of range")
        self._port.call(
            _OP_SET_ATTRIBUTE,
            (request, directory & U64_MAX, flags, how, len(name), first, len(contents_)),
            b"".join((name, contents_)),
            0,
            0,
            True,
        )

    def list_attributes(self, directory: int, flags: int, path: Payload) -> bytes:
        """List the names of extended attributes, each ended by a NUL.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            path: buffer <= 4 KiB

        Returns:
            names: buffer <= 64 KiB

        Raises:
            ServiceError: E2BIG, EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR,
            EOPNOTSUPP, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if not -SIGN_BIT <= directory < SIGN_BIT or flags >> 64 or len(path_) > 4096:
            raise TooBig("fs.list_attributes: an argument is out of range")
        _registers, _payload = self._port.call(_OP_LIST_ATTRIBUTES, (directory & U64_MAX, flags, len(path_)), path_, 1, 65536, True)
        if len(_registers) != 1 or _registers[0] > 65536 or _registers[0] != len(_payload):
            raise BadFrame("fs.list_attributes: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def remove_attribute(self, request: int, directory: int, flags: int, name: bytes, path: Payload) -> None:
        """Remove an extended attribute.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            name: bytes <= 255 bytes
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODATA, ENOENT, ENOSPC,
            ENOTDIR, EOPNOTSUPP, EPERM, ERANGE, EROFS, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if (
            request >> 64
            or not -SIGN_BIT <= directory < SIGN_BIT
            or flags >> 64
            or len(name) > 255
            or len(path_) > 4096
        ):
            raise TooBig("fs.remove_attribute: an argument is out of range")
        self._port.call(
            _OP_REMOVE_ATTRIBUTE,
            (request, directory & U64_MAX, flags, len(name), len(path_)),
            b"".join((name, path_)),
            0,
            0,
            True,
        )

    def lock_file(self, descriptor: int, operation: int) -> None:
        """Lock or unlock a whole open file (flock).

        Args:
            descriptor: u64
            operation: LOCK_SH, LOCK_EX, LOCK_UN; LOCK_NB (u64)

        Raises:
            ServiceError: EBADF, EINVAL, ENOLCK, EWOULDBLOCK.
        """
        if descriptor >> 64 or operation >> 64:
            raise TooBig("fs.lock_file: an argument is out of range")
        self._port.call(_OP_LOCK_FILE, (descriptor, operation), b"", 0, 0, True)

    def lock_range(self, descriptor: int, kind: int, start: int, length: int, wait: bool) -> None:
        """Lock or unlock a range of a file for the calling process (fcntl F_SETLK, F_SETLKW).

        Args:
            descriptor: u64
            kind: F_RDLCK, F_WRLCK, F_UNLCK (u64)
            start: from the file's start (u64)
            length: 0: to the end, however far it grows (u64)
            wait: bool

        Raises:
            ServiceError: EAGAIN, EBADF, EDEADLK, EINVAL, ENOLCK.
        """
        if descriptor >> 64 or kind >> 64 or start >> 64 or length >> 64:
            raise TooBig("fs.lock_range: an argument is out of range")
        self._port.call(_OP_LOCK_RANGE, (descriptor, kind, start, length, 1 if wait else 0), b"", 0, 0, True)

    def test_range(self, descriptor: int, kind: int, start: int, length: int) -> TestRangeResult:
        """Tell which lock would keep the caller from one of its own (fcntl F_GETLK).

        Args:
            descriptor: u64
            kind: F_RDLCK or F_WRLCK (u64)
            start: u64
            length: 0: to the end (u64)

        Raises:
            ServiceError: EBADF, EINVAL.
        """
        if descriptor >> 64 or kind >> 64 or start >> 64 or length >> 64:
            raise TooBig("fs.test_range: an argument is out of range")
        _registers, _payload = self._port.call(_OP_TEST_RANGE, (descriptor, kind, start, length), b"", 4, 0, True)
        if len(_registers) != 4 or len(_payload):
            raise BadFrame("fs.test_range: malformed reply")
        return TestRangeResult(_registers[0], _registers[1], _registers[2], _registers[3])

    def sync(self, descriptor: int, data_only: bool) -> None:
        """Return when what was written is on the device. 2**64-1 for everything.

        Args:
            descriptor: u64
            data_only: times need not be (bool)

        Raises:
            ServiceError: EBADF, EINVAL, EIO, ENOSPC, EROFS.
        """
        if descriptor >> 64:
            raise TooBig("fs.sync: an argument is out of range")
        self._port.call(_OP_SYNC, (descriptor, 1 if data_only else 0), b"", 0, 0, True)

    def duplicate(self, request: int, descriptor: int, wanted: int, exactly: bool, flags: int) -> int:
        """Make another descriptor of an open description.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            wanted: the lowest free one from here on, or exactly this one (u64)
            exactly: close what stands there (dup3) (bool)
            flags: O_CLOEXEC (u64)

        Returns:
            other: u64

        Raises:
            ServiceError: EBADF, EINVAL, EMFILE.
        """
        if request >> 64 or descriptor >> 64 or wanted >> 64 or flags >> 64:
            raise TooBig("fs.duplicate: an argument is out of range")
        _registers, _payload = self._port.call(
            _OP_DUPLICATE,
            (request, descriptor, wanted, 1 if exactly else 0, flags),
            b"",
            1,
            0,
            True,
        )
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("fs.duplicate: malformed reply")
        return _registers[0]

    def get_flags(self, descriptor: int) -> GetFlagsResult:
        """Read the flags of an open description (fcntl F_GETFL) and of its descriptor (F_GETFD).

        Args:
            descriptor: u64

        Raises:
            ServiceError: EBADF.
        """
        if descriptor >> 64:
            raise TooBig("fs.get_flags: an argument is out of range")
        _registers, _payload = self._port.call(_OP_GET_FLAGS, (descriptor,), b"", 2, 0, True)
        if len(_registers) != 2 or len(_payload):
            raise BadFrame("fs.get_flags: malformed reply")
        return GetFlagsResult(_registers[0], _registers[1])

    def set_flags(self, descriptor: int, of_descriptor: bool, flags: int) -> None:
        """Set the flags of an open description (O_APPEND, O_NONBLOCK, O_NOATIME) or of its descriptor.

        Args:
            descriptor: u64
            of_descriptor: F_SETFD rather than F_SETFL (bool)
            flags: u64

        Raises:
            ServiceError: EBADF, EINVAL, EPERM.
        """
        if descriptor >> 64 or flags >> 64:
            raise TooBig("fs.set_flags: an argument is out of range")
        self._port.call(_OP_SET_FLAGS, (descriptor, 1 if of_descriptor else 0, flags), b"", 0, 0, True)

    def path_of(self, descriptor: int) -> bytes:
        """Tell the path of an open file, as far as it has one.

        Args:
            descriptor: u64

        Returns:
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EBADF, ENAMETOOLONG, ENOENT.
        """
        if descriptor >> 64:
            raise TooBig("fs.path_of: an argument is out of range")
        _registers, _payload = self._port.call(_OP_PATH_OF, (descriptor,), b"", 1, 4096, True)
        if len(_registers) != 1 or _registers[0] > 4096 or _registers[0] != len(_payload):
            raise BadFrame("fs.path_of: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def mount(self, request: int, kind: str, paths: Payload) -> None:
        """Mount a file system on a directory. Only the system's owner may.

        Args:
            request: number of this request, see docs/files.md (u64)
            kind: hostfs, proc (str <= 32 bytes)
            paths: the directory (buffer <= 4 KiB)

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODEV, ENOENT,
            ENOTDIR, EPERM, ESTALE.
        """
        kind_ = kind.encode()
        paths_ = paths if paths.__class__ is _Bytes else _flat(paths)
        if request >> 64 or len(kind_) > 32 or len(paths_) > 4096:
            raise TooBig("fs.mount: an argument is out of range")
        self._port.call(_OP_MOUNT, (request, len(kind_), len(paths_)), b"".join((kind_, paths_)), 0, 0, True)

    def unmount(self, request: int, path: Payload) -> None:
        """Unmount what is mounted on a directory. Only the system's owner may.

        Args:
            request: number of this request, see docs/files.md (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR,
            EPERM, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if request >> 64 or len(path_) > 4096:
            raise TooBig("fs.unmount: an argument is out of range")
        self._port.call(_OP_UNMOUNT, (request, len(path_)), path_, 0, 0, True)

    def mounts(self) -> bytes:
        """List the mounts, the oldest first.

        Returns:
            table: JSON: an array of {path, kind, source, options} (buffer <= 1 MiB)
        """
        _registers, _payload = self._port.call(_OP_MOUNTS, (), b"", 1, 1048576, True)
        if len(_registers) != 1 or _registers[0] > 1048576 or _registers[0] != len(_payload):
            raise BadFrame("fs.mounts: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def watch(self, request: int, mask: int, path: Payload) -> int:
        """Have changes of a file or directory noted for the calling process (inotify_add_watch); again:
        change its mask.

        Args:
            request: number of this request, see docs/files.md (u64)
            mask: IN_ flags of Linux (u64)
            path: buffer <= 4 KiB

        Returns:
            number: u64

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC,
            ENOTDIR, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if request >> 64 or mask >> 64 or len(path_) > 4096:
            raise TooBig("fs.watch: an argument is out of range")
        _registers, _payload = self._port.call(_OP_WATCH, (request, mask, len(path_)), path_, 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("fs.watch: malformed reply")
        return _registers[0]

    def unwatch(self, request: int, number: int) -> None:
        """Stop noting.

        Args:
            request: number of this request, see docs/files.md (u64)
            number: u64

        Raises:
            ServiceError: EINVAL.
        """
        if request >> 64 or number >> 64:
            raise TooBig("fs.unwatch: an argument is out of range")
        self._port.call(_OP_UNWATCH, (request, number), b"", 0, 0, True)

    def changes(self, request: int, wait: bool) -> bytes:
        """Wait for noted changes. After a restart of this service an overflow is among them.

        Args:
            request: number of this request, see docs/files.md (u64)
            wait: bool

        Returns:
            events: struct inotify_event, one after the other (buffer <= 64 KiB)

        Raises:
            ServiceError: EAGAIN, EINVAL.
        """
        if request >> 64:
            raise TooBig("fs.changes: an argument is out of range")
        _registers, _payload = self._port.call(_OP_CHANGES, (request, 1 if wait else 0), b"", 1, 65536, True)
        if len(_registers) != 1 or _registers[0] > 65536 or _registers[0] != len(_payload):
            raise BadFrame("fs.changes: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def fetch(self, request: int, directory: int, path: Payload) -> FetchResult:
        """Open a file for reading, and if it is small and regular, read all of it and close it: then there
        is no descriptor. So who wants to have a file needs one call, mostly.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: as of `open` (i64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENODEV,
            ENOENT, ENOTDIR, ENXIO, EPERM, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if request >> 64 or not -SIGN_BIT <= directory < SIGN_BIT or len(path_) > 4096:
            raise TooBig("fs.fetch: an argument is out of range")
        _registers, _payload = self._port.call(_OP_FETCH, (request, directory & U64_MAX, len(path_)), path_, 5, 131072, True)
        if (
            len(_registers) != 5
            or _registers[0] > 1
            or _registers[4] > 131072
            or _registers[4] != len(_payload)
        ):
            raise BadFrame("fs.fetch: malformed reply")
        return FetchResult(
            _registers[0] == 1,
            _registers[1],
            _registers[2],
            _registers[3],
            _payload if _payload.__class__ is _Bytes else _copied(_payload),
        )

    def store(self, request: int, directory: int, mode: int, length: int, data: Payload) -> bool:
        """Make a file with these contents, or replace those of a regular one, at once: what opening it
        with O_CREAT and O_TRUNC, writing and closing it come to, without a moment at which it is half
        done. Where that cannot be, as on a full device, nothing has happened, and the file is to be
        opened and written.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: as of `open`, as the next two (i64)
            mode: u64
            length: of the path (u64)
            data: the path, then the contents (buffer <= 132 KiB)

        Returns:
            stored: false: nothing has happened (bool)

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENODEV, ENOENT,
            ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE.
        """
        data_ = data if data.__class__ is _Bytes else _flat(data)
        if (
            request >> 64
            or not -SIGN_BIT <= directory < SIGN_BIT
            or mode >> 64
            or length >> 64
            or len(data_) > 135168
        ):
            raise TooBig("fs.store: an argument is out of range")
        _registers, _payload = self._port.call(
            _OP_STORE,
            (request, directory & U64_MAX, mode, length, len(data_)),
            data_,
            1,
            0,
            True,
        )
        if len(_registers) != 1 or _registers[0] > 1 or len(_payload):
            raise BadFrame("fs.store: malformed reply")
        return _registers[0] == 1


class FsServer(abc.ABC):
    """Serves `fs`: implement the abstract methods, hand `handlers()` to the runtime.

    An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.
    """

    @abc.abstractmethod
    def open(
        self,
        caller: Caller,
        request: int,
        directory: int,
        flags: int,
        mode: int,
        path: memoryview,
    ) -> OpenResult:
        """Open a file, perhaps making it. A character device is served by the device manager: its
        descriptor is closed here, but read and written there, under `handle`.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: O_ flags of Linux (u64)
            mode: permissions of a new file, the umask already taken off (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EEXIST, EINVAL, EIO, EISDIR, ELOOP, EMFILE,
            ENAMETOOLONG, ENFILE, ENODEV, ENOENT, ENOSPC, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM, EROFS,
            ESTALE, ETXTBSY.
        """

    @abc.abstractmethod
    def close(self, caller: Caller, request: int, descriptor: int) -> None:
        """Close a descriptor; the description goes with its last one, and a file that has no name with
        that.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64

        Raises:
            ServiceError: EBADF, EIO.
        """

    @abc.abstractmethod
    def read(self, caller: Caller, request: int, descriptor: int, offset: int, size: int) -> Payload:
        """Read from a file. No data: its end.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            offset: -1: at the description's position, which moves (i64)
            size: bytes wanted at most; more than 16 MiB count as 16 MiB (u64)

        Returns:
            data: buffer <= 16 MiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, EISDIR, ESTALE.
        """

    @abc.abstractmethod
    def write(self, caller: Caller, request: int, descriptor: int, offset: int, data: memoryview) -> int:
        """Write to a file.

        `data` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            offset: -1: at the description's position, which moves (i64)
            data: buffer <= 16 MiB

        Returns:
            written: fewer than given when the device fills up (u64)

        Raises:
            ServiceError: EBADF, EFBIG, EINVAL, EIO, ENOSPC, EROFS.
        """

    @abc.abstractmethod
    def seek(self, caller: Caller, request: int, descriptor: int, offset: int, whence: int) -> int:
        """Move a description's position. Of a directory, only to 0 or to a position that was returned.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            offset: i64
            whence: SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA or SEEK_HOLE (u64)

        Returns:
            position: u64

        Raises:
            ServiceError: EBADF, EINVAL, EIO, ENXIO, EOVERFLOW, ESPIPE, ESTALE.
        """

    @abc.abstractmethod
    def stat(self, caller: Caller, directory: int, flags: int, path: memoryview) -> bytes:
        """Describe a file.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            path: buffer <= 4 KiB

        Returns:
            attributes: `services.files.Attributes` (bytes <= 112 bytes)

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """

    @abc.abstractmethod
    def entries(self, caller: Caller, request: int, descriptor: int, size: int) -> EntriesResult:
        """Read names from an open directory, from its position on. An empty answer is the end.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            size: bytes wanted at most, at least 512 (u64)

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ENOENT, ENOTDIR, ESTALE.
        """

    @abc.abstractmethod
    def make_directory(
        self,
        caller: Caller,
        request: int,
        directory: int,
        mode: int,
        path: memoryview,
    ) -> None:
        """Make a directory.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            mode: u64
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, EMLINK, ENAMETOOLONG, ENOENT,
            ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE.
        """

    @abc.abstractmethod
    def make_node(
        self,
        caller: Caller,
        request: int,
        directory: int,
        mode: int,
        device: int,
        path: memoryview,
    ) -> None:
        """Make a file, a device, a pipe's or a socket's name.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            mode: with the type (u64)
            device: rdev of a device (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC,
            ENOTDIR, EPERM, EROFS, ESTALE.
        """

    @abc.abstractmethod
    def unlink(self, caller: Caller, request: int, directory: int, flags: int, path: memoryview) -> None:
        """Remove a name.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_REMOVEDIR: of an empty directory (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EINVAL, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT,
            ENOSPC, ENOTDIR, ENOTEMPTY, EPERM, EROFS, ESTALE.
        """

    @abc.abstractmethod
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
        """Give a file another name.

        `paths` is a read-only view of memory that may be shared with the caller, who can change it
        under you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            from_directory: as `directory` elsewhere (i64)
            to_directory: i64
            flags: RENAME_NOREPLACE, RENAME_EXCHANGE (u64)
            first: length of the old path in `paths` (u64)
            paths: the old path, then the new one (buffer <= 8 KiB)

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EEXIST, EINVAL, EIO, EISDIR, ELOOP, EMLINK,
            ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, ENOTEMPTY, EPERM, EROFS, ESTALE, EXDEV.
        """

    @abc.abstractmethod
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
        """Give a file one more name.

        `paths` is a read-only view of memory that may be shared with the caller, who can change it
        under you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            from_directory: as `directory` elsewhere (i64)
            to_directory: i64
            flags: AT_SYMLINK_FOLLOW, AT_EMPTY_PATH (u64)
            first: length of the old path in `paths` (u64)
            paths: the old path, then the new one (buffer <= 8 KiB)

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, EMLINK, ENAMETOOLONG, ENOENT,
            ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE, EXDEV.
        """

    @abc.abstractmethod
    def make_symlink(
        self,
        caller: Caller,
        request: int,
        directory: int,
        first: int,
        paths: memoryview,
    ) -> None:
        """Make a symbolic link.

        `paths` is a read-only view of memory that may be shared with the caller, who can change it
        under you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            first: length of the target in `paths` (u64)
            paths: the target, then the path (buffer <= 8 KiB)

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC,
            ENOTDIR, EPERM, EROFS, ESTALE.
        """

    @abc.abstractmethod
    def read_symlink(self, caller: Caller, directory: int, path: memoryview) -> Payload:
        """Tell where a symbolic link points.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            path: buffer <= 4 KiB

        Returns:
            target: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """

    @abc.abstractmethod
    def truncate(self, caller: Caller, request: int, descriptor: int, length: int, path: memoryview) -> None:
        """Set a file's length.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: an open file if the path is empty, else as `directory` (i64)
            length: u64
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EFBIG, EINVAL, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT,
            ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE, ETXTBSY.
        """

    @abc.abstractmethod
    def allocate(
        self,
        caller: Caller,
        request: int,
        descriptor: int,
        mode: int,
        offset: int,
        length: int,
    ) -> None:
        """Reserve or punch out a range of a file (fallocate).

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            mode: 0, FALLOC_FL_KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE (u64)
            offset: u64
            length: u64

        Raises:
            ServiceError: EBADF, EFBIG, EINVAL, EIO, EISDIR, ENODEV, ENOSPC, EOPNOTSUPP, EPERM, EROFS,
            ESPIPE.
        """

    @abc.abstractmethod
    def change_mode(
        self,
        caller: Caller,
        request: int,
        directory: int,
        flags: int,
        mode: int,
        path: memoryview,
    ) -> None:
        """Set a file's permissions.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            mode: u64
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR,
            EOPNOTSUPP, EPERM, EROFS, ESTALE.
        """

    @abc.abstractmethod
    def change_owner(
        self,
        caller: Caller,
        request: int,
        directory: int,
        flags: int,
        owner: int,
        group: int,
        path: memoryview,
    ) -> None:
        """Set a file's owner and group.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            owner: 2**32-1: leave it (u64)
            group: 2**32-1: leave it (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR,
            EPERM, EROFS, ESTALE.
        """

    @abc.abstractmethod
    def change_times(
        self,
        caller: Caller,
        request: int,
        directory: int,
        flags: int,
        accessed: int,
        modified: int,
        path: memoryview,
    ) -> None:
        """Set a file's times.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            accessed: nanoseconds since 1970, or `NOW`, `OMIT` of `services.files` (i64)
            modified: i64
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR,
            EPERM, EROFS, ESTALE.
        """

    @abc.abstractmethod
    def access(self, caller: Caller, directory: int, mode: int, flags: int, path: memoryview) -> None:
        """Tell whether the caller may read, write or execute a file.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            mode: R_OK, W_OK, X_OK; F_OK (u64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH; AT_EACCESS changes nothing (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EROFS,
            ESTALE.
        """

    @abc.abstractmethod
    def statfs(self, caller: Caller, directory: int, path: memoryview) -> StatfsResult:
        """Describe the file system that a file is in.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """

    @abc.abstractmethod
    def get_attribute(
        self,
        caller: Caller,
        directory: int,
        flags: int,
        name: bytes,
        path: memoryview,
    ) -> Payload:
        """Read an extended attribute.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            name: bytes <= 255 bytes
            path: buffer <= 4 KiB

        Returns:
            value: buffer <= 64 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODATA, ENOENT, ENOTDIR,
            EOPNOTSUPP, EPERM, ERANGE, ESTALE.
        """

    @abc.abstractmethod
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
        """Set an extended attribute.

        `contents` is a read-only view of memory that may be shared with the caller, who can change it
        under you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            how: XATTR_CREATE, XATTR_REPLACE (u64)
            name: bytes <= 255 bytes
            first: length of the path in `contents` (u64)
            contents: the path, then the value (buffer <= 68 KiB)

        Raises:
            ServiceError: E2BIG, EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODATA,
            ENOENT, ENOSPC, ENOTDIR, EOPNOTSUPP, EPERM, ERANGE, EROFS, ESTALE.
        """

    @abc.abstractmethod
    def list_attributes(self, caller: Caller, directory: int, flags: int, path: memoryview) -> Payload:
        """List the names of extended attributes, each ended by a NUL.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            path: buffer <= 4 KiB

        Returns:
            names: buffer <= 64 KiB

        Raises:
            ServiceError: E2BIG, EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR,
            EOPNOTSUPP, ESTALE.
        """

    @abc.abstractmethod
    def remove_attribute(
        self,
        caller: Caller,
        request: int,
        directory: int,
        flags: int,
        name: bytes,
        path: memoryview,
    ) -> None:
        """Remove an extended attribute.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: descriptor that a relative path starts from; -1: the root (i64)
            flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (u64)
            name: bytes <= 255 bytes
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODATA, ENOENT, ENOSPC,
            ENOTDIR, EOPNOTSUPP, EPERM, ERANGE, EROFS, ESTALE.
        """

    @abc.abstractmethod
    def lock_file(self, caller: Caller, descriptor: int, operation: int) -> None:
        """Lock or unlock a whole open file (flock).

        Args:
            descriptor: u64
            operation: LOCK_SH, LOCK_EX, LOCK_UN; LOCK_NB (u64)

        Raises:
            ServiceError: EBADF, EINVAL, ENOLCK, EWOULDBLOCK.
        """

    @abc.abstractmethod
    def lock_range(
        self,
        caller: Caller,
        descriptor: int,
        kind: int,
        start: int,
        length: int,
        wait: bool,
    ) -> None:
        """Lock or unlock a range of a file for the calling process (fcntl F_SETLK, F_SETLKW).

        Args:
            descriptor: u64
            kind: F_RDLCK, F_WRLCK, F_UNLCK (u64)
            start: from the file's start (u64)
            length: 0: to the end, however far it grows (u64)
            wait: bool

        Raises:
            ServiceError: EAGAIN, EBADF, EDEADLK, EINVAL, ENOLCK.
        """

    @abc.abstractmethod
    def test_range(
        self,
        caller: Caller,
        descriptor: int,
        kind: int,
        start: int,
        length: int,
    ) -> TestRangeResult:
        """Tell which lock would keep the caller from one of its own (fcntl F_GETLK).

        Args:
            descriptor: u64
            kind: F_RDLCK or F_WRLCK (u64)
            start: u64
            length: 0: to the end (u64)

        Raises:
            ServiceError: EBADF, EINVAL.
        """

    @abc.abstractmethod
    def sync(self, caller: Caller, descriptor: int, data_only: bool) -> None:
        """Return when what was written is on the device. 2**64-1 for everything.

        Args:
            descriptor: u64
            data_only: times need not be (bool)

        Raises:
            ServiceError: EBADF, EINVAL, EIO, ENOSPC, EROFS.
        """

    @abc.abstractmethod
    def duplicate(
        self,
        caller: Caller,
        request: int,
        descriptor: int,
        wanted: int,
        exactly: bool,
        flags: int,
    ) -> int:
        """Make another descriptor of an open description.

        Args:
            request: number of this request, see docs/files.md (u64)
            descriptor: u64
            wanted: the lowest free one from here on, or exactly this one (u64)
            exactly: close what stands there (dup3) (bool)
            flags: O_CLOEXEC (u64)

        Returns:
            other: u64

        Raises:
            ServiceError: EBADF, EINVAL, EMFILE.
        """

    @abc.abstractmethod
    def get_flags(self, caller: Caller, descriptor: int) -> GetFlagsResult:
        """Read the flags of an open description (fcntl F_GETFL) and of its descriptor (F_GETFD).

        Args:
            descriptor: u64

        Raises:
            ServiceError: EBADF.
        """

    @abc.abstractmethod
    def set_flags(self, caller: Caller, descriptor: int, of_descriptor: bool, flags: int) -> None:
        """Set the flags of an open description (O_APPEND, O_NONBLOCK, O_NOATIME) or of its descriptor.

        Args:
            descriptor: u64
            of_descriptor: F_SETFD rather than F_SETFL (bool)
            flags: u64

        Raises:
            ServiceError: EBADF, EINVAL, EPERM.
        """

    @abc.abstractmethod
    def path_of(self, caller: Caller, descriptor: int) -> Payload:
        """Tell the path of an open file, as far as it has one.

        Args:
            descriptor: u64

        Returns:
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EBADF, ENAMETOOLONG, ENOENT.
        """

    @abc.abstractmethod
    def mount(self, caller: Caller, request: int, kind: str, paths: memoryview) -> None:
        """Mount a file system on a directory. Only the system's owner may.

        `paths` is a read-only view of memory that may be shared with the caller, who can change it
        under you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            kind: hostfs, proc (str <= 32 bytes)
            paths: the directory (buffer <= 4 KiB)

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODEV, ENOENT,
            ENOTDIR, EPERM, ESTALE.
        """

    @abc.abstractmethod
    def unmount(self, caller: Caller, request: int, path: memoryview) -> None:
        """Unmount what is mounted on a directory. Only the system's owner may.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EBUSY, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR,
            EPERM, ESTALE.
        """

    @abc.abstractmethod
    def mounts(self, caller: Caller) -> Payload:
        """List the mounts, the oldest first.

        Returns:
            table: JSON: an array of {path, kind, source, options} (buffer <= 1 MiB)
        """

    @abc.abstractmethod
    def watch(self, caller: Caller, request: int, mask: int, path: memoryview) -> int:
        """Have changes of a file or directory noted for the calling process (inotify_add_watch); again:
        change its mask.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            mask: IN_ flags of Linux (u64)
            path: buffer <= 4 KiB

        Returns:
            number: u64

        Raises:
            ServiceError: EACCES, EBADF, EEXIST, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOSPC,
            ENOTDIR, ESTALE.
        """

    @abc.abstractmethod
    def unwatch(self, caller: Caller, request: int, number: int) -> None:
        """Stop noting.

        Args:
            request: number of this request, see docs/files.md (u64)
            number: u64

        Raises:
            ServiceError: EINVAL.
        """

    @abc.abstractmethod
    def changes(self, caller: Caller, request: int, wait: bool) -> Payload:
        """Wait for noted changes. After a restart of this service an overflow is among them.

        Args:
            request: number of this request, see docs/files.md (u64)
            wait: bool

        Returns:
            events: struct inotify_event, one after the other (buffer <= 64 KiB)

        Raises:
            ServiceError: EAGAIN, EINVAL.
        """

    @abc.abstractmethod
    def fetch(self, caller: Caller, request: int, directory: int, path: memoryview) -> FetchResult:
        """Open a file for reading, and if it is small and regular, read all of it and close it: then there
        is no descriptor. So who wants to have a file needs one call, mostly.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: as of `open` (i64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENODEV,
            ENOENT, ENOTDIR, ENXIO, EPERM, ESTALE.
        """

    @abc.abstractmethod
    def store(
        self,
        caller: Caller,
        request: int,
        directory: int,
        mode: int,
        length: int,
        data: memoryview,
    ) -> bool:
        """Make a file with these contents, or replace those of a regular one, at once: what opening it
        with O_CREAT and O_TRUNC, writing and closing it come to, without a moment at which it is half
        done. Where that cannot be, as on a full device, nothing has happened, and the file is to be
        opened and written.

        `data` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            directory: as of `open`, as the next two (i64)
            mode: u64
            length: of the path (u64)
            data: the path, then the contents (buffer <= 132 KiB)

        Returns:
            stored: false: nothing has happened (bool)

        Raises:
            ServiceError: EACCES, EBADF, EINVAL, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENODEV, ENOENT,
            ENOSPC, ENOTDIR, EPERM, EROFS, ESTALE.
        """

    def handlers(self) -> HandlerTable:
        """Operation number to the function that decodes a call, runs it and encodes its result."""
        return {
            _OP_OPEN: self._serve_open,
            _OP_CLOSE: self._serve_close,
            _OP_READ: self._serve_read,
            _OP_WRITE: self._serve_write,
            _OP_SEEK: self._serve_seek,
            _OP_STAT: self._serve_stat,
            _OP_ENTRIES: self._serve_entries,
            _OP_MAKE_DIRECTORY: self._serve_make_directory,
            _OP_MAKE_NODE: self._serve_make_node,
            _OP_UNLINK: self._serve_unlink,
            _OP_RENAME: self._serve_rename,
            _OP_LINK: self._serve_link,
            _OP_MAKE_SYMLINK: self._serve_make_symlink,
            _OP_READ_SYMLINK: self._serve_read_symlink,
            _OP_TRUNCATE: self._serve_truncate,
            _OP_ALLOCATE: self._serve_allocate,
            _OP_CHANGE_MODE: self._serve_change_mode,
            _OP_CHANGE_OWNER: self._serve_change_owner,
            _OP_CHANGE_TIMES: self._serve_change_times,
            _OP_ACCESS: self._serve_access,
            _OP_STATFS: self._serve_statfs,
            _OP_GET_ATTRIBUTE: self._serve_get_attribute,
            _OP_SET_ATTRIBUTE: self._serve_set_attribute,
            _OP_LIST_ATTRIBUTES: self._serve_list_attributes,
            _OP_REMOVE_ATTRIBUTE: self._serve_remove_attribute,
            _OP_LOCK_FILE: self._serve_lock_file,
            _OP_LOCK_RANGE: self._serve_lock_range,
            _OP_TEST_RANGE: self._serve_test_range,
            _OP_SYNC: self._serve_sync,
            _OP_DUPLICATE: self._serve_duplicate,
            _OP_GET_FLAGS: self._serve_get_flags,
            _OP_SET_FLAGS: self._serve_set_flags,
            _OP_PATH_OF: self._serve_path_of,
            _OP_MOUNT: self._serve_mount,
            _OP_UNMOUNT: self._serve_unmount,
            _OP_MOUNTS: self._serve_mounts,
            _OP_WATCH: self._serve_watch,
            _OP_UNWATCH: self._serve_unwatch,
            _OP_CHANGES: self._serve_changes,
            _OP_FETCH: self._serve_fetch,
            _OP_STORE: self._serve_store,
        }

    def _serve_open(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 5 or registers[4] > 4096 or registers[4] != len(payload):
            raise BadFrame("fs.open: malformed call")
        try:
            result = self.open(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                registers[3],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_OPEN, error)
            raise
        if result.descriptor >> 64 or result.server >> 64 or result.handle >> 64:
            raise TooBig("fs.open: a result is out of range")
        return (result.descriptor, result.server, result.handle), b""

    def _serve_close(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("fs.close: malformed call")
        try:
            self.close(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CLOSE, error)
            raise
        return EMPTY

    def _serve_read(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or len(payload):
            raise BadFrame("fs.read: malformed call")
        try:
            result = self.read(caller, registers[0], registers[1], (registers[2] ^ SIGN_BIT) - SIGN_BIT, registers[3])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_READ, error)
            raise
        data_ = result if result.__class__ is _Bytes else _flat(result)
        if len(data_) > 16777216:
            raise TooBig("fs.read: a result is out of range")
        return (len(data_),), data_

    def _serve_write(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or registers[3] > 16777216 or registers[3] != len(payload):
            raise BadFrame("fs.write: malformed call")
        try:
            result = self.write(
                caller,
                registers[0],
                registers[1],
                (registers[2] ^ SIGN_BIT) - SIGN_BIT,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_WRITE, error)
            raise
        if result >> 64:
            raise TooBig("fs.write: a result is out of range")
        return (result,), b""

    def _serve_seek(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or len(payload):
            raise BadFrame("fs.seek: malformed call")
        try:
            result = self.seek(caller, registers[0], registers[1], (registers[2] ^ SIGN_BIT) - SIGN_BIT, registers[3])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SEEK, error)
            raise
        if result >> 64:
            raise TooBig("fs.seek: a result is out of range")
        return (result,), b""

    def _serve_stat(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[2] > 4096 or registers[2] != len(payload):
            raise BadFrame("fs.stat: malformed call")
        try:
            result = self.stat(
                caller,
                (registers[0] ^ SIGN_BIT) - SIGN_BIT,
                registers[1],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_STAT, error)
            raise
        if len(result) > 112:
            raise TooBig("fs.stat: a result is out of range")
        return (len(result),), result

    def _serve_entries(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or len(payload):
            raise BadFrame("fs.entries: malformed call")
        try:
            result = self.entries(caller, registers[0], registers[1], registers[2])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_ENTRIES, error)
            raise
        entries_ = _flat(result.entries)
        if len(entries_) > 16777216:
            raise TooBig("fs.entries: a result is out of range")
        return (1 if result.finished else 0, len(entries_)), entries_

    def _serve_make_directory(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or registers[3] > 4096 or registers[3] != len(payload):
            raise BadFrame("fs.make_directory: malformed call")
        try:
            self.make_directory(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_MAKE_DIRECTORY, error)
            raise
        return EMPTY

    def _serve_make_node(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 5 or registers[4] > 4096 or registers[4] != len(payload):
            raise BadFrame("fs.make_node: malformed call")
        try:
            self.make_node(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                registers[3],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_MAKE_NODE, error)
            raise
        return EMPTY

    def _serve_unlink(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or registers[3] > 4096 or registers[3] != len(payload):
            raise BadFrame("fs.unlink: malformed call")
        try:
            self.unlink(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_UNLINK, error)
            raise
        return EMPTY

    def _serve_rename(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 6 or registers[5] > 8192 or registers[5] != len(payload):
            raise BadFrame("fs.rename: malformed call")
        try:
            self.rename(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                (registers[2] ^ SIGN_BIT) - SIGN_BIT,
                registers[3],
                registers[4],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_RENAME, error)
            raise
        return EMPTY

    def _serve_link(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 6 or registers[5] > 8192 or registers[5] != len(payload):
            raise BadFrame("fs.link: malformed call")
        try:
            self.link(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                (registers[2] ^ SIGN_BIT) - SIGN_BIT,
                registers[3],
                registers[4],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_LINK, error)
            raise
        return EMPTY

    def _serve_make_symlink(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or registers[3] > 8192 or registers[3] != len(payload):
            raise BadFrame("fs.make_symlink: malformed call")
        try:
            self.make_symlink(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_MAKE_SYMLINK, error)
            raise
        return EMPTY

    def _serve_read_symlink(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or registers[1] > 4096 or registers[1] != len(payload):
            raise BadFrame("fs.read_symlink: malformed call")
        try:
            result = self.read_symlink(
                caller,
                (registers[0] ^ SIGN_BIT) - SIGN_BIT,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_READ_SYMLINK, error)
            raise
        target_ = result if result.__class__ is _Bytes else _flat(result)
        if len(target_) > 4096:
            raise TooBig("fs.read_symlink: a result is out of range")
        return (len(target_),), target_

    def _serve_truncate(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or registers[3] > 4096 or registers[3] != len(payload):
            raise BadFrame("fs.truncate: malformed call")
        try:
            self.truncate(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_TRUNCATE, error)
            raise
        return EMPTY

    def _serve_allocate(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 5 or len(payload):
            raise BadFrame("fs.allocate: malformed call")
        try:
            self.allocate(caller, registers[0], registers[1], registers[2], registers[3], registers[4])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_ALLOCATE, error)
            raise
        return EMPTY

    def _serve_change_mode(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 5 or registers[4] > 4096 or registers[4] != len(payload):
            raise BadFrame("fs.change_mode: malformed call")
        try:
            self.change_mode(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                registers[3],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CHANGE_MODE, error)
            raise
        return EMPTY

    def _serve_change_owner(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 6 or registers[5] > 4096 or registers[5] != len(payload):
            raise BadFrame("fs.change_owner: malformed call")
        try:
            self.change_owner(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                registers[3],
                registers[4],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CHANGE_OWNER, error)
            raise
        return EMPTY

    def _serve_change_times(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 6 or registers[5] > 4096 or registers[5] != len(payload):
            raise BadFrame("fs.change_times: malformed call")
        try:
            self.change_times(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                (registers[3] ^ SIGN_BIT) - SIGN_BIT,
                (registers[4] ^ SIGN_BIT) - SIGN_BIT,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CHANGE_TIMES, error)
            raise
        return EMPTY

    def _serve_access(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or registers[3] > 4096 or registers[3] != len(payload):
            raise BadFrame("fs.access: malformed call")
        try:
            self.access(
                caller,
                (registers[0] ^ SIGN_BIT) - SIGN_BIT,
                registers[1],
                registers[2],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_ACCESS, error)
            raise
        return EMPTY

    def _serve_statfs(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or registers[1] > 4096 or registers[1] != len(payload):
            raise BadFrame("fs.statfs: malformed call")
        try:
            result = self.statfs(
                caller,
                (registers[0] ^ SIGN_BIT) - SIGN_BIT,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_STATFS, error)
            raise
        if (
            result.kind >> 64
            or result.block >> 64
            or result.blocks >> 64
            or result.free >> 64
            or result.files >> 64
            or result.files_free >> 64
            or result.flags >> 64
            or result.identity >> 64
        ):
            raise TooBig("fs.statfs: a result is out of range")
        return (result.kind, result.block, result.blocks, result.free, result.files, result.files_free, result.flags, result.identity), b""

    def _serve_get_attribute(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if (
            len(registers) != 4
            or registers[2] > 255
            or registers[3] > 4096
            or registers[2] + registers[3] != len(payload)
        ):
            raise BadFrame("fs.get_attribute: malformed call")
        view = memoryview(payload)
        end_1 = registers[2]
        try:
            result = self.get_attribute(
                caller,
                (registers[0] ^ SIGN_BIT) - SIGN_BIT,
                registers[1],
                _copied(view[:end_1]),
                memoryview(view[end_1:]).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_GET_ATTRIBUTE, error)
            raise
        value_ = result if result.__class__ is _Bytes else _flat(result)
        if len(value_) > 65536:
            raise TooBig("fs.get_attribute: a result is out of range")
        return (len(value_),), value_

    def _serve_set_attribute(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if (
            len(registers) != 7
            or registers[4] > 255
            or registers[6] > 69632
            or registers[4] + registers[6] != len(payload)
        ):
            raise BadFrame("fs.set_attribute: malformed call")
        view = memoryview(payload)
        end_1 = registers[4]
        try:
            self.set_attribute(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                registers[3],
                _copied(view[:end_1]),
                registers[5],
                memoryview(view[end_1:]).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SET_ATTRIBUTE, error)
            raise
        return EMPTY

    def _serve_list_attributes(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[2] > 4096 or registers[2] != len(payload):
            raise BadFrame("fs.list_attributes: malformed call")
        try:
            result = self.list_attributes(
                caller,
                (registers[0] ^ SIGN_BIT) - SIGN_BIT,
                registers[1],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_LIST_ATTRIBUTES, error)
            raise
        names_ = result if result.__class__ is _Bytes else _flat(result)
        if len(names_) > 65536:
            raise TooBig("fs.list_attributes: a result is out of range")
        return (len(names_),), names_

    def _serve_remove_attribute(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if (
            len(registers) != 5
            or registers[3] > 255
            or registers[4] > 4096
            or registers[3] + registers[4] != len(payload)
        ):
            raise BadFrame("fs.remove_attribute: malformed call")
        view = memoryview(payload)
        end_1 = registers[3]
        try:
            self.remove_attribute(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                _copied(view[:end_1]),
                memoryview(view[end_1:]).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_REMOVE_ATTRIBUTE, error)
            raise
        return EMPTY

    def _serve_lock_file(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("fs.lock_file: malformed call")
        try:
            self.lock_file(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_LOCK_FILE, error)
            raise
        return EMPTY

    def _serve_lock_range(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 5 or registers[4] > 1 or len(payload):
            raise BadFrame("fs.lock_range: malformed call")
        try:
            self.lock_range(caller, registers[0], registers[1], registers[2], registers[3], registers[4] == 1)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_LOCK_RANGE, error)
            raise
        return EMPTY

    def _serve_test_range(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or len(payload):
            raise BadFrame("fs.test_range: malformed call")
        try:
            result = self.test_range(caller, registers[0], registers[1], registers[2], registers[3])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_TEST_RANGE, error)
            raise
        if result.found >> 64 or result.begin >> 64 or result.extent >> 64 or result.holder >> 64:
            raise TooBig("fs.test_range: a result is out of range")
        return (result.found, result.begin, result.extent, result.holder), b""

    def _serve_sync(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or registers[1] > 1 or len(payload):
            raise BadFrame("fs.sync: malformed call")
        try:
            self.sync(caller, registers[0], registers[1] == 1)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SYNC, error)
            raise
        return EMPTY

    def _serve_duplicate(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 5 or registers[3] > 1 or len(payload):
            raise BadFrame("fs.duplicate: malformed call")
        try:
            result = self.duplicate(caller, registers[0], registers[1], registers[2], registers[3] == 1, registers[4])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_DUPLICATE, error)
            raise
        if result >> 64:
            raise TooBig("fs.duplicate: a result is out of range")
        return (result,), b""

    def _serve_get_flags(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("fs.get_flags: malformed call")
        try:
            result = self.get_flags(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_GET_FLAGS, error)
            raise
        if result.status >> 64 or result.descriptor_flags >> 64:
            raise TooBig("fs.get_flags: a result is out of range")
        return (result.status, result.descriptor_flags), b""

    def _serve_set_flags(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[1] > 1 or len(payload):
            raise BadFrame("fs.set_flags: malformed call")
        try:
            self.set_flags(caller, registers[0], registers[1] == 1, registers[2])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SET_FLAGS, error)
            raise
        return EMPTY

    def _serve_path_of(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("fs.path_of: malformed call")
        try:
            result = self.path_of(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_PATH_OF, error)
            raise
        path_ = result if result.__class__ is _Bytes else _flat(result)
        if len(path_) > 4096:
            raise TooBig("fs.path_of: a result is out of range")
        return (len(path_),), path_

    def _serve_mount(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if (
            len(registers) != 3
            or registers[1] > 32
            or registers[2] > 4096
            or registers[1] + registers[2] != len(payload)
        ):
            raise BadFrame("fs.mount: malformed call")
        view = memoryview(payload)
        end_1 = registers[1]
        try:
            self.mount(caller, registers[0], _text(view[:end_1]), memoryview(view[end_1:]).toreadonly())
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_MOUNT, error)
            raise
        return EMPTY

    def _serve_unmount(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or registers[1] > 4096 or registers[1] != len(payload):
            raise BadFrame("fs.unmount: malformed call")
        try:
            self.unmount(
                caller,
                registers[0],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_UNMOUNT, error)
            raise
        return EMPTY

    def _serve_mounts(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("fs.mounts: malformed call")
        try:
            result = self.mounts(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_MOUNTS, error)
            raise
        table_ = result if result.__class__ is _Bytes else _flat(result)
        if len(table_) > 1048576:
            raise TooBig("fs.mounts: a result is out of range")
        return (len(table_),), table_

    def _serve_watch(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[2] > 4096 or registers[2] != len(payload):
            raise BadFrame("fs.watch: malformed call")
        try:
            result = self.watch(
                caller,
                registers[0],
                registers[1],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_WATCH, error)
            raise
        if result >> 64:
            raise TooBig("fs.watch: a result is out of range")
        return (result,), b""

    def _serve_unwatch(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("fs.unwatch: malformed call")
        try:
            self.unwatch(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_UNWATCH, error)
            raise
        return EMPTY

    def _serve_changes(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or registers[1] > 1 or len(payload):
            raise BadFrame("fs.changes: malformed call")
        try:
            result = self.changes(caller, registers[0], registers[1] == 1)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CHANGES, error)
            raise
        events_ = result if result.__class__ is _Bytes else _flat(result)
        if len(events_) > 65536:
            raise TooBig("fs.changes: a result is out of range")
        return (len(events_),), events_

    def _serve_fetch(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[2] > 4096 or registers[2] != len(payload):
            raise BadFrame("fs.fetch: malformed call")
        try:
            result = self.fetch(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_FETCH, error)
            raise
        data_ = _flat(result.data)
        if result.descriptor >> 64 or result.server >> 64 or result.handle >> 64 or len(data_) > 131072:
            raise TooBig("fs.fetch: a result is out of range")
        return (1 if result.whole else 0, result.descriptor, result.server, result.handle, len(data_)), data_

    def _serve_store(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 5 or registers[4] > 135168 or registers[4] != len(payload):
            raise BadFrame("fs.store: malformed call")
        try:
            result = self.store(
                caller,
                registers[0],
                (registers[1] ^ SIGN_BIT) - SIGN_BIT,
                registers[2],
                registers[3],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_STORE, error)
            raise
        return (1 if result else 0,), b""
