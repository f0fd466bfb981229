"""The service that newcomers copy: one operation, declared here, served in under forty lines.

Generated from services/interfaces/example.toml by `python -m services.generate`: edit that file.
"""

from __future__ import annotations

import abc
import enum
import errno
from typing import Final

from corekernel.errors import BadFrame, ServiceError, TooBig, WouldWait
from corekernel.interface import InterfaceInfo, OperationInfo
from corekernel.interface import Bytes as _Bytes
from corekernel.interface import copied as _copied
from corekernel.interface import flat as _flat
from corekernel.port import Caller, HandlerTable, Payload, Port, Registers, Reply

_OP_DIGEST: Final = 1


class ExampleOperation(enum.IntEnum):
    """Operation numbers of `example`."""

    DIGEST = 1


INTERFACE: Final = InterfaceInfo(
    "example",
    {
        _OP_DIGEST: OperationInfo("digest", True, False, frozenset()),
    },
)


class ExampleClient:
    """Calls `example` through a port; every method may also raise a `CallError`."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def digest(self, data: Payload) -> bytes:
        """Hash the contents of a buffer with SHA-256.

        Args:
            data: what to hash (buffer <= 16 MiB)

        Returns:
            digest: the raw digest (bytes <= 32 bytes)
        """
        data_ = data if data.__class__ is _Bytes else _flat(data)
        if len(data_) > 16777216:
            raise TooBig("example.digest: an argument is out of range")
        _registers, _payload = self._port.call(_OP_DIGEST, (len(data_),), data_, 1, 32, True)
        if len(_registers) != 1 or _registers[0] > 32 or _registers[0] != len(_payload):
            raise BadFrame("example.digest: malformed reply")
        return _payload if _payload.__class__ is _Bytes else _copied(_payload)


class ExampleServer(abc.ABC):
    """Serves `example`: implement the abstract methods, hand `handlers()` to the runtime.

    An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.
    """

    @abc.abstractmethod
    def digest(self, caller: Caller, data: memoryview) -> bytes:
        """Hash the contents of a buffer with SHA-256.

        `data` is a read-only view of memory that may be shared with the caller, who can change it under
        you: copy once what you check.

        Args:
            data: what to hash (buffer <= 16 MiB)

        Returns:
            digest: the raw digest (bytes <= 32 bytes)
        """

    def handlers(self) -> HandlerTable:
        """Operation number to the function that decodes a call, runs it and encodes its result."""
        return {
            _OP_DIGEST: self._serve_digest,
        }

    def _serve_digest(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:
        if len(registers) != 1 or registers[0] > 16777216 or registers[0] != len(payload):
            raise BadFrame("example.digest: malformed call")
        try:
            result = self.digest(
                caller,
                memoryview(payload) if payload.__class__ is _Bytes else memoryview(payload).toreadonly(),
            )
        except (ServiceError, WouldWait) as error:
            INTERFACE.admit(_OP_DIGEST, error)
            raise
        if len(result) > 32:
            raise TooBig("example.digest: a result is out of range")
        return (len(result),), result
