"""Every error hmk can raise, in three families that never mix.

* What a *program* gets is an errno: `ServiceError` carries one, chosen by the service's interface.
* What the *transport* reports (a dead service, a passed deadline, a refused capability) is a `CallError`.
* What is *our own bug* (a handler that raised something it never declared) is a `HandlerFault`.

The status of a call travels as one signed word: 0 success, > 0 an errno from the service, < 0 one of `Status`.
"""

from __future__ import annotations

import enum
import errno
import os


class HmkError(Exception):
    """Base of everything hmk raises on purpose."""


class Status(enum.IntEnum):
    """Transport status of a call; the C side has the same values in `native/abi.cdef.h`."""

    OK = 0
    DIED = -1
    DEADLINE = -2
    CANCELLED = -3
    INTERRUPTED = -4
    WAIT = -5
    BAD_OPERATION = -6
    BAD_FRAME = -7
    DENIED = -8
    FAULT = -9
    TOO_DEEP = -10
    TOO_BIG = -11
    NO_SERVICE = -12
    UNBOUND = -13
    NO_BUFFER = -14


class ServiceError(HmkError, OSError):
    """The service refused the operation; `errno` is the one a program would see."""

    def __init__(self, number: int, text: str = "") -> None:
        OSError.__init__(self, number, text or os.strerror(number))

    def __str__(self) -> str:
        name = errno.errorcode.get(self.errno or 0, str(self.errno))
        return f"{name}: {self.strerror}"


class CallError(HmkError):
    """The call itself did not complete; the class says why."""


class ServiceDied(CallError):
    """The service died with the call in flight; `generation` is the one that died.

    `delivered` is False when the request certainly never reached a handler, so that it may be re-issued
    whatever the operation.
    """

    def __init__(self, service: str, generation: int, delivered: bool = True) -> None:
        super().__init__(f"service {service} (generation {generation}) died during the call")
        self.service = service
        self.generation = generation
        self.delivered = delivered


class DeadlineExceeded(CallError, TimeoutError):
    """The deadline passed before the reply came."""


class Cancelled(CallError):
    """The call was cancelled by its own process."""


class BadOperation(CallError):
    """The service has no operation of this number."""


class BadFrame(CallError):
    """The frame was malformed, out of sequence, or its payload did not match the operation."""


class Denied(CallError, PermissionError):
    """The caller holds no capability for this service or object."""


class HandlerFault(CallError):
    """The handler raised something its interface does not declare: a bug in the service, with its text."""


class TooDeep(CallError):
    """The chain of calls reached the depth bound."""


class TooBig(CallError, ValueError):
    """An argument or a result exceeds what the operation or the transport admits."""


class NoSuchService(CallError, LookupError):
    """No service of that name in this system, or the composition grants no right to call it."""


class WouldWait(HmkError):
    """Raised by a handler that cannot answer yet: the caller waits on its own word and re-issues the call.

    No handler waits for another client (DESIGN section 4): `condition` names what will wake the caller.
    """

    def __init__(self, condition: object) -> None:
        super().__init__("would wait")
        self.condition = condition
