"""The core kernel itself, callable like a service: timers, the serial console, checked writes to address
tokens, and the privileged operations by which the process and memory managers carry out their policies.

An operation that only one service may call refuses everyone else with EPERM, whatever its arguments
say.

Generated from services/interfaces/core.toml by `python -m services.generate`: edit that file.
"""

from __future__ import annotations

import abc
import enum
import errno
from typing import Final, NamedTuple

from corekernel.errors import BadFrame, ServiceError, TooBig, WouldWait
from corekernel.interface import EMPTY, InterfaceInfo, OperationInfo
from corekernel.interface import Bytes as _Bytes
from corekernel.interface import copied as _copied
from corekernel.interface import flat as _flat
from corekernel.port import Caller, HandlerTable, Payload, Port, Registers, Reply

_OP_SLEEP_UNTIL: Final = 1
_OP_TIMER_CREATE: Final = 2
_OP_TIMER_WAIT: Final = 3
_OP_TIMER_DELETE: Final = 4
_OP_SERIAL_WRITE: Final = 5
_OP_SERIAL_READ: Final = 6
_OP_TOKEN_WRITE: Final = 7
_OP_SPAWN: Final = 8
_OP_SIGNAL: Final = 9
_OP_SET_LIMIT: Final = 10
_OP_POOLS: Final = 11
_OP_UNBIND_IDLE: Final = 12
_OP_SET_RLIMIT: Final = 13
_OP_USAGE: Final = 14
_OP_CONSOLE_WRITE: Final = 15


class CoreOperation(enum.IntEnum):
    """Operation numbers of `core`."""

    SLEEP_UNTIL = 1
    TIMER_CREATE = 2
    TIMER_WAIT = 3
    TIMER_DELETE = 4
    SERIAL_WRITE = 5
    SERIAL_READ = 6
    TOKEN_WRITE = 7
    SPAWN = 8
    SIGNAL = 9
    SET_LIMIT = 10
    POOLS = 11
    UNBIND_IDLE = 12
    SET_RLIMIT = 13
    USAGE = 14
    CONSOLE_WRITE = 15


INTERFACE: Final = InterfaceInfo(
    "core",
    {
        _OP_SLEEP_UNTIL: OperationInfo("sleep_until", True, True, frozenset()),
        _OP_TIMER_CREATE: OperationInfo(
            "timer_create",
            False,
            False,
            frozenset({errno.EAGAIN, errno.EINVAL}),
        ),
        _OP_TIMER_WAIT: OperationInfo("timer_wait", False, True, frozenset({errno.EINVAL})),
        _OP_TIMER_DELETE: OperationInfo("timer_delete", False, False, frozenset({errno.EINVAL})),
        _OP_SERIAL_WRITE: OperationInfo("serial_write", False, False, frozenset({errno.EIO})),
        _OP_SERIAL_READ: OperationInfo("serial_read", True, True, frozenset({errno.EINVAL, errno.EPERM})),
        _OP_TOKEN_WRITE: OperationInfo(
            "token_write",
            False,
            False,
            frozenset({errno.EINVAL, errno.ENOENT, errno.EPERM, errno.ERANGE}),
        ),
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
        _OP_SIGNAL: OperationInfo(
            "signal",
            False,
            False,
            frozenset({errno.EINVAL, errno.EPERM, errno.ESRCH}),
        ),
        _OP_SET_LIMIT: OperationInfo(
            "set_limit",
            False,
            False,
            frozenset({errno.EINVAL, errno.EPERM, errno.ESRCH}),
        ),
        _OP_POOLS: OperationInfo("pools", True, False, frozenset()),
        _OP_UNBIND_IDLE: OperationInfo("unbind_idle", False, False, frozenset({errno.ENOENT, errno.EPERM})),
        _OP_SET_RLIMIT: OperationInfo(
            "set_rlimit",
            False,
            False,
            frozenset({errno.EINVAL, errno.EPERM, errno.ESRCH}),
        ),
        _OP_USAGE: OperationInfo("usage", True, False, frozenset({errno.EPERM, errno.ESRCH})),
        _OP_CONSOLE_WRITE: OperationInfo(
            "console_write",
            True,
            False,
            frozenset({errno.EINVAL, errno.EPERM}),
        ),
    },
)


