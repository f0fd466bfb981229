"""The contract between generated stubs and whatever carries a call.

A message is a tuple of at most 8 unsigned 64-bit *registers* and one *payload*. Register arguments (integers,
booleans) each take one register; every string or bytes argument takes one register for its length in bytes, its
contents standing in the payload, in order. A result is encoded the same way. A payload of up to `INLINE_BYTES`
travels in the frame; a larger one travels in the shared buffer of the caller's slot: that is the port's affair, the
stub is the same. A remote service, a coalesced one and one in the core's own process are called through the
same generated client; only the port differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

REGISTERS = 8
INLINE_BYTES = 3584
MAX_BULK_BYTES = 16 << 20

Registers: TypeAlias = tuple[int, ...]
Payload: TypeAlias = bytes | bytearray | memoryview
Reply: TypeAlias = tuple[Registers, Payload]


class Port(Protocol):
    """A way to reach one service instance."""

    def call(
        self,
        operation: int,
        registers: Registers = (),
        payload: Payload = b"",
        returns: int = 0,
        capacity: int = 0,
        idempotent: bool = False,
    ) -> Reply:
        """Run one operation and return its result registers and payload.

        Args:
            operation: the operation's number in its interface.
            registers: at most 8 integers, each 0 <= r < 2**64.
            payload: the concatenated contents of the string, bytes and buffer arguments.
            returns: how many result registers the caller wants back (0 to 8).
            capacity: the largest result payload, in bytes, that the operation may produce.
            idempotent: re-issue the call when the service dies and comes back.

        Raises:
            ServiceError: the service refused; carries an errno.
            CallError: the transport failed; see `corekernel.errors`.
        """
        ...


class Caller(Protocol):
    """Who calls, as the service's own binding record says (never as the frame says)."""

    @property
    def client(self) -> int:
        """Number of the client process, unique in this boot."""
        ...

    @property
    def uid(self) -> int:
        """Host user id of the client process."""
        ...

    @property
    def gid(self) -> int:
        """Host group id of the client process."""
        ...

    @property
    def pid(self) -> int:
        """Process id in hmk's process table; 0 before the process manager knows it."""
        ...

    @property
    def thread(self) -> int:
        """Slot number of the calling thread within the client."""
        ...


Handler: TypeAlias = Callable[[Caller, Registers, Payload], Reply]
HandlerTable: TypeAlias = Mapping[int, Handler]
