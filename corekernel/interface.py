"""What the rest of the system knows about an interface, and the few wire helpers that all stubs share.

An interface is declared once, in `services/interfaces/NAME.toml`; the stub generated from it carries an
`InterfaceInfo` for whoever must know operations without calling them: the runtime (which errors may pass,
which calls may be re-issued), `top` and `trace` (names for numbers).

The helpers below exist so that generated code stays short. Each one holds one rule of the wire: lengths count
bytes, text is strict UTF-8, and what came from another process is copied before it is looked at.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corekernel.errors import BadFrame, HandlerFault, ServiceError, WouldWait
from corekernel.port import Payload, Reply

U64_MAX: Final = (1 << 64) - 1
SIGN_BIT: Final = 1 << 63
EMPTY: Final[Reply] = ((), b"")

# Generated code uses these names because an argument may itself be called `bytes`.
Bytes = bytes
copied = bytes


@dataclass(frozen=True, slots=True)
class OperationInfo:
    """What an interface declares about one operation.

    Attributes:
        name: the operation's name, unique in its interface.
        idempotent: the call may be re-issued when the service died with it in flight.
        may_wait: the handler may raise `WouldWait`.
        errors: the errno values its handler may raise in a `ServiceError`.
    """

    name: str
    idempotent: bool
    may_wait: bool
    errors: frozenset[int]


@dataclass(frozen=True, slots=True)
class InterfaceInfo:
    """An interface's name and its operations by number (1 to 63)."""

    name: str
    operations: Mapping[int, OperationInfo]

    def admit(self, operation: int, error: ServiceError | WouldWait) -> None:
        """Return if the interface declares that this operation may raise `error`.

        Raises:
            HandlerFault: it does not, so the handler has a bug; chained from `error`.
        """
        info = self.operations[operation]
        if isinstance(error, WouldWait):
            if info.may_wait:
                return
            raise HandlerFault(f"{self.name}.{info.name} waits, but is not declared may_wait") from error
        if error.errno in info.errors:
            return
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        raise HandlerFault(f"{self.name}.{info.name} raised {name}, which it does not declare") from error


def text(raw: Payload) -> str:
    """Copy `raw` once and decode the copy.

    Raises:
        BadFrame: it is not UTF-8.
    """
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise BadFrame(f"a string argument is not UTF-8: {error.reason} at byte {error.start}") from error


def flat(data: Payload) -> Payload:
    """Return `data` in a form whose `len` counts bytes; copies only a view of wider or scattered items."""
    if type(data) is memoryview and not (data.ndim == 1 and data.itemsize == 1 and data.contiguous):
        return data.tobytes()
    return data
