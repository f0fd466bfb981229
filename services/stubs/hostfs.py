"""Directories of the host, read-only: what a file is, what it holds, which names a directory has.

Nothing is kept between calls that a caller relies on, so every operation may be re-issued. A path is
bytes without NUL, from the host's root, with or without a slash before it; `.` and `..` are the
caller's to resolve and are refused with EINVAL. No symbolic link is followed. Beside the directories
that the composition exports there are those that lead to them, made up: they show nothing else. Whether
a client may do what it asks for is the caller's to decide; what the host does not let this service do
is EACCES. Any other error of the host is EIO.

Generated from services/interfaces/hostfs.toml by `python -m services.generate`: edit that file.
"""

from __future__ import annotations

import abc
import enum
import errno
from typing import Final, NamedTuple

from corekernel.errors import BadFrame, ServiceError, TooBig, WouldWait
from corekernel.interface import InterfaceInfo, OperationInfo
from corekernel.interface import Bytes as _Bytes
from corekernel.interface import copied as _copied
from corekernel.interface import flat as _flat
from corekernel.port import Caller, HandlerTable, Payload, Port, Registers, Reply

_OP_WALK: Final = 1
_OP_READ: Final = 2
_OP_ENTRIES: Final = 3
_OP_STATFS: Final = 4
_OP_AHEAD: Final = 5


class HostfsOperation(enum.IntEnum):
    """Operation numbers of `hostfs`."""

    WALK = 1
    READ = 2
    ENTRIES = 3
    STATFS = 4
    AHEAD = 5


