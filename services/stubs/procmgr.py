"""The process manager: the table of processes and threads, their life and death, and their resource
limits.

Generated from services/interfaces/procmgr.toml by `python -m services.generate`: edit that file.
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

_OP_SPAWN: Final = 1
_OP_EXIT: Final = 2
_OP_WAIT: Final = 3
_OP_KILL: Final = 4
_OP_GETPID: Final = 5
_OP_INFO: Final = 6
_OP_LIST: Final = 7
_OP_THREAD_CREATE: Final = 8
_OP_THREAD_EXIT: Final = 9
_OP_GET_LIMIT: Final = 10
_OP_SET_LIMIT: Final = 11


class ProcmgrOperation(enum.IntEnum):
    """Operation numbers of `procmgr`."""

    SPAWN = 1
    EXIT = 2
    WAIT = 3
    KILL = 4
    GETPID = 5
    INFO = 6
    LIST = 7
    THREAD_CREATE = 8
    THREAD_EXIT = 9
    GET_LIMIT = 10
    SET_LIMIT = 11


INTERFACE: Final = InterfaceInfo(
    "procmgr",
    {
        _OP_SPAWN: OperationInfo(
            "spawn",
            False,
            False,
            frozenset({
                errno.E2BIG,
                errno.EACCES,
                errno.EAGAIN,
                errno.EINVAL,
                errno.ENOENT,
                errno.ENOEXEC,
                errno.ENOMEM,
                errno.ENOTDIR,
                errno.EPERM,
            }),
        ),
        _OP_EXIT: OperationInfo("exit", False, False, frozenset({errno.EINVAL, errno.ESRCH})),
        _OP_WAIT: OperationInfo("wait", False, True, frozenset({errno.ECHILD, errno.ESRCH})),
        _OP_KILL: OperationInfo("kill", False, False, frozenset({errno.EINVAL, errno.EPERM, errno.ESRCH})),
        _OP_GETPID: OperationInfo("getpid", True, False, frozenset({errno.ESRCH})),
        _OP_INFO: OperationInfo("info", True, False, frozenset({errno.EPERM, errno.ESRCH})),
        _OP_LIST: OperationInfo("list", True, False, frozenset()),
        _OP_THREAD_CREATE: OperationInfo(
            "thread_create",
            False,
            False,
            frozenset({errno.EAGAIN, errno.EINVAL, errno.ESRCH}),
        ),
        _OP_THREAD_EXIT: OperationInfo("thread_exit", False, False, frozenset({errno.ESRCH})),
        _OP_GET_LIMIT: OperationInfo(
            "get_limit",
            True,
            False,
            frozenset({errno.EINVAL, errno.EPERM, errno.ESRCH}),
        ),
        _OP_SET_LIMIT: OperationInfo(
            "set_limit",
            False,
            False,
            frozenset({errno.EINVAL, errno.EPERM, errno.ESRCH}),
        ),
    },
)


class GetLimitResult(NamedTuple):
    """What `get_limit` returns.

    Attributes:
        soft: 2**64-1 for none (u64)
        hard: 2**64-1 for none (u64)
    """

    soft: int
    hard: int


class ProcmgrClient:
    """Calls `procmgr` through a port; every method may also raise a `CallError`."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def spawn(self, spec: Payload) -> int:
        """Start a process, a child of the caller.

        Args:
            spec: JSON object: argv, env, cwd (buffer <= 64 KiB)

        Returns:
            pid: u64

        Raises:
            ServiceError: E2BIG, EACCES, EAGAIN, EINVAL, ENOENT, ENOEXEC, ENOMEM, ENOTDIR, EPERM.
        """
        spec_ = spec if spec.__class__ is _Bytes else _flat(spec)
        if len(spec_) > 65536:
            raise TooBig("procmgr.spawn: an argument is out of range")
        _registers, _payload = self._port.call(_OP_SPAWN, (len(spec_),), spec_, 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("procmgr.spawn: malformed reply")
        return _registers[0]

    def exit(self, status: int) -> None:
        """Record that the calling process ends, and how; its parent's `wait` returns.

        Args:
            status: exit status, 0 to 255 (u64)

        Raises:
            ServiceError: EINVAL, ESRCH.
        """
        if status >> 64:
            raise TooBig("procmgr.exit: an argument is out of range")
        self._port.call(_OP_EXIT, (status,))

    def wait(self, pid: int) -> int:
        """Wait for a child to end, and forget it. ECHILD: the caller has no such child.

        Args:
            pid: u64

        Returns:
            status: exit status, or minus the signal that ended it (i64)

        Raises:
            ServiceError: ECHILD, ESRCH.
        """
        if pid >> 64:
            raise TooBig("procmgr.wait: an argument is out of range")
        _registers, _payload = self._port.call(_OP_WAIT, (pid,), b"", 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("procmgr.wait: malformed reply")
        return (_registers[0] ^ SIGN_BIT) - SIGN_BIT

    def kill(self, pid: int, signal: int) -> None:
        """Send a signal to a process.

        Args:
            pid: u64
            signal: signal number; 0 only checks that it could be sent (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """
        if pid >> 64 or signal >> 64:
            raise TooBig("procmgr.kill: an argument is out of range")
        self._port.call(_OP_KILL, (pid, signal))

    def getpid(self) -> int:
        """Return the caller's process id in hmk's process table.

        Returns:
            pid: u64

        Raises:
            ServiceError: ESRCH.
        """
        _registers, _payload = self._port.call(_OP_GETPID, (), b"", 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("procmgr.getpid: malformed reply")
        return _registers[0]

    def info(self, pid: int) -> bytes:
        """Describe a process.

        Args:
            pid: u64

        Returns:
            record: JSON object (buffer <= 64 KiB)

        Raises:
            ServiceError: EPERM, ESRCH.
        """
        if pid >> 64:
            raise TooBig("procmgr.info: an argument is out of range")
        _registers, _payload = self._port.call(_OP_INFO, (pid,), b"", 1, 65536, True)
        if len(_registers) != 1 or _registers[0] > 65536 or _registers[0] != len(_payload):
            raise BadFrame("procmgr.info: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def list(self) -> bytes:
        """List the processes.

        Returns:
            pids: JSON array of process ids, ascending (buffer <= 1 MiB)
        """
        _registers, _payload = self._port.call(_OP_LIST, (), b"", 1, 1048576, True)
        if len(_registers) != 1 or _registers[0] > 1048576 or _registers[0] != len(_payload):
            raise BadFrame("procmgr.list: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def thread_create(self, name: str) -> int:
        """Register a thread of the calling process.

        Args:
            name: for people; need not be unique (str <= 64 bytes)

        Returns:
            tid: u64

        Raises:
            ServiceError: EAGAIN, EINVAL, ESRCH.
        """
        name_ = name.encode()
        if len(name_) > 64:
            raise TooBig("procmgr.thread_create: an argument is out of range")
        _registers, _payload = self._port.call(_OP_THREAD_CREATE, (len(name_),), name_, 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("procmgr.thread_create: malformed reply")
        return _registers[0]

    def thread_exit(self, tid: int) -> None:
        """Record that a thread of the calling process has ended.

        Args:
            tid: u64

        Raises:
            ServiceError: ESRCH.
        """
        if tid >> 64:
            raise TooBig("procmgr.thread_exit: an argument is out of range")
        self._port.call(_OP_THREAD_EXIT, (tid,))

    def get_limit(self, pid: int, kind: int) -> GetLimitResult:
        """Read a resource limit of a process.

        Args:
            pid: u64
            kind: the host's RLIMIT number (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """
        if pid >> 64 or kind >> 64:
            raise TooBig("procmgr.get_limit: an argument is out of range")
        _registers, _payload = self._port.call(_OP_GET_LIMIT, (pid, kind), b"", 2, 0, True)
        if len(_registers) != 2 or len(_payload):
            raise BadFrame("procmgr.get_limit: malformed reply")
        return GetLimitResult(_registers[0], _registers[1])

    def set_limit(self, pid: int, kind: int, soft: int, hard: int) -> None:
        """Set a resource limit of a process; the hard limit can only be lowered.

        Args:
            pid: u64
            kind: the host's RLIMIT number (u64)
            soft: 2**64-1 for none (u64)
            hard: 2**64-1 for none (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """
        if pid >> 64 or kind >> 64 or soft >> 64 or hard >> 64:
            raise TooBig("procmgr.set_limit: an argument is out of range")
        self._port.call(_OP_SET_LIMIT, (pid, kind, soft, hard))


class ProcmgrServer(abc.ABC):
    """Serves `procmgr`: implement the abstract methods, hand `handlers()` to the runtime.

    An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.
    """

    @abc.abstractmethod
    def spawn(self, caller: Caller, spec: memoryview) -> int:
        """Start a process, a child of the caller.

        `spec` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            spec: JSON object: argv, env, cwd (buffer <= 64 KiB)

        Returns:
            pid: u64

        Raises:
            ServiceError: E2BIG, EACCES, EAGAIN, EINVAL, ENOENT, ENOEXEC, ENOMEM, ENOTDIR, EPERM.
        """

    @abc.abstractmethod
    def exit(self, caller: Caller, status: int) -> None:
        """Record that the calling process ends, and how; its parent's `wait` returns.

        Args:
            status: exit status, 0 to 255 (u64)

        Raises:
            ServiceError: EINVAL, ESRCH.
        """

    @abc.abstractmethod
    def wait(self, caller: Caller, pid: int) -> int:
        """Wait for a child to end, and forget it. ECHILD: the caller has no such child.

        Args:
            pid: u64

        Returns:
            status: exit status, or minus the signal that ended it (i64)

        Raises:
            ServiceError: ECHILD, ESRCH.
        """

    @abc.abstractmethod
    def kill(self, caller: Caller, pid: int, signal: int) -> None:
        """Send a signal to a process.

        Args:
            pid: u64
            signal: signal number; 0 only checks that it could be sent (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """

    @abc.abstractmethod
    def getpid(self, caller: Caller) -> int:
        """Return the caller's process id in hmk's process table.

        Returns:
            pid: u64

        Raises:
            ServiceError: ESRCH.
        """

    @abc.abstractmethod
    def info(self, caller: Caller, pid: int) -> Payload:
        """Describe a process.

        Args:
            pid: u64

        Returns:
            record: JSON object (buffer <= 64 KiB)

        Raises:
            ServiceError: EPERM, ESRCH.
        """

    @abc.abstractmethod
    def list(self, caller: Caller) -> Payload:
        """List the processes.

        Returns:
            pids: JSON array of process ids, ascending (buffer <= 1 MiB)
        """

    @abc.abstractmethod
    def thread_create(self, caller: Caller, name: str) -> int:
        """Register a thread of the calling process.

        Args:
            name: for people; need not be unique (str <= 64 bytes)

        Returns:
            tid: u64

        Raises:
            ServiceError: EAGAIN, EINVAL, ESRCH.
        """

    @abc.abstractmethod
    def thread_exit(self, caller: Caller, tid: int) -> None:
        """Record that a thread of the calling process has ended.

        Args:
            tid: u64

        Raises:
            ServiceError: ESRCH.
        """

    @abc.abstractmethod
    def get_limit(self, caller: Caller, pid: int, kind: int) -> GetLimitResult:
        """Read a resource limit of a process.

        Args:
            pid: u64
            kind: the host's RLIMIT number (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """

    @abc.abstractmethod
    def set_limit(self, caller: Caller, pid: int, kind: int, soft: int, hard: int) -> None:
        """Set a resource limit of a process; the hard limit can only be lowered.

        Args:
            pid: u64
            kind: the host's RLIMIT number (u64)
            soft: 2**64-1 for none (u64)
            hard: 2**64-1 for none (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """

    def handlers(self) -> HandlerTable:
        """Operation number to the function that decodes a call, runs it and encodes its result."""
        return {
            _OP_SPAWN: self._serve_spawn,
            _OP_EXIT: self._serve_exit,
            _OP_WAIT: self._serve_wait,
            _OP_KILL: self._serve_kill,
            _OP_GETPID: self._serve_getpid,
            _OP_INFO: self._serve_info,
            _OP_LIST: self._serve_list,
            _OP_THREAD_CREATE: self._serve_thread_create,
            _OP_THREAD_EXIT: self._serve_thread_exit,
            _OP_GET_LIMIT: self._serve_get_limit,
            _OP_SET_LIMIT: self._serve_set_limit,
        }

    def _serve_spawn(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or registers[0] > 65536 or registers[0] != len(payload):
            raise BadFrame("procmgr.spawn: malformed call")
        try:
            result = self.spawn(
                caller,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SPAWN, error)
            raise
        if result >> 64:
            raise TooBig("procmgr.spawn: a result is out of range")
        return (result,), b""

    def _serve_exit(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("procmgr.exit: malformed call")
        try:
            self.exit(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_EXIT, error)
            raise
        return EMPTY

    def _serve_wait(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("procmgr.wait: malformed call")
        try:
            result = self.wait(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_WAIT, error)
            raise
        if not -SIGN_BIT <= result < SIGN_BIT:
            raise TooBig("procmgr.wait: a result is out of range")
        return (result & U64_MAX,), b""

    def _serve_kill(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("procmgr.kill: malformed call")
        try:
            self.kill(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_KILL, error)
            raise
        return EMPTY

    def _serve_getpid(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("procmgr.getpid: malformed call")
        try:
            result = self.getpid(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_GETPID, error)
            raise
        if result >> 64:
            raise TooBig("procmgr.getpid: a result is out of range")
        return (result,), b""

    def _serve_info(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("procmgr.info: malformed call")
        try:
            result = self.info(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_INFO, error)
            raise
        record_ = result if result.__class__ is _Bytes else _flat(result)
        if len(record_) > 65536:
            raise TooBig("procmgr.info: a result is out of range")
        return (len(record_),), record_

    def _serve_list(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("procmgr.list: malformed call")
        try:
            result = self.list(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_LIST, error)
            raise
        pids_ = result if result.__class__ is _Bytes else _flat(result)
        if len(pids_) > 1048576:
            raise TooBig("procmgr.list: a result is out of range")
        return (len(pids_),), pids_

    def _serve_thread_create(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or registers[0] > 64 or registers[0] != len(payload):
            raise BadFrame("procmgr.thread_create: malformed call")
        try:
            result = self.thread_create(caller, _text(payload))
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_THREAD_CREATE, error)
            raise
        if result >> 64:
            raise TooBig("procmgr.thread_create: a result is out of range")
        return (result,), b""

    def _serve_thread_exit(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("procmgr.thread_exit: malformed call")
        try:
            self.thread_exit(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_THREAD_EXIT, error)
            raise
        return EMPTY

    def _serve_get_limit(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("procmgr.get_limit: malformed call")
        try:
            result = self.get_limit(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_GET_LIMIT, error)
            raise
        if result.soft >> 64 or result.hard >> 64:
            raise TooBig("procmgr.get_limit: a result is out of range")
        return (result.soft, result.hard), b""

    def _serve_set_limit(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or len(payload):
            raise BadFrame("procmgr.set_limit: malformed call")
        try:
            self.set_limit(caller, registers[0], registers[1], registers[2], registers[3])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SET_LIMIT, error)
            raise
        return EMPTY
