"""The port of a coalesced service: the call is a function call, through the same generated stub.

It keeps the promises of a remote port that callers can rely on: an unknown operation is `BadOperation`,
whatever a handler raises by mistake becomes a `HandlerFault` chained from it, and every error that hmk raises
on purpose passes unchanged. It cannot keep the others, because it isolates nothing: a handler that never
returns never returns.

Operation 0 is every transport's null call; here, too, it succeeds without reaching a handler.
"""

from __future__ import annotations

from corekernel.errors import BadOperation, HandlerFault, HmkError
from corekernel.interface import EMPTY
from corekernel.port import Caller, Handler, HandlerTable, Payload, Registers, Reply


class LocalPort:
    """A `Port` that calls a handler table in this process, as one fixed caller."""

    __slots__ = ("_caller", "_handlers")

    def __init__(self, handlers: HandlerTable, caller: Caller) -> None:
        self._handlers = handlers
        self._caller = caller

    def call(
        self,
        operation: int,
        registers: Registers = (),
        payload: Payload = b"",
        returns: int = 0,
        capacity: int = 0,
        idempotent: bool = False,
    ) -> Reply:
        """Run one operation; arguments, result and errors are those of `corekernel.port.Port.call`.

        `returns`, `capacity` and `idempotent` steer a transport; there is none here, and the stubs on both
        sides check the reply's shape themselves.
        """
        handler = self._handlers.get(operation)
        if handler is None:
            return _unhandled(operation)
        try:
            return handler(self._caller, registers, payload)
        except HmkError:
            raise
        except Exception as error:
            raise HandlerFault(f"{_name(handler)}: {type(error).__name__}: {error}") from error


def _unhandled(operation: int) -> Reply:
    if operation == 0:
        return EMPTY
    raise BadOperation(f"the service has no operation {operation}")


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", repr(handler))