INTERFACE: Final = InterfaceInfo(
    "hostfs",
    {
        _OP_WALK: OperationInfo(
            "walk",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EINVAL,
                errno.EIO,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
        _OP_READ: OperationInfo(
            "read",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EINVAL,
                errno.EIO,
                errno.EISDIR,
                errno.ENAMETOOLONG,
                errno.ESTALE,
            }),
        ),
        _OP_ENTRIES: OperationInfo(
            "entries",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EINVAL,
                errno.EIO,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
        _OP_STATFS: OperationInfo(
            "statfs",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EINVAL,
                errno.EIO,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
        _OP_AHEAD: OperationInfo(
            "ahead",
            True,
            False,
            frozenset({
                errno.EACCES,
                errno.EINVAL,
                errno.EIO,
                errno.ENAMETOOLONG,
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ESTALE,
            }),
        ),
    },
)


class WalkResult(NamedTuple):
    """What `walk` returns.

    Attributes:
        consumed: bytes of the path that were walked; all of them unless there is a link (u64)
        attributes: `services.files.Attributes`; `dev` is the host's, 0 if made up (bytes <= 112 bytes)
        refused: errno, if the host does not let the regular file be opened; else 0 (u64)
        whole: `found` is all that the regular file holds (bool)
        found: target of the link, never empty; contents, if `whole` (buffer <= 128 KiB)
    """

    consumed: int
    attributes: bytes
    refused: int
    whole: bool
    found: Payload


class EntriesResult(NamedTuple):
    """What `entries` returns.

    Attributes:
        last: position of the last of these: 256 to 2**63-1; `after` if there are none (u64)
        finished: there is nothing after these (bool)
        entries: `services.files.unpack_entries` (buffer <= 16 MiB)
    """

    last: int
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
        flags: ST_RDONLY always (u64)
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


class AheadResult(NamedTuple):
    """What `ahead` returns.

    Attributes:
        consumed: as of `walk`, as the next three (u64)
        attributes: bytes <= 112 bytes
        refused: u64
        whole: bool
        own: bytes at the beginning of `found` that are `found` of `walk` (u64)
        found: then the others, as `services.files.unpack_ahead` takes them (buffer <= 512 KiB)
    """

    consumed: int
    attributes: bytes
    refused: int
    whole: bool
    own: int
    found: Payload


class HostfsClient:
    """Calls `hostfs` through a port; every method may also raise a `CallError`."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def walk(self, size: int, path: Payload) -> WalkResult:
        """Walk a path up to its end, or up to and including the first symbolic link on it, be it the last
        name. A regular file at the end is opened, too, if a size is given: so one call tells what it
        is, whether it can be read, and, of a small one, what it holds. The contents are never older
        than the attributes.

        Args:
            size: contents wanted, if that is all of them; at most 128 KiB. 0: do not open it (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if size >> 64 or len(path_) > 4096:
            raise TooBig("hostfs.walk: an argument is out of range")
        _registers, _payload = self._port.call(_OP_WALK, (size, len(path_)), path_, 5, 131184, True)
        if (
            len(_registers) != 5
            or _registers[1] > 112
            or _registers[3] > 1
            or _registers[4] > 131072
            or _registers[1] + _registers[4] != len(_payload)
        ):
            raise BadFrame("hostfs.walk: malformed reply")
        _view = memoryview(_payload)
        _end_1 = _registers[1]
        return WalkResult(
            _registers[0],
            _copied(_view[:_end_1]),
            _registers[2],
            _registers[3] == 1,
            _copied(_view[_end_1:]),
        )

    def read(self, device: int, inode: int, offset: int, size: int, path: Payload) -> bytes:
        """Read from a regular file that a walk has shown. Once opened, it is likely to be open here still,
        and then needs its name no more. ESTALE: it is not open here, and the path names it no more.
        EACCES: also for sockets, pipes and devices.

        Args:
            device: `dev` of its attributes (u64)
            inode: `ino` of its attributes (u64)
            offset: u64
            size: bytes wanted at most; more than 16 MiB count as 16 MiB (u64)
            path: without symbolic links (buffer <= 4 KiB)

        Returns:
            data: empty at the end of the file (buffer <= 16 MiB)

        Raises:
            ServiceError: EACCES, EINVAL, EIO, EISDIR, ENAMETOOLONG, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if device >> 64 or inode >> 64 or offset >> 64 or size >> 64 or len(path_) > 4096:
            raise TooBig("hostfs.read: an argument is out of range")
        _registers, _payload = self._port.call(_OP_READ, (device, inode, offset, size, len(path_)), path_, 1, 16777216, True)
        if len(_registers) != 1 or _registers[0] > 16777216 or _registers[0] != len(_payload):
            raise BadFrame("hostfs.read: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def entries(self, after: int, size: int, path: Payload) -> EntriesResult:
        """List names of a directory, without `.` and `..`, from a position on. A position belongs to a
        name, whatever else comes and goes: a name that is there throughout a listing is listed once,
        also when this service dies meanwhile.

        Args:
            after: `last` of the call before; 0: from the beginning (u64)
            size: bytes wanted at most; EINVAL if not one entry fits (u64)
            path: without symbolic links (buffer <= 4 KiB)

        Raises:
            ServiceError: EACCES, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if after >> 64 or size >> 64 or len(path_) > 4096:
            raise TooBig("hostfs.entries: an argument is out of range")
        _registers, _payload = self._port.call(_OP_ENTRIES, (after, size, len(path_)), path_, 3, 16777216, True)
        if (
            len(_registers) != 3
            or _registers[1] > 1
            or _registers[2] > 16777216
            or _registers[2] != len(_payload)
        ):
            raise BadFrame("hostfs.entries: malformed reply")
        return EntriesResult(
            _registers[0],
            _registers[1] == 1,
            _payload if _payload.__class__ is _Bytes else _copied(_payload),
        )

    def statfs(self, path: Payload) -> StatfsResult:
        """Describe the file system that a file is in.

        Args:
            path: a symbolic link only at its end (buffer <= 4 KiB)

        Raises:
            ServiceError: EACCES, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if len(path_) > 4096:
            raise TooBig("hostfs.statfs: an argument is out of range")
        _registers, _payload = self._port.call(_OP_STATFS, (len(path_),), path_, 8, 0, True)
        if len(_registers) != 8 or len(_payload):
            raise BadFrame("hostfs.statfs: malformed reply")
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

    def ahead(self, size: int, count: int, path: Payload) -> AheadResult:
        """As `walk` with a size. If a regular file was opened, regular files of the same directory with
        names that follow its own, as bytes, come along, as walks to them would show them, for a caller
        that is likely to open them next. How many is up to the service. Those that cannot be opened are
        left out, and so is whatever is no regular file: a walk decides about them.

        Args:
            size: as for `walk`, of each file (u64)
            count: files wanted at most beside the first; more than 32 count as 32 (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """
        path_ = path if path.__class__ is _Bytes else _flat(path)
        if size >> 64 or count >> 64 or len(path_) > 4096:
            raise TooBig("hostfs.ahead: an argument is out of range")
        _registers, _payload = self._port.call(_OP_AHEAD, (size, count, len(path_)), path_, 6, 524400, True)
        if (
            len(_registers) != 6
            or _registers[1] > 112
            or _registers[3] > 1
            or _registers[5] > 524288
            or _registers[1] + _registers[5] != len(_payload)
        ):
            raise BadFrame("hostfs.ahead: malformed reply")
        _view = memoryview(_payload)
        _end_1 = _registers[1]
        return AheadResult(
            _registers[0],
            _copied(_view[:_end_1]),
            _registers[2],
            _registers[3] == 1,
            _registers[4],
            _copied(_view[_end_1:]),
        )


class HostfsServer(abc.ABC):
    """Serves `hostfs`: implement the abstract methods, hand `handlers()` to the runtime.

    An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.
    """

    @abc.abstractmethod
    def walk(self, caller: Caller, size: int, path: memoryview) -> WalkResult:
        """Walk a path up to its end, or up to and including the first symbolic link on it, be it the last
        name. A regular file at the end is opened, too, if a size is given: so one call tells what it
        is, whether it can be read, and, of a small one, what it holds. The contents are never older
        than the attributes.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            size: contents wanted, if that is all of them; at most 128 KiB. 0: do not open it (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """

    @abc.abstractmethod
    def read(
        self,
        caller: Caller,
        device: int,
        inode: int,
        offset: int,
        size: int,
        path: memoryview,
    ) -> Payload:
        """Read from a regular file that a walk has shown. Once opened, it is likely to be open here still,
        and then needs its name no more. ESTALE: it is not open here, and the path names it no more.
        EACCES: also for sockets, pipes and devices.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            device: `dev` of its attributes (u64)
            inode: `ino` of its attributes (u64)
            offset: u64
            size: bytes wanted at most; more than 16 MiB count as 16 MiB (u64)
            path: without symbolic links (buffer <= 4 KiB)

        Returns:
            data: empty at the end of the file (buffer <= 16 MiB)

        Raises:
            ServiceError: EACCES, EINVAL, EIO, EISDIR, ENAMETOOLONG, ESTALE.
        """

    @abc.abstractmethod
    def entries(self, caller: Caller, after: int, size: int, path: memoryview) -> EntriesResult:
        """List names of a directory, without `.` and `..`, from a position on. A position belongs to a
        name, whatever else comes and goes: a name that is there throughout a listing is listed once,
        also when this service dies meanwhile.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            after: `last` of the call before; 0: from the beginning (u64)
            size: bytes wanted at most; EINVAL if not one entry fits (u64)
            path: without symbolic links (buffer <= 4 KiB)

        Raises:
            ServiceError: EACCES, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """

    @abc.abstractmethod
    def statfs(self, caller: Caller, path: memoryview) -> StatfsResult:
        """Describe the file system that a file is in.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            path: a symbolic link only at its end (buffer <= 4 KiB)

        Raises:
            ServiceError: EACCES, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """

    @abc.abstractmethod
    def ahead(self, caller: Caller, size: int, count: int, path: memoryview) -> AheadResult:
        """As `walk` with a size. If a regular file was opened, regular files of the same directory with
        names that follow its own, as bytes, come along, as walks to them would show them, for a caller
        that is likely to open them next. How many is up to the service. Those that cannot be opened are
        left out, and so is whatever is no regular file: a walk decides about them.

        `path` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            size: as for `walk`, of each file (u64)
            count: files wanted at most beside the first; more than 32 count as 32 (u64)
            path: buffer <= 4 KiB

        Raises:
            ServiceError: EACCES, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOTDIR, ESTALE.
        """

    def handlers(self) -> HandlerTable:
        """Operation number to the function that decodes a call, runs it and encodes its result."""
        return {
            _OP_WALK: self._serve_walk,
            _OP_READ: self._serve_read,
            _OP_ENTRIES: self._serve_entries,
            _OP_STATFS: self._serve_statfs,
            _OP_AHEAD: self._serve_ahead,
        }

    def _serve_walk(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or registers[1] > 4096 or registers[1] != len(payload):
            raise BadFrame("hostfs.walk: malformed call")
        try:
            result = self.walk(
                caller,
                registers[0],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_WALK, error)
            raise
        found_ = _flat(result.found)
        if (
            result.consumed >> 64
            or len(result.attributes) > 112
            or result.refused >> 64
            or len(found_) > 131072
        ):
            raise TooBig("hostfs.walk: a result is out of range")
        return (result.consumed, len(result.attributes), result.refused, 1 if result.whole else 0, len(found_)), b"".join((result.attributes, found_))

    def _serve_read(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 5 or registers[4] > 4096 or registers[4] != len(payload):
            raise BadFrame("hostfs.read: malformed call")
        try:
            result = self.read(
                caller,
                registers[0],
                registers[1],
                registers[2],
                registers[3],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_READ, error)
            raise
        data_ = result if result.__class__ is _Bytes else _flat(result)
        if len(data_) > 16777216:
            raise TooBig("hostfs.read: a result is out of range")
        return (len(data_),), data_

    def _serve_entries(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[2] > 4096 or registers[2] != len(payload):
            raise BadFrame("hostfs.entries: malformed call")
        try:
            result = self.entries(
                caller,
                registers[0],
                registers[1],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_ENTRIES, error)
            raise
        entries_ = _flat(result.entries)
        if result.last >> 64 or len(entries_) > 16777216:
            raise TooBig("hostfs.entries: a result is out of range")
        return (result.last, 1 if result.finished else 0, len(entries_)), entries_

    def _serve_statfs(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or registers[0] > 4096 or registers[0] != len(payload):
            raise BadFrame("hostfs.statfs: malformed call")
        try:
            result = self.statfs(
                caller,
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
            raise TooBig("hostfs.statfs: a result is out of range")
        return (result.kind, result.block, result.blocks, result.free, result.files, result.files_free, result.flags, result.identity), b""

    def _serve_ahead(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[2] > 4096 or registers[2] != len(payload):
            raise BadFrame("hostfs.ahead: malformed call")
        try:
            result = self.ahead(
                caller,
                registers[0],
                registers[1],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_AHEAD, error)
            raise
        found_ = _flat(result.found)
        if (
            result.consumed >> 64
            or len(result.attributes) > 112
            or result.refused >> 64
            or result.own >> 64
            or len(found_) > 524288
        ):
            raise TooBig("hostfs.ahead: a result is out of range")
        return (result.consumed, len(result.attributes), result.refused, 1 if result.whole else 0, result.own, len(found_)), b"".join((result.attributes, found_))
