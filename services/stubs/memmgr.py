"""The memory manager: who may use how much memory, who does, and what to take back when there is too
little.

Generated from services/interfaces/memmgr.toml by `python -m services.generate`: edit that file.
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

_OP_LIMIT_GET: Final = 1
_OP_LIMIT_SET: Final = 2
_OP_USAGE: Final = 3
_OP_RECLAIM: Final = 4
_OP_INFO: Final = 5


class MemmgrOperation(enum.IntEnum):
    """Operation numbers of `memmgr`."""

    LIMIT_GET = 1
    LIMIT_SET = 2
    USAGE = 3
    RECLAIM = 4
    INFO = 5


INTERFACE: Final = InterfaceInfo(
    "memmgr",
    {
        _OP_LIMIT_GET: OperationInfo("limit_get", True, False, frozenset({errno.EPERM, errno.ESRCH})),
        _OP_LIMIT_SET: OperationInfo(
            "limit_set",
            False,
            False,
            frozenset({errno.EINVAL, errno.EPERM, errno.ESRCH}),
        ),
        _OP_USAGE: OperationInfo("usage", True, False, frozenset({errno.EPERM, errno.ESRCH})),
        _OP_RECLAIM: OperationInfo("reclaim", False, False, frozenset({errno.EPERM})),
        _OP_INFO: OperationInfo("info", True, False, frozenset()),
    },
)


class UsageResult(NamedTuple):
    """What `usage` returns.

    Attributes:
        buffers: bytes of shared buffers (u64)
        stacks: bytes of execution stacks bound to its threads (u64)
        limit: bytes; 2**64-1 for none (u64)
    """

    buffers: int
    stacks: int
    limit: int


class MemmgrClient:
    """Calls `memmgr` through a port; every method may also raise a `CallError`."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def limit_get(self, client: int) -> int:
        """Read a client's memory limit.

        Args:
            client: u64

        Returns:
            bytes: 2**64-1 for none (u64)

        Raises:
            ServiceError: EPERM, ESRCH.
        """
        if client >> 64:
            raise TooBig("memmgr.limit_get: an argument is out of range")
        _registers, _payload = self._port.call(_OP_LIMIT_GET, (client,), b"", 1, 0, True)
        if len(_registers) != 1 or len(_payload):
            raise BadFrame("memmgr.limit_get: malformed reply")
        return _registers[0]

    def limit_set(self, client: int, bytes: int) -> None:
        """Set a client's memory limit.

        Args:
            client: u64
            bytes: 2**64-1 for none (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """
        if client >> 64 or bytes >> 64:
            raise TooBig("memmgr.limit_set: an argument is out of range")
        self._port.call(_OP_LIMIT_SET, (client, bytes))

    def usage(self, client: int) -> UsageResult:
        """Read what a client uses, and what it may.

        Args:
            client: u64

        Raises:
            ServiceError: EPERM, ESRCH.
        """
        if client >> 64:
            raise TooBig("memmgr.usage: an argument is out of range")
        _registers, _payload = self._port.call(_OP_USAGE, (client,), b"", 3, 0, True)
        if len(_registers) != 3 or len(_payload):
            raise BadFrame("memmgr.usage: malformed reply")
        return UsageResult(_registers[0], _registers[1], _registers[2])

    def reclaim(self, service: int, wanted: int) -> bytes:
        """Decide which idle stacks to take back when memory is at its limit. Only the core may call it, on
        a stack reserved for that, so it must not depend on getting memory.

        Args:
            service: number of the service that needs stacks (u64)
            wanted: how many stacks it needs (u64)

        Returns:
            plan: JSON array of objects: service, count to unbind (bytes <= 3500 bytes)

        Raises:
            ServiceError: EPERM.
        """
        if service >> 64 or wanted >> 64:
            raise TooBig("memmgr.reclaim: an argument is out of range")
        _registers, _payload = self._port.call(_OP_RECLAIM, (service, wanted), b"", 1, 3500)
        if len(_registers) != 1 or _registers[0] > 3500 or _registers[0] != len(_payload):
            raise BadFrame("memmgr.reclaim: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)

    def info(self) -> bytes:
        """Show the memory manager's accounts.

        Returns:
            state: JSON (buffer <= 1 MiB)
        """
        _registers, _payload = self._port.call(_OP_INFO, (), b"", 1, 1048576, True)
        if len(_registers) != 1 or _registers[0] > 1048576 or _registers[0] != len(_payload):
            raise BadFrame("memmgr.info: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)


class MemmgrServer(abc.ABC):
    """Serves `memmgr`: implement the abstract methods, hand `handlers()` to the runtime.

    An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.
    """

    @abc.abstractmethod
    def limit_get(self, caller: Caller, client: int) -> int:
        """Read a client's memory limit.

        Args:
            client: u64

        Returns:
            bytes: 2**64-1 for none (u64)

        Raises:
            ServiceError: EPERM, ESRCH.
        """

    @abc.abstractmethod
    def limit_set(self, caller: Caller, client: int, bytes: int) -> None:
        """Set a client's memory limit.

        Args:
            client: u64
            bytes: 2**64-1 for none (u64)

        Raises:
            ServiceError: EINVAL, EPERM, ESRCH.
        """

    @abc.abstractmethod
    def usage(self, caller: Caller, client: int) -> UsageResult:
        """Read what a client uses, and what it may.

        Args:
            client: u64

        Raises:
            ServiceError: EPERM, ESRCH.
        """

    @abc.abstractmethod
    def reclaim(self, caller: Caller, service: int, wanted: int) -> bytes:
        """Decide which idle stacks to take back when memory is at its limit. Only the core may call it, on
        a stack reserved for that, so it must not depend on getting memory.

        Args:
            service: number of the service that needs stacks (u64)
            wanted: how many stacks it needs (u64)

        Returns:
            plan: JSON array of objects: service, count to unbind (bytes <= 3500 bytes)

        Raises:
            ServiceError: EPERM.
        """

    @abc.abstractmethod
    def info(self, caller: Caller) -> Payload:
        """Show the memory manager's accounts.

        Returns:
            state: JSON (buffer <= 1 MiB)
        """

    def handlers(self) -> HandlerTable:
        """Operation number to the function that decodes a call, runs it and encodes its result."""
        return {
            _OP_LIMIT_GET: self._serve_limit_get,
            _OP_LIMIT_SET: self._serve_limit_set,
            _OP_USAGE: self._serve_usage,
            _OP_RECLAIM: self._serve_reclaim,
            _OP_INFO: self._serve_info,
        }

    def _serve_limit_get(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("memmgr.limit_get: malformed call")
        try:
            result = self.limit_get(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_LIMIT_GET, error)
            raise
        if result >> 64:
            raise TooBig("memmgr.limit_get: a result is out of range")
        return (result,), b""

    def _serve_limit_set(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("memmgr.limit_set: malformed call")
        try:
            self.limit_set(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_LIMIT_SET, error)
            raise
        return EMPTY

    def _serve_usage(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or len(payload):
            raise BadFrame("memmgr.usage: malformed call")
        try:
            result = self.usage(caller, registers[0])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_USAGE, error)
            raise
        if result.buffers >> 64 or result.stacks >> 64 or result.limit >> 64:
            raise TooBig("memmgr.usage: a result is out of range")
        return (result.buffers, result.stacks, result.limit), b""

    def _serve_reclaim(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 2 or len(payload):
            raise BadFrame("memmgr.reclaim: malformed call")
        try:
            result = self.reclaim(caller, registers[0], registers[1])
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_RECLAIM, error)
            raise
        if len(result) > 3500:
            raise TooBig("memmgr.reclaim: a result is out of range")
        return (len(result),), result

    def _serve_info(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if registers or len(payload):
            raise BadFrame("memmgr.info: malformed call")
        try:
            result = self.info(caller)
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_INFO, error)
            raise
        state_ = result if result.__class__ is _Bytes else _flat(result)
        if len(state_) > 1048576:
            raise TooBig("memmgr.info: a result is out of range")
        return (len(state_),), state_