class SerialReadResult(NamedTuple):
    """What `serial_read` returns.

    Attributes:
        start: position of the first byte of the data (u64)
        window: size of the window: columns << 16 | rows; 0: not known (u64)
        ended: there is no data, and none will come (bool)
        data: bytes <= 3500 bytes
    """

    start: int
    window: int
    ended: bool
    data: bytes


class UsageResult(NamedTuple):
    """What `usage` returns.

    Attributes:
        buffers: bytes of shared buffers (u64)
        stacks: bytes of execution stacks bound to its threads (u64)
    """

    buffers: int
    stacks: int


class CoreClient:
    """Calls `core` through a port; every method may also raise a `CallError`."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def sleep_until(self, deadline_ns: int) -> None:
        """Return once the clock has reached a deadline; at once if it has passed.

        Args:
            deadline_ns: CLOCK_MONOTONIC, nanoseconds (u64)
        """
        if deadline_ns >> 64:
            raise TooBig("core.sleep_until: an argument is out of range")
        self._port.call(_OP_SLEEP_UNTIL, (deadline_ns,), b"", 0, 0, True)

    def timer_create(self, first_ns: int, period_ns: int) -> int:
        """Create a timer owned by the calling process. EAGAIN: it already has as many as it may.

        Args:
            first_ns: first expiration, CLOCK_MONOTONIC, nanoseconds (u64)
            period_ns: nanoseconds from one expiration to the next; 0 expires once (u64)

        Returns:
            timer: number of the timer, meaningful to its owner only (u64)

        Raises:
            ServiceError: EAGAIN, EINVAL.
        """
        if first_ns >> 64 or period_ns >> 64:
            raise TooBig("core.timer_create: an argument is out of range")
        _registers, _payload = self._port.call(_OP_TIMER_CREATE, (first_ns, period_ns), b"", 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("core.timer_create: malformed reply")
        return _registers[0]

    def timer_wait(self, timer: int) -> int:
        """Wait until a timer has expired since the last call of this operation. EINVAL: the caller has no
        such timer.

        Args:
            timer: u64

        Returns:
            expirations: how often it has expired since then, at least 1 (u64)

        Raises:
            ServiceError: EINVAL.
        """
        if timer >> 64:
            raise TooBig("core.timer_wait: an argument is out of range")
        _registers, _payload = self._port.call(_OP_TIMER_WAIT, (timer,), b"", 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("core.timer_wait: malformed reply")
        return _registers[0]

    def timer_delete(self, timer: int) -> None:
        """Delete a timer. EINVAL: the caller has no such timer.

        Args:
            timer: u64

        Raises:
            ServiceError: EINVAL.
        """
        if timer >> 64:
            raise TooBig("core.timer_delete: an argument is out of range")
        self._port.call(_OP_TIMER_DELETE, (timer,))

    def serial_write(self, data: Payload) -> int:
        """Write to the serial console.

        Args:
            data: buffer <= 64 KiB

        Returns:
            written: bytes taken, from the start of the data (u64)

        Raises:
            ServiceError: EIO.
        """
        data_ = data if data.__class__ is _Bytes else _flat(data)
        if len(data_) > 65536:
            raise TooBig("core.serial_write: an argument is out of range")
        _registers, _payload = self._port.call(_OP_SERIAL_WRITE, (len(data_),), data_, 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("core.serial_write: malformed reply")
        return _registers[0]

    def serial_read(self, position: int, limit: int, known: int) -> SerialReadResult:
        """Read what was typed at the serial console from a position on; what lies before it is forgotten,
        what is returned is kept until then. Waits until there is something, the window has changed, or
        the input has ended. Only the service that has the device `console` may. EINVAL: a read of
        nothing, or beyond what was typed.

        Args:
            position: bytes of input since the boot that the caller is done with (u64)
            limit: bytes wanted at most; more than 3500 counts as 3500 (u64)
            known: the window as the caller knows it: columns << 16 | rows (u64)

        Raises:
            ServiceError: EINVAL, EPERM.
        """
        if position >> 64 or limit >> 64 or known >> 64:
            raise TooBig("core.serial_read: an argument is out of range")
        _registers, _payload = self._port.call(_OP_SERIAL_READ, (position, limit, known), b"", 4, 3500, True)
        if (
            len(_registers) != 4
            or _registers[2] > 1
            or _registers[3] > 3500
            or _registers[3] != len(_payload)
        ):
            raise BadFrame("core.serial_read: malformed reply")
        return SerialReadResult(
            _registers[0],
            _registers[1],
            _registers[2] == 1,
            _payload if _payload.__class__ is _Bytes else _copied(_payload),
        )

    def token_write(self, object: int, offset: int, words: bytes) -> None:
        """Write to a kernel object that the caller holds a read-only token of. The core checks the grant
        (EPERM), the bounds (ERANGE) and the object's own invariant (EINVAL). ENOENT: no such object.

        Args:
            object: number of the object (u64)
            offset: bytes from its start, a multiple of 8 (u64)
            words: 64-bit little-endian words (bytes <= 2 KiB)

        Raises:
            ServiceError: EINVAL, ENOENT, EPERM, ERANGE.
        """
        if object >> 64 or offset >> 64 or len(words) > 2048:
            raise TooBig("core.token_write: an argument is out of range")
        self._port.call(_OP_TOKEN_WRITE, (object, offset, len(words)), words)

    def spawn(self, spec: Payload) -> int:
        """Start a host process for a new process of hmk. Only the process manager may.

        Args:
            spec: JSON object: argv, env, cwd (buffer <= 64 KiB)

        Returns:
            process: number of the client process (u64)

        Raises:
            ServiceError: E2BIG, EACCES, EAGAIN, EINVAL, ENOENT, ENOEXEC, ENOMEM, ENOTDIR, EPERM.
        """
        spec_ = spec if spec.__class__ is _Bytes else _flat(spec)
        if len(spec_) > 65536:
            raise TooBig("core.spawn: an argument is out of range")
        _registers, _payload = self._port.call(_OP_SPAWN, (len(spec_),), spec_, 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("core.spawn: malformed reply")
        return _registers[0]

    def signal(self, process: int, number: int) -> None:
        """Send a signal to a host process that `spawn` started. Only the process manager may.

        Args:
            process: number of the client process (u64)
            number: signal number; 0 only checks that the process exists (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """
        if process >> 64 or number >> 64:
            raise TooBig("core.signal: an argument is out of range")
        self._port.call(_OP_SIGNAL, (process, number))

    def set_limit(self, client: int, kind: int, value: int) -> None:
        """Set a resource limit that the core enforces on a client. Only the memory manager may.

        Args:
            client: u64
            kind: which resource (u64)
            value: the limit, in the resource's unit (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """
        if client >> 64 or kind >> 64 or value >> 64:
            raise TooBig("core.set_limit: an argument is out of range")
        self._port.call(_OP_SET_LIMIT, (client, kind, value))

    def pools(self) -> bytes:
        """Show the state of every service's stack pool.

        Returns:
            state: JSON (buffer <= 1 MiB)
        """
        _registers, _payload = self._port.call(_OP_POOLS, (), b"", 1, 1048576, True)
        if len(_registers) != 1 or _registers[0] > 1048576 or _registers[0] != len(_payload):
            raise BadFrame("core.pools: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def unbind_idle(self, service: int, count: int) -> int:
        """Take idle stacks back from the threads bound to them, least recently used first. Only the memory
        manager may.

        Args:
            service: number of the service whose stacks to take (u64)
            count: how many stacks are wanted (u64)

        Returns:
            freed: how many were taken, possibly fewer (u64)

        Raises:
            ServiceError: ENOENT, EPERM.
        """
        if service >> 64 or count >> 64:
            raise TooBig("core.unbind_idle: an argument is out of range")
        _registers, _payload = self._port.call(_OP_UNBIND_IDLE, (service, count), b"", 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("core.unbind_idle: malformed reply")
        return _registers[0]

    def set_rlimit(self, process: int, kind: int, soft: int, hard: int) -> None:
        """Set a host resource limit of a process that the core started. Only the process manager may.

        Args:
            process: u64
            kind: the host's RLIMIT number: 6 or 7 (u64)
            soft: 2**64-1 for none (u64)
            hard: 2**64-1 for none (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """
        if process >> 64 or kind >> 64 or soft >> 64 or hard >> 64:
            raise TooBig("core.set_rlimit: an argument is out of range")
        self._port.call(_OP_SET_RLIMIT, (process, kind, soft, hard))

    def usage(self, client: int) -> UsageResult:
        """Read what a client uses. Only the memory manager may.

        Args:
            client: u64

        Raises:
            ServiceError: EPERM, ESRCH.
        """
        if client >> 64:
            raise TooBig("core.usage: an argument is out of range")
        _registers, _payload = self._port.call(_OP_USAGE, (client,), b"", 2, 0, True)
        if len(_registers) != 2 or len(_payload):
            raise BadFrame("core.usage: malformed reply")
        return UsageResult(_registers[0], _registers[1])

    def console_write(self, position: int, data: Payload) -> None:
        """Write to the serial console so that a repetition writes nothing twice: what lies before the
        position that the console has reached is left out. Only the service that has the device
        `console` may. EINVAL: that would leave a gap.

        Args:
            position: bytes written by this operation since the boot, before these (u64)
            data: buffer <= 64 KiB

        Raises:
            ServiceError: EINVAL, EPERM.
        """
        data_ = data if data.__class__ is _Bytes else _flat(data)
        if position >> 64 or len(data_) > 65536:
            raise TooBig("core.console_write: an argument is out of range")
        self._port.call(_OP_CONSOLE_WRITE, (position, len(data_)), data_, 0, 0, True)


class CoreServer(abc.ABC):
    """Serves `core`: implement the abstract methods, hand `handlers()` to the runtime.

    An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.
    """

    @abc.abstractmethod
    def sleep_until(self, caller: Caller, deadline_ns: int) -> None:
        """Return once the clock has reached a deadline; at once if it has passed.

        Args:
            deadline_ns: CLOCK_MONOTONIC, nanoseconds (u64)
        """

    @abc.abstractmethod
    def timer_create(self, caller: Caller, first_ns: int, period_ns: int) -> int:
        """Create a timer owned by the calling process. EAGAIN: it already has as many as it may.

        Args:
            first_ns: first expiration, CLOCK_MONOTONIC, nanoseconds (u64)
            period_ns: nanoseconds from one expiration to the next; 0 expires once (u64)

        Returns:
            timer: number of the timer, meaningful to its owner only (u64)

        Raises:
            ServiceError: EAGAIN, EINVAL.
        """

    @abc.abstractmethod
    def timer_wait(self, caller: Caller, timer: int) -> int:
        """Wait until a timer has expired since the last call of this operation. EINVAL: the caller has no
        such timer.

        Args:
            timer: u64

        Returns:
            expirations: how often it has expired since then, at least 1 (u64)

        Raises:
            ServiceError: EINVAL.
        """

    @abc.abstractmethod
    def timer_delete(self, caller: Caller, timer: int) -> None:
        """Delete a timer. EINVAL: the caller has no such timer.

        Args:
            timer: u64

        Raises:
            ServiceError: EINVAL.
        """

    @abc.abstractmethod
    def serial_write(self, caller: Caller, data: memoryview) -> int:
        """Write to the serial console.

        `data` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            data: buffer <= 64 KiB

        Returns:
            written: bytes taken, from the start of the data (u64)

        Raises:
            ServiceError: EIO.
        """

    @abc.abstractmethod
    def serial_read(self, caller: Caller, position: int, limit: int, known: int) -> SerialReadResult:
        """Read what was typed at the serial console from a position on; what lies before it is forgotten,
        what is returned is kept until then. Waits until there is something, the window has changed, or
        the input has ended. Only the service that has the device `console` may. EINVAL: a read of
        nothing, or beyond what was typed.

        Args:
            position: bytes of input since the boot that the caller is done with (u64)
            limit: bytes wanted at most; more than 3500 counts as 3500 (u64)
            known: the window as the caller knows it: columns << 16 | rows (u64)

        Raises:
            ServiceError: EINVAL, EPERM.
        """

    @abc.abstractmethod
    def token_write(self, caller: Caller, object: int, offset: int, words: bytes) -> None:
        """Write to a kernel object that the caller holds a read-only token of. The core checks the grant
        (EPERM), the bounds (ERANGE) and the object's own invariant (EINVAL). ENOENT: no such object.

        Args:
            object: number of the object (u64)
            offset: bytes from its start, a multiple of 8 (u64)
            words: 64-bit little-endian words (bytes <= 2 KiB)

        Raises:
            ServiceError: EINVAL, ENOENT, EPERM, ERANGE.
        """

    @abc.abstractmethod
    def spawn(self, caller: Caller, spec: memoryview) -> int:
        """Start a host process for a new process of hmk. Only the process manager may.

        `spec` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            spec: JSON object: argv, env, cwd (buffer <= 64 KiB)

        Returns:
            process: number of the client process (u64)

        Raises:
            ServiceError: E2BIG, EACCES, EAGAIN, EINVAL, ENOENT, ENOEXEC, ENOMEM, ENOTDIR, EPERM.
        """

    @abc.abstractmethod
    def signal(self, caller: Caller, process: int, number: int) -> None:
        """Send a signal to a host process that `spawn` started. Only the process manager may.

        Args:
            process: number of the client process (u64)
            number: signal number; 0 only checks that the process exists (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """

    @abc.abstractmethod
    def set_limit(self, caller: Caller, client: int, kind: int, value: int) -> None:
        """Set a resource limit that the core enforces on a client. Only the memory manager may.

        Args:
            client: u64
            kind: which resource (u64)
            value: the limit, in the resource's unit (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """

    @abc.abstractmethod
    def pools(self, caller: Caller) -> Payload:
        """Show the state of every service's stack pool.

        Returns:
            state: JSON (buffer <= 1 MiB)
        """

    @abc.abstractmethod
    def unbind_idle(self, caller: Caller, service: int, count: int) -> int:
        """Take idle stacks back from the threads bound to them, least recently used first. Only the memory
        manager may.

        Args:
            service: number of the service whose stacks to take (u64)
            count: how many stacks are wanted (u64)

        Returns:
            freed: how many were taken, possibly fewer (u64)

        Raises:
            ServiceError: ENOENT, EPERM.
        """

    @abc.abstractmethod
    def set_rlimit(self, caller: Caller, process: int, kind: int, soft: int, hard: int) -> None:
        """Set a host resource limit of a process that the core started. Only the process manager may.

        Args:
            process: u64
            kind: the host's RLIMIT number: 6 or 7 (u64)
            soft: 2**64-1 for none (u64)
            hard: 2**64-1 for none (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """

    @abc.abstractmethod
    def usage(self, caller: Caller, client: int) -> UsageResult:
        """Read what a client uses. Only the memory manager may.

        Args:
            client: u64

        Raises:
            ServiceError: EPERM, ESRCH.
        """

    @abc.abstractmethod
    def console_write(self, caller: Caller, position: int, data: memoryview) -> None:
        """Write to the serial console so that a repetition writes nothing twice: what lies before the
        position that the console has reached is left out. Only the service that has the device
        `console` may. EINVAL: that would leave a gap.

        `data` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            position: bytes written by this operation since the boot, before these (u64)
            data: buffer <= 64 KiB

        Raises:
            ServiceError: EINVAL, EPERM.
        """

    def handlers(self) -> HandlerTable:
        """Operation number to the function that decodes a call, runs it and encodes its result."""
        return {
            _OP_SLEEP_UNTIL: self._serve_sleep_until,
            _OP_TIMER_CREATE: self._serve_timer_create,
            _OP_TIMER_WAIT: self._serve_timer_wait,
            _OP_TIMER_DELETE: self._serve_timer_delete,
            _OP_SERIAL_WRITE: self._serve_serial_write,
            _OP_SERIAL_READ: self._serve_serial_read,
            _OP_TOKEN_WRITE: self._serve_token_write,
            _OP_SPAWN: self._serve_spawn,
            _OP_SIGNAL: self._serve_signal,
            _OP_SET_LIMIT: self._serve_set_limit,
            _OP_POOLS: self._serve_pools,
            _OP_UNBIND_IDLE: self._serve_unbind_idle,
            _OP_SET_RLIMIT: self._serve_set_rlimit,
            _OP_USAGE: self._serve_usage,
            _OP_CONSOLE_WRITE: self._serve_console_write,
        }

    def _serve_sleep_until(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("core.sleep_until: malformed call")
        try:
            self.sleep_until(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SLEEP_UNTIL, error)
            raise
        return EMPTY

    def _serve_timer_create(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("core.timer_create: malformed call")
        try:
            result = self.timer_create(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_TIMER_CREATE, error)
            raise
        if result >> 64:
            raise TooBig("core.timer_create: a result is out of range")
        return (result,), b""

    def _serve_timer_wait(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("core.timer_wait: malformed call")
        try:
            result = self.timer_wait(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_TIMER_WAIT, error)
            raise
        if result >> 64:
            raise TooBig("core.timer_wait: a result is out of range")
        return (result,), b""

    def _serve_timer_delete(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("core.timer_delete: malformed call")
        try:
            self.timer_delete(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_TIMER_DELETE, error)
            raise
        return EMPTY

    def _serve_serial_write(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or registers[0] > 65536 or registers[0] != len(payload):
            raise BadFrame("core.serial_write: malformed call")
        try:
            result = self.serial_write(
                caller,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SERIAL_WRITE, error)
            raise
        if result >> 64:
            raise TooBig("core.serial_write: a result is out of range")
        return (result,), b""

    def _serve_serial_read(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or len(payload):
            raise BadFrame("core.serial_read: malformed call")
        try:
            result = self.serial_read(caller, registers[0], registers[1], registers[2])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SERIAL_READ, error)
            raise
        if result.start >> 64 or result.window >> 64 or len(result.data) > 3500:
            raise TooBig("core.serial_read: a result is out of range")
        return (result.start, result.window, 1 if result.ended else 0, len(result.data)), result.data

    def _serve_token_write(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or registers[2] > 2048 or registers[2] != len(payload):
            raise BadFrame("core.token_write: malformed call")
        try:
            self.token_write(
                caller,
                registers[0],
                registers[1],
                payload if payload.__class__ is _Bytes else _copied(payload),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_TOKEN_WRITE, error)
            raise
        return EMPTY

    def _serve_spawn(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or registers[0] > 65536 or registers[0] != len(payload):
            raise BadFrame("core.spawn: malformed call")
        try:
            result = self.spawn(
                caller,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SPAWN, error)
            raise
        if result >> 64:
            raise TooBig("core.spawn: a result is out of range")
        return (result,), b""

    def _serve_signal(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("core.signal: malformed call")
        try:
            self.signal(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SIGNAL, error)
            raise
        return EMPTY

    def _serve_set_limit(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 3 or len(payload):
            raise BadFrame("core.set_limit: malformed call")
        try:
            self.set_limit(caller, registers[0], registers[1], registers[2])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SET_LIMIT, error)
            raise
        return EMPTY

    def _serve_pools(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("core.pools: malformed call")
        try:
            result = self.pools(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_POOLS, error)
            raise
        state_ = result if result.__class__ is _Bytes else _flat(result)
        if len(state_) > 1048576:
            raise TooBig("core.pools: a result is out of range")
        return (len(state_),), state_

    def _serve_unbind_idle(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("core.unbind_idle: malformed call")
        try:
            result = self.unbind_idle(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_UNBIND_IDLE, error)
            raise
        if result >> 64:
            raise TooBig("core.unbind_idle: a result is out of range")
        return (result,), b""

    def _serve_set_rlimit(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 4 or len(payload):
            raise BadFrame("core.set_rlimit: malformed call")
        try:
            self.set_rlimit(caller, registers[0], registers[1], registers[2], registers[3])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_SET_RLIMIT, error)
            raise
        return EMPTY

    def _serve_usage(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("core.usage: malformed call")
        try:
            result = self.usage(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_USAGE, error)
            raise
        if result.buffers >> 64 or result.stacks >> 64:
            raise TooBig("core.usage: a result is out of range")
        return (result.buffers, result.stacks), b""

    def _serve_console_write(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or registers[1] > 65536 or registers[1] != len(payload):
            raise BadFrame("core.console_write: malformed call")
        try:
            self.console_write(
                caller,
                registers[0],
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CONSOLE_WRITE, error)
            raise
        return EMPTY
