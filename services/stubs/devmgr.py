"""The device manager: the devices that the composition gives it, their drivers, and the console with its
line discipline.

A client opens a device through the file system, which alone may `open` and `release`; it then reads and
writes here, under the handle it was given. Every operation may be re-issued when the service dies; the
requests that something is lost or done by carry a number as docs/files.md has it, so that it is done
once. The number 0 is none: such a request may be done twice. Flags, events, commands and their
arguments are those of Linux on x86-64.

Generated from services/interfaces/devmgr.toml by `python -m services.generate`: edit that file.
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
from corekernel.port import Caller, HandlerTable, Payload, Port, Registers, Reply

_OP_OPEN: Final = 1
_OP_RELEASE: Final = 2
_OP_READ: Final = 3
_OP_WRITE: Final = 4
_OP_CONTROL: Final = 5
_OP_POLL: Final = 6
_OP_WAIT_READY: Final = 7
_OP_SET_FLAGS: Final = 8
_OP_DEVICES: Final = 9


class DevmgrOperation(enum.IntEnum):
    """Operation numbers of `devmgr`."""

    OPEN = 1
    RELEASE = 2
    READ = 3
    WRITE = 4
    CONTROL = 5
    POLL = 6
    WAIT_READY = 7
    SET_FLAGS = 8
    DEVICES = 9


INTERFACE: Final = InterfaceInfo(
    "devmgr",
    {
        _OP_OPEN: OperationInfo(
            "open",
            True,
            False,
            frozenset({errno.EINVAL, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ENXIO, errno.EPERM}),
        ),
        _OP_RELEASE: OperationInfo("release", True, False, frozenset({errno.EPERM})),
        _OP_READ: OperationInfo("read", True, True, frozenset({errno.EAGAIN, errno.EBADF})),
        _OP_WRITE: OperationInfo("write", True, True, frozenset({errno.EAGAIN, errno.EBADF, errno.ENOSPC})),
        _OP_CONTROL: OperationInfo(
            "control",
            True,
            False,
            frozenset({errno.EBADF, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ESRCH}),
        ),
        _OP_POLL: OperationInfo("poll", True, False, frozenset({errno.EBADF})),
        _OP_WAIT_READY: OperationInfo("wait_ready", True, True, frozenset({errno.EBADF})),
        _OP_SET_FLAGS: OperationInfo("set_flags", True, False, frozenset({errno.EBADF, errno.EPERM})),
        _OP_DEVICES: OperationInfo("devices", True, False, frozenset()),
    },
)


class ControlResult(NamedTuple):
    """What `control` returns.

    Attributes:
        result: i64
        data: what the command writes where the third argument points (bytes <= 256 bytes)
    """

    result: int
    data: bytes


class DevmgrClient:
    """Calls `devmgr` through a port; every method may also raise a `CallError`."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def open(self, client: int, rdev: int, flags: int) -> int:
        """Open a device for a client. Only the service named by the option `opener` (`fs`) may. ENXIO: no
        such device; ENODEV: the composition does not have it. A handle goes with its client at the
        latest.

        Args:
            client: who may use the handle (u64)
            rdev: 1:3 null, 1:5 zero, 1:7 full, 1:8 random, 1:9 urandom, 5:0 tty, 5:1 console (u64)
            flags: O_RDONLY, O_WRONLY or O_RDWR; O_NONBLOCK; others mean nothing here (u64)

        Returns:
            handle: never 0, and never used again for another (u64)

        Raises:
            ServiceError: EINVAL, EMFILE, ENFILE, ENODEV, ENXIO, EPERM.
        """
        if client >> 64 or rdev >> 64 or flags >> 64:
            raise TooBig("devmgr.open: an argument is out of range")
        _registers, _payload = self._port.call(_OP_OPEN, (client, rdev, flags), b"", 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("devmgr.open: malformed reply")
        return _registers[0]

    def release(self, handle: int) -> None:
        """Close a handle; one that is closed stays so. Only the opener may.

        Args:
            handle: u64

        Raises:
            ServiceError: EPERM.
        """
        if handle >> 64:
            raise TooBig("devmgr.release: an argument is out of range")
        self._port.call(_OP_RELEASE, (handle,), b"", 0, 0, True)

    def read(self, request: int, handle: int, size: int) -> bytes:
        """Read from a device. No data: the end of a file. EAGAIN: it was opened with O_NONBLOCK, and there
        is nothing yet.

        Args:
            request: number of this request, see docs/files.md (u64)
            handle: u64
            size: bytes wanted at most; more than 16 MiB count as 16 MiB (u64)

        Returns:
            data: buffer <= 16 MiB

        Raises:
            ServiceError: EAGAIN, EBADF.
        """
        if request >> 64 or handle >> 64 or size >> 64:
            raise TooBig("devmgr.read: an argument is out of range")
        _registers, _payload = self._port.call(_OP_READ, (request, handle, size), b"", 1, 16777216, True)
        if len(_registers) != 1 or _registers[0] > 16777216 or _registers[0] != len(_payload):
            raise BadFrame("devmgr.read: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def write(self, request: int, handle: int, data: Payload) -> int:
        """Write to a device. EAGAIN: it was opened with O_NONBLOCK, and takes nothing now.

        Args:
            request: number of this request, see docs/files.md (u64)
            handle: u64
            data: buffer <= 16 MiB

        Returns:
            written: of a terminal possibly fewer than given, at least 1 (u64)

        Raises:
            ServiceError: EAGAIN, EBADF, ENOSPC.
        """
        data_ = data if data.__class__ is _Bytes else _flat(data)
        if request >> 64 or handle >> 64 or len(data_) > 16777216:
            raise TooBig("devmgr.write: an argument is out of range")
        _registers, _payload = self._port.call(_OP_WRITE, (request, handle, len(data_)), data_, 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("devmgr.write: malformed reply")
        return _registers[0]

    def control(self, request: int, handle: int, command: int, argument: bytes) -> ControlResult:
        """Control a device (ioctl). A terminal has TCGETS, TCSETS, TCSETSW, TCSETSF, TCFLSH, TIOCGWINSZ,
        TIOCSWINSZ, TIOCGPGRP, TIOCSPGRP and FIONREAD; all else is ENOTTY. A process group is a process
        here: one that the caller may signal (EPERM).

        Args:
            request: number of this request, see docs/files.md (u64)
            handle: u64
            command: u64
            argument: what the third argument points to; of TCFLSH, itself (i32) (bytes <= 256 bytes)

        Raises:
            ServiceError: EBADF, EINVAL, ENOTTY, EPERM, ESRCH.
        """
        if request >> 64 or handle >> 64 or command >> 64 or len(argument) > 256:
            raise TooBig("devmgr.control: an argument is out of range")
        _registers, _payload = self._port.call(_OP_CONTROL, (request, handle, command, len(argument)), argument, 2, 256, True)
        if len(_registers) != 2 or _registers[1] > 256 or _registers[1] != len(_payload):
            raise BadFrame("devmgr.control: malformed reply")
        return ControlResult(
            (_registers[0] ^ SIGN_BIT) - SIGN_BIT,
            _payload if _payload.__class__ is _Bytes else _copied(_payload),
        )

    def poll(self, handle: int, events: int) -> int:
        """Tell for what a device is ready.

        Args:
            handle: u64
            events: POLL flags of Linux (u64)

        Returns:
            ready: those of the events that hold, and POLLHUP (u64)

        Raises:
            ServiceError: EBADF.
        """
        if handle >> 64 or events >> 64:
            raise TooBig("devmgr.poll: an argument is out of range")
        _registers, _payload = self._port.call(_OP_POLL, (handle, events), b"", 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("devmgr.poll: malformed reply")
        return _registers[0]

    def wait_ready(self, handle: int, events: int) -> int:
        """Wait until a device is ready for one of the events, or hung up.

        Args:
            handle: u64
            events: POLL flags of Linux (u64)

        Returns:
            ready: as of `poll`, never 0 (u64)

        Raises:
            ServiceError: EBADF.
        """
        if handle >> 64 or events >> 64:
            raise TooBig("devmgr.wait_ready: an argument is out of range")
        _registers, _payload = self._port.call(_OP_WAIT_READY, (handle, events), b"", 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("devmgr.wait_ready: malformed reply")
        return _registers[0]

    def set_flags(self, handle: int, flags: int) -> None:
        """Set or clear O_NONBLOCK of a handle. Only the opener may.

        Args:
            handle: u64
            flags: u64

        Raises:
            ServiceError: EBADF, EPERM.
        """
        if handle >> 64 or flags >> 64:
            raise TooBig("devmgr.set_flags: an argument is out of range")
        self._port.call(_OP_SET_FLAGS, (handle, flags), b"", 0, 0, True)

    def devices(self) -> bytes:
        """The registry: what devices there are, who drives them, and how often they are open.

        Returns:
            table: JSON: array of {name, kind, major, minor, driver, state, opens} (buffer <= 64 KiB)
        """
        _registers, _payload = self._port.call(_OP_DEVICES, (), b"", 1, 65536, True)
        if len(_registers) != 1 or _registers[0] > 65536 or _registers[0] != len(_payload):
            raise BadFrame("devmgr.devices: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)


class DevmgrServer(abc.ABC):
    """Serves `devmgr`: implement the abstract methods, hand `handlers()` to the runtime.

    An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.
    """

    @abc.abstractmethod
    def open(self, caller: Caller, client: int, rdev: int, flags: int) -> int:
        """Open a device for a client. Only the service named by the option `opener` (`fs`) may. ENXIO: no
        such device; ENODEV: the composition does not have it. A handle goes with its client at the
        latest.

        Args:
            client: who may use the handle (u64)
            rdev: 1:3 null, 1:5 zero, 1:7 full, 1:8 random, 1:9 urandom, 5:0 tty, 5:1 console (u64)
            flags: O_RDONLY, O_WRONLY or O_RDWR; O_NONBLOCK; others mean nothing here (u64)

        Returns:
            handle: never 0, and never used again for another (u64)

        Raises:
            ServiceError: EINVAL, EMFILE, ENFILE, ENODEV, ENXIO, EPERM.
        """

    @abc.abstractmethod
    def release(self, caller: Caller, handle: int) -> None:
        """Close a handle; one that is closed stays so. Only the opener may.

        Args:
            handle: u64

        Raises:
            ServiceError: EPERM.
        """

    @abc.abstractmethod
    def read(self, caller: Caller, request: int, handle: int, size: int) -> Payload:
        """Read from a device. No data: the end of a file. EAGAIN: it was opened with O_NONBLOCK, and there
        is nothing yet.

        Args:
            request: number of this request, see docs/files.md (u64)
            handle: u64
            size: bytes wanted at most; more than 16 MiB count as 16 MiB (u64)

        Returns:
            data: buffer <= 16 MiB

        Raises:
            ServiceError: EAGAIN, EBADF.
        """

    @abc.abstractmethod
    def write(self, caller: Caller, request: int, handle: int, data: memoryview) -> int:
        """Write to a device. EAGAIN: it was opened with O_NONBLOCK, and takes nothing now.

        `data` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            request: number of this request, see docs/files.md (u64)
            handle: u64
            data: buffer <= 16 MiB

        Returns:
            written: of a terminal possibly fewer than given, at least 1 (u64)

        Raises:
            ServiceError: EAGAIN, EBADF, ENOSPC.
        """

    @abc.abstractmethod
    def control(
        self,
        caller: Caller,
        request: int,
        handle: int,
        command: int,
        argument: bytes,
    ) -> ControlResult:
        """Control a device (ioctl). A terminal has TCGETS, TCSETS, TCSETSW, TCSETSF, TCFLSH, TIOCGWINSZ,
        TIOCSWINSZ, TIOCGPGRP, TIOCSPGRP and FIONREAD; all else is ENOTTY. A process group is a process
        here: one that the caller may signal (EPERM).

        Args:
            request: number of this request, see docs/files.md (u64)
            handle: u64
            command: u64
            argument: what the third argument points to; of TCFLSH, itself (i32) (bytes <= 256 bytes)

        Raises:
            ServiceError: EBADF, EINVAL, ENOTTY, EPERM, ESRCH.
        """

    @abc.abstractmethod
    def poll(self, caller: Caller, handle: int, events: int) -> int:
        """Tell for what a device is ready.

        Args:
            handle: u64
            events: POLL flags of Linux (u64)

        Returns:
            ready: those of the events that hold, and POLLHUP (u64)

        Raises:
            ServiceError: EBADF.
        """

    @abc.abstractmethod
    def wait_ready(self, caller: Caller, handle: int, events: int) -> int:
        """Wait until a device is ready for one of the events, or hung up.

        Args:
            handle: u64
            events: POLL flags of Linux (u64)

        Returns:
            ready: as of `poll`, never 0 (u64)

        Raises:
            ServiceError: EBADF.
        """

    @abc.abstractmethod
    def set_flags(self, caller: Caller, handle: int, flags: int) -> None:
        """Set or clear O_NONBLOCK of a handle. Only the opener may.

        Args:
            handle: u64
            flags: u64

        Raises:
            ServiceError: EBADF, EPERM.
        """

    @abc.abstractmethod
    def devices(self, caller: Caller) -> Payload:
        """The registry: what devices there are, who drives them, and how often they are open.

        Returns:
            table: JSON: array of {name, kind, major, minor, driver, state, opens} (buffer <= 64 KiB)
        """

    def handlers(self) -> HandlerTable:
        """Operation number to the function that decodes a call, runs it and encodes its result."""
        return {
            _OP_OPEN: self._serve_open,
            _OP_RELEASE: self._serve_release,
            _OP_READ: self._serve_read,
            _OP_WRITE: self._serve_write,
            _OP_CONTROL: self._serve_control,
            _OP_POLL: self._serve_poll,
            _OP_WAIT_READY: self._serve_wait_ready,
            _OP_SET_FLAGS: self._serve_set_flags,
            _OP_DEVICES: self._serve_devices,
        }

    def _serve_open(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or len(payload):
            raise BadFrame("devmgr.open: malformed call")
        try:
            result = self.open(caller, registers[0], registers[1], registers[2])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_OPEN, error)
            raise
        if result >> 64:
            raise TooBig("devmgr.open: a result is out of range")
        return (result,), b""

    def _serve_release(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("devmgr.release: malformed call")
        try:
            self.release(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_RELEASE, error)
            raise
        return EMPTY

    def _serve_read(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or len(payload):
            raise BadFrame("devmgr.read: malformed call")
        try:
            result = self.read(caller, registers[0], registers[1], registers[2])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_READ, error)
            raise
        data_ = result if result.__class__ is _Bytes else _flat(result)
        if len(data_) > 16777216:
            raise TooBig("devmgr.read: a result is out of range")
        return (len(data_),), data_

    def _serve_write(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[2] > 16777216 or registers[2] != len(payload):
            raise BadFrame("devmgr.write: malformed call")
        try:
            result = self.write(
                caller,
                registers[0],
                registers[1],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_WRITE, error)
            raise
        if result >> 64:
            raise TooBig("devmgr.write: a result is out of range")
        return (result,), b""

    def _serve_control(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or registers[3] > 256 or registers[3] != len(payload):
            raise BadFrame("devmgr.control: malformed call")
        try:
            result = self.control(
                caller,
                registers[0],
                registers[1],
                registers[2],
                payload if payload.__class__ is _Bytes else _copied(payload),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CONTROL, error)
            raise
        if not -SIGN_BIT <= result.result < SIGN_BIT or len(result.data) > 256:
            raise TooBig("devmgr.control: a result is out of range")
        return (result.result & U64_MAX, len(result.data)), result.data

    def _serve_poll(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("devmgr.poll: malformed call")
        try:
            result = self.poll(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_POLL, error)
            raise
        if result >> 64:
            raise TooBig("devmgr.poll: a result is out of range")
        return (result,), b""

    def _serve_wait_ready(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("devmgr.wait_ready: malformed call")
        try:
            result = self.wait_ready(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_WAIT_READY, error)
            raise
        if result >> 64:
            raise TooBig("devmgr.wait_ready: a result is out of range")
        return (result,), b""

    def _serve_set_flags(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("devmgr.set_flags: malformed call")
        try:
            self.set_flags(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SET_FLAGS, error)
            raise
        return EMPTY

    def _serve_devices(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("devmgr.devices: malformed call")
        try:
            result = self.devices(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_DEVICES, error)
            raise
        table_ = result if result.__class__ is _Bytes else _flat(result)
        if len(table_) > 65536:
            raise TooBig("devmgr.devices: a result is out of range")
        return (len(table_),), table_
