"""What benchmarks and fault tests call: operations that measure one thing, or go wrong in one way.

Generated from services/interfaces/bench_echo.toml by `python -m services.generate`: edit that file.
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

_OP_NULL: Final = 1
_OP_ECHO: Final = 2
_OP_CHAIN: Final = 3
_OP_WORK: Final = 4
_OP_BLOCK: Final = 5
_OP_RELEASE: Final = 6
_OP_CRASH: Final = 7
_OP_FAIL: Final = 8
_OP_RECURSE: Final = 9
_OP_HOG: Final = 10
_OP_WHOAMI: Final = 11


class BenchEchoOperation(enum.IntEnum):
    """Operation numbers of `bench_echo`."""

    NULL = 1
    ECHO = 2
    CHAIN = 3
    WORK = 4
    BLOCK = 5
    RELEASE = 6
    CRASH = 7
    FAIL = 8
    RECURSE = 9
    HOG = 10
    WHOAMI = 11


INTERFACE: Final = InterfaceInfo(
    "bench_echo",
    {
        _OP_NULL: OperationInfo("null", True, False, frozenset()),
        _OP_ECHO: OperationInfo("echo", True, False, frozenset()),
        _OP_CHAIN: OperationInfo("chain", False, False, frozenset()),
        _OP_WORK: OperationInfo("work", False, False, frozenset()),
        _OP_BLOCK: OperationInfo("block", False, True, frozenset()),
        _OP_RELEASE: OperationInfo("release", False, False, frozenset()),
        _OP_CRASH: OperationInfo("crash", False, False, frozenset()),
        _OP_FAIL: OperationInfo("fail", False, False, frozenset()),
        _OP_RECURSE: OperationInfo("recurse", False, False, frozenset()),
        _OP_HOG: OperationInfo("hog", False, False, frozenset()),
        _OP_WHOAMI: OperationInfo("whoami", True, False, frozenset()),
    },
)


class WhoamiResult(NamedTuple):
    """What `whoami` returns.

    Attributes:
        client: number of the client process (u64)
        uid: its host user id (u64)
    """

    client: int
    uid: int


class BenchEchoClient:
    """Calls `bench_echo` through a port; every method may also raise a `CallError`."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def null(self) -> None:
        """Do nothing: the cost of a call that reaches a handler."""
        self._port.call(_OP_NULL, (), b"", 0, 0, True)

    def echo(self, data: Payload) -> bytes:
        """Return the argument.

        Args:
            data: buffer <= 16 MiB

        Returns:
            data: buffer <= 16 MiB
        """
        data_ = data if data.__class__ is _Bytes else _flat(data)
        if len(data_) > 16777216:
            raise TooBig("bench_echo.echo: an argument is out of range")
        _registers, _payload = self._port.call(_OP_ECHO, (len(data_),), data_, 1, 16777216, True)
        if len(_registers) != 1 or _registers[0] > 16777216 or _registers[0] != len(_payload):
            raise BadFrame("bench_echo.echo: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def chain(self, depth: int) -> int:
        """Call the next service of the chain, to a depth, and count the calls.

        Args:
            depth: how many more calls to make (u64)

        Returns:
            hops: how many were made (u64)
        """
        if depth >> 64:
            raise TooBig("bench_echo.chain: an argument is out of range")
        _registers, _payload = self._port.call(_OP_CHAIN, (depth,), b"", 1)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("bench_echo.chain: malformed reply")
        return _registers[0]

    def work(self, ns: int) -> None:
        """Keep the CPU busy.

        Args:
            ns: for how many nanoseconds (u64)
        """
        if ns >> 64:
            raise TooBig("bench_echo.work: an argument is out of range")
        self._port.call(_OP_WORK, (ns,))

    def block(self) -> None:
        """Wait until somebody calls `release`."""
        self._port.call(_OP_BLOCK)

    def release(self) -> None:
        """End every wait in `block`."""
        self._port.call(_OP_RELEASE)

    def crash(self) -> None:
        """Kill the service with the call in flight."""
        self._port.call(_OP_CRASH)

    def fail(self) -> None:
        """Raise an error that this interface does not declare."""
        self._port.call(_OP_FAIL)

    def recurse(self) -> None:
        """Recurse without end in the handler."""
        self._port.call(_OP_RECURSE)

    def hog(self, bytes: int) -> None:
        """Allocate memory and keep it.

        Args:
            bytes: how much (u64)
        """
        if bytes >> 64:
            raise TooBig("bench_echo.hog: an argument is out of range")
        self._port.call(_OP_HOG, (bytes,))

    def whoami(self) -> WhoamiResult:
        """Say who the caller is, as the service's binding record has it."""
        _registers, _payload = self._port.call(_OP_WHOAMI, (), b"", 2, 0, True)
        if len(_registers) != 2 or len(_payload):
            raise BadFrame("bench_echo.whoami: malformed reply")
        return WhoamiResult(_registers[0], _registers[1])


class BenchEchoServer(abc.ABC):
    """Serves `bench_echo`: implement the abstract methods, hand `handlers()` to the runtime.

    An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.
    """

    @abc.abstractmethod
    def null(self, caller: Caller) -> None:
        """Do nothing: the cost of a call that reaches a handler."""

    @abc.abstractmethod
    def echo(self, caller: Caller, data: memoryview) -> Payload:
        """Return the argument.

        `data` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            data: buffer <= 16 MiB

        Returns:
            data: buffer <= 16 MiB
        """

    @abc.abstractmethod
    def chain(self, caller: Caller, depth: int) -> int:
        """Call the next service of the chain, to a depth, and count the calls.

        Args:
            depth: how many more calls to make (u64)

        Returns:
            hops: how many were made (u64)
        """

    @abc.abstractmethod
    def work(self, caller: Caller, ns: int) -> None:
        """Keep the CPU busy.

        Args:
            ns: for how many nanoseconds (u64)
        """

    @abc.abstractmethod
    def block(self, caller: Caller) -> None:
        """Wait until somebody calls `release`."""

    @abc.abstractmethod
    def release(self, caller: Caller) -> None:
        """End every wait in `block`."""

    @abc.abstractmethod
    def crash(self, caller: Caller) -> None:
        """Kill the service with the call in flight."""

    @abc.abstractmethod
    def fail(self, caller: Caller) -> None:
        """Raise an error that this interface does not declare."""

    @abc.abstractmethod
    def recurse(self, caller: Caller) -> None:
        """Recurse without end in the handler."""

    @abc.abstractmethod
    def hog(self, caller: Caller, bytes: int) -> None:
        """Allocate memory and keep it.

        Args:
            bytes: how much (u64)
        """

    @abc.abstractmethod
    def whoami(self, caller: Caller) -> WhoamiResult:
        """Say who the caller is, as the service's binding record has it."""

    def handlers(self) -> HandlerTable:
        """Operation number to the function that decodes a call, runs it and encodes its result."""
        return {
            _OP_NULL: self._serve_null,
            _OP_ECHO: self._serve_echo,
            _OP_CHAIN: self._serve_chain,
            _OP_WORK: self._serve_work,
            _OP_BLOCK: self._serve_block,
            _OP_RELEASE: self._serve_release,
            _OP_CRASH: self._serve_crash,
            _OP_FAIL: self._serve_fail,
            _OP_RECURSE: self._serve_recurse,
            _OP_HOG: self._serve_hog,
            _OP_WHOAMI: self._serve_whoami,
        }

    def _serve_null(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("bench_echo.null: malformed call")
        try:
            self.null(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_NULL, error)
            raise
        return EMPTY

    def _serve_echo(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or registers[0] > 16777216 or registers[0] != len(payload):
            raise BadFrame("bench_echo.echo: malformed call")
        try:
            result = self.echo(
                caller,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_ECHO, error)
            raise
        data_ = result if result.__class__ is _Bytes else _flat(result)
        if len(data_) > 16777216:
            raise TooBig("bench_echo.echo: a result is out of range")
        return (len(data_),), data_

    def _serve_chain(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("bench_echo.chain: malformed call")
        try:
            result = self.chain(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CHAIN, error)
            raise
        if result >> 64:
            raise TooBig("bench_echo.chain: a result is out of range")
        return (result,), b""

    def _serve_work(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("bench_echo.work: malformed call")
        try:
            self.work(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_WORK, error)
            raise
        return EMPTY

    def _serve_block(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("bench_echo.block: malformed call")
        try:
            self.block(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_BLOCK, error)
            raise
        return EMPTY

    def _serve_release(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("bench_echo.release: malformed call")
        try:
            self.release(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_RELEASE, error)
            raise
        return EMPTY

    def _serve_crash(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("bench_echo.crash: malformed call")
        try:
            self.crash(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_CRASH, error)
            raise
        return EMPTY

    def _serve_fail(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("bench_echo.fail: malformed call")
        try:
            self.fail(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_FAIL, error)
            raise
        return EMPTY

    def _serve_recurse(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("bench_echo.recurse: malformed call")
        try:
            self.recurse(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_RECURSE, error)
            raise
        return EMPTY

    def _serve_hog(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("bench_echo.hog: malformed call")
        try:
            self.hog(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_HOG, error)
            raise
        return EMPTY

    def _serve_whoami(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("bench_echo.whoami: malformed call")
        try:
            result = self.whoami(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_WHOAMI, error)
            raise
        if result.client >> 64 or result.uid >> 64:
            raise TooBig("bench_echo.whoami: a result is out of range")
        return (result.client, result.uid), b""
