"""The C dispatcher as Python sees it; only this module and `shared.py` touch it.

Everything else sees `WaitPolicy` (how this process waits), `Link` (the client's private end of one slot),
`StraightPath` (a port's call) and `CarrierPool` (the service half), plus a few words of time.
Handlers of Python services enter through one upcall, which finds the binding record by the carrier's key.
"""

from __future__ import annotations

import enum
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final, Protocol

from corekernel._dispatcher import ffi, lib
from corekernel.errors import (
    BadFrame,
    BadOperation,
    CallError,
    Cancelled,
    DeadlineExceeded,
    Denied,
    HandlerFault,
    ServiceDied,
    ServiceError,
    Status,
    TooBig,
    TooDeep,
    WouldWait,
)
from corekernel.interface import EMPTY as EMPTY  # native/python.c takes it from here
from corekernel.port import INLINE_BYTES, Caller, Handler, Payload, Registers, Reply
from corekernel.shared import Frames, Mapping, PoolPage, checked

ABI_VERSION: Final[int] = lib.HMK_ABI_VERSION
TRACE_FRAMES: Final = 12
BUSY: Final[int] = lib.HMK_E_BUSY
UNBOUND: Final[int] = lib.HMK_E_UNBOUND
NO_BUFFER: Final[int] = lib.HMK_E_NO_BUFFER
DIED: Final[int] = lib.HMK_E_DIED
NO_SERVICE: Final[int] = lib.HMK_E_NO_SERVICE

assert lib.HMK_INLINE == INLINE_BYTES

# Put here by native/python.c (hmk_python_open, below).
_issue: Callable[[int, int, Registers, Payload, int], Reply | int] = None  # type: ignore[assignment]
_resume: Callable[[int, Payload], Reply | int] = None  # type: ignore[assignment]
_caller: Callable[[int, Callable[..., Reply], Callable[..., Reply]], Callable[..., Reply]] = None  # type: ignore[assignment]

_remember: Callable[[int, int], None] = None  # type: ignore[assignment]


class Variant(enum.IntEnum):
    """How threads wait: the product's policy, and the two extremes it is measured against."""

    HYBRID = 0
    SPIN = 1
    BLOCKING = 2


def measure_tick_khz() -> int:
    """Frequency of the time stamp counter in kHz, measured over 4 ms."""
    return int(lib.hmk_measure_tick_khz())


def now() -> int:
    """The time stamp counter."""
    return int(lib.hmk_now())


class WaitPolicy:
    """How every thread of this process waits; `tick_khz` and `cpus` come from the core, measured once per boot."""

    def __init__(self, tick_khz: int, cpus: int, variant: Variant = Variant.HYBRID) -> None:
        self.tick_khz = tick_khz
        self.cpus = min(cpus, lib.HMK_MAX_CPUS)
        self.variant = variant
        self.pointer = ffi.new("struct hmk_wait_policy *")
        lib.hmk_policy_defaults(self.pointer, tick_khz, cpus, int(variant))

    def ticks(self, seconds: float) -> int:
        """Seconds as time stamp ticks."""
        return int(seconds * self.tick_khz * 1000)

    def seconds(self, ticks: int) -> float:
        """Time stamp ticks as seconds."""
        return ticks / (self.tick_khz * 1000)


class Link:
    """The client's private end of one slot; carries one call at a time, from one thread at a time."""

    __slots__ = ("address", "bulk", "c", "frames", "index")

    def __init__(self, frames: Frames, index: int, policy: WaitPolicy, polled: bool = False) -> None:
        """Args: a slot of mapped frames, how to wait, and whether the service has a poller to be told of requests."""
        self.frames = frames
        self.index = index
        self.bulk: Mapping | None = None
        self.c = ffi.new("struct hmk_link *")
        self.c.slot = frames.slot(index)
        self.c.policy = policy.pointer
        self.c.priority = 1
        if polled:
            self.c.ready, self.c.ready_bit = frames.ready(index)
        self.address = int(ffi.cast("uintptr_t", self.c))

    def call(self, operation: int, registers: Registers, payload: Payload, returns: int) -> Reply | int:
        """Issue one call: its reply, or the transport's or the service's status. `BUSY` when one is in progress."""
        return _issue(self.address, operation, registers, payload, returns)

    def resume(self, payload: Payload) -> Reply | int:
        """Go on with a call that a signal interrupted; `payload` is the one it was issued with."""
        return _resume(self.address, payload)

    def cancel(self) -> None:
        """Give an interrupted call up."""
        lib.hmk_cancel(self.c)

    def ready(self) -> bool:
        """Whether a call can be issued now."""
        return bool(lib.hmk_link_ready(self.c))

    @property
    def special(self) -> bool:
        """Whether it must be set up before each call."""
        return bool(self.c.special)

    def set_up(self, deadline: int, priority: int, special: bool) -> None:
        """Deadline (ticks, 0 none) and class of the following calls; `special` marks the link as to be set up anew."""
        self.c.deadline = deadline
        self.c.priority = priority
        self.c.special = special

    def attach_bulk(self, mapping: Mapping) -> None:
        """Use a buffer shared with the service for large payloads."""
        self.bulk = mapping
        self.c.bulk = ffi.cast("uint8_t *", mapping.buffer)
        self.c.bulk_size = mapping.size

    def detach_bulk(self) -> None:
        """Forget the shared buffer: the service no longer has it."""
        self.c.bulk_size, self.c.bulk, self.bulk = 0, ffi.NULL, None

    @property
    def bulk_size(self) -> int:
        """Bytes of the shared buffer; 0 without."""
        return int(self.c.bulk_size)

    def needed(self) -> int:
        """After `NO_BUFFER` from the service: bytes of the reply that did not fit."""
        return int(self.c.slot.leg[0].rets[0])

    def text(self) -> str:
        """What the service said of the call that just failed."""
        length = int(self.c.reply_length)
        if self.c.reply_bulk or not length:
            return ""
        return str(ffi.unpack(ffi.cast("char *", self.c.slot.leg[0].payload), length), "utf-8", "replace")

    def waits(self) -> list[int]:
        """How replies were awaited so far: spun, yielded, slept."""
        return list(self.c.waits)


class StraightPath:
    """The `call` of a port for the thread that called last: its link is at hand, and no Python code runs.

    Attributes:
        call: takes what `Port.call` takes; for any other thread it is the `call` given here.
    """

    def __init__(self, call: Callable[..., Reply], settle: Callable[..., Reply]) -> None:
        """Args: what serves every other case, and what goes on from a status other than 0 (first argument)."""
        self._c = ffi.new("struct hmk_port *")
        self._address = int(ffi.cast("uintptr_t", self._c))
        self.call = _caller(self._address, call, settle)

    def remember(self, link: Link) -> None:
        """The calling thread's link, which must live as long as the thread."""
        _remember(self._address, link.address)

    def forget(self) -> None:
        """Nobody's link is at hand."""
        self._c.thread = 0


_TRANSPORT: Final[dict[int, type[CallError]]] = {
    Status.DEADLINE: DeadlineExceeded,
    Status.CANCELLED: Cancelled,
    Status.BAD_OPERATION: BadOperation,
    Status.BAD_FRAME: BadFrame,
    Status.DENIED: Denied,
    Status.FAULT: HandlerFault,
    Status.TOO_DEEP: TooDeep,
    Status.TOO_BIG: TooBig,
    Status.NO_BUFFER: TooBig,
}


def failure(status: int, service: str, generation: int, text: str) -> Exception:
    """The exception for a non-zero status: the one place where codes become exceptions."""
    if status > 0:
        return ServiceError(status, text)
    if status in (DIED, NO_SERVICE):
        return ServiceDied(service, generation, delivered=status == DIED)
    kind = _TRANSPORT.get(status, CallError)
    name = Status(status).name.lower().replace("_", " ") if status in Status._value2member_map_ else str(status)
    return kind(f"{service}: {text or name}")


# ---- the service half ------------------------------------------------------------------------------------------


class Bound(Caller, Protocol):
    """A binding record: who calls, and where its wait word is."""

    handlers: dict[int, Handler]
    wait_sequence: int


_bindings: dict[int, tuple[Bound, dict[int, Handler]]] = {}
_STATUS_OF: Final[dict[type[BaseException], int]] = {
    BadFrame: Status.BAD_FRAME,
    BadOperation: Status.BAD_OPERATION,
    Denied: Status.DENIED,
    TooBig: Status.TOO_BIG,
    TooDeep: Status.TOO_DEEP,
    DeadlineExceeded: Status.DEADLINE,
}


def _failed(key: int, operation: int, error: BaseException) -> tuple[int, bytes]:
    """What a handler's exception means: its own report, a condition to wait for, or a bug (logged whole)."""
    caller, handlers = _bindings[key]
    if operation not in handlers:
        return int(Status.BAD_OPERATION), f"no operation {operation}".encode()
    if isinstance(error, WouldWait):
        lib.hmk_current().leg.wait_sequence = caller.wait_sequence
        return int(Status.WAIT), b""
    if isinstance(error, ServiceError) and error.errno:
        return error.errno, (error.strerror or "").encode("utf-8", "replace")
    for kind, status in _STATUS_OF.items():
        if isinstance(error, kind):
            return int(status), str(error).encode("utf-8", "replace")
    traceback.print_exception(error, limit=-TRACE_FRAMES, file=sys.stderr)
    return int(Status.FAULT), f"{type(error).__name__}: {error}".encode("utf-8", "replace")


if lib.hmk_python_open():
    raise ImportError("the dispatcher could not be tied to this module")


class CarrierPool:
    """The carriers of one service in this process. One thread, the control thread, calls its methods."""

    def __init__(
        self, page: PoolPage, stacks: Mapping, stack_bytes: int, policy: WaitPolicy, python: bool, base: int
    ) -> None:
        self.page = page
        self.base = base
        self._stacks = stacks
        self.policy = policy
        address = ffi.cast("uint8_t *", stacks.buffer)
        self.c = lib.hmk_pool_open(page.c, address, stack_bytes, page.limit, policy.pointer, int(python), base)
        if self.c == ffi.NULL:
            raise MemoryError("no memory for the carrier table")

    def grow(self, count: int, reserved: bool = False) -> int:
        """Create carriers; how many were. Reserved ones are pre-faulted and bound only when a call must not fail."""
        return int(lib.hmk_pool_grow(self.c, count, int(reserved)))

    def shrink(self, count: int) -> int:
        """End parked carriers and give their stacks' memory back; how many were."""
        return int(lib.hmk_pool_shrink(self.c, count))

    def poll(self, cpu: int) -> None:
        """Serve all bound slots from one thread on a CPU of its own (isolation class IC1)."""
        if lib.hmk_pool_poll(self.c, cpu):
            raise OSError("the poller could not be started")

    def take(self, reserve: bool) -> int:
        """A parked carrier (of the reserve, if need be and allowed), to be bound next; -1 when there is none."""
        return int(lib.hmk_pool_take(self.c, int(reserve)))

    def bind(
        self, carrier: int, client: int, frames: Frames, slot: int, record: Bound, priority: int, charged: int
    ) -> None:
        """Bind a carrier that was taken to a slot."""
        # The record must stand before the first request can arrive.
        _bindings[self.base + carrier] = record, record.handlers
        lib.hmk_pool_bind(self.c, carrier, client, frames.c, checked(slot), priority, charged)

    def unbind(self, carrier: int, force: bool = False) -> bool:
        """Take a carrier off its slot; False when a request is in progress (and not forced)."""
        return bool(lib.hmk_pool_unbind(self.c, carrier, int(force)) == 0)

    def parked(self, carrier: int) -> bool:
        """Whether a carrier has left its slot; kicks it if not."""
        return bool(lib.hmk_pool_parked(self.c, carrier))

    def left(self, carrier: int) -> None:
        """Forget the binding record of a parked carrier: it keeps the frames of its client mapped."""
        _bindings.pop(self.base + carrier, None)

    def set_bulk(self, carrier: int, mapping: Mapping) -> None:
        """Give a bound carrier the buffer it shares with its caller."""
        if lib.hmk_pool_set_bulk(self.c, carrier, ffi.cast("char *", mapping.buffer), mapping.size):
            raise MemoryError("no memory for a buffer record")

    def set_next(self, carrier: int, link: Link | None) -> None:
        """C services only: where the carrier's chain goes on. The caller keeps the link alive until it sets another."""
        lib.hmk_pool_set_next(self.c, carrier, link.c if link else ffi.NULL)


def accept_nested(link: Link, pool: CarrierPool, key: int, record: Bound) -> None:
    """Let the callee of `link` call back into this service, as `record`, while we wait for it."""
    _bindings[key] = record, record.handlers
    lib.hmk_accept_nested(link.c, pool.c, key)


def serving() -> Any | None:
    """The call that this thread is serving (a C context), or None."""
    context = lib.hmk_current()
    return None if context == ffi.NULL else context


def wait_sequence(slot: Any) -> int:
    """The count in a slot's wait word, to be read before its condition is tested."""
    return int(lib.hmk_sequence(slot))


def notify(slot: Any) -> None:
    """Wake the caller of a slot that answered WAIT."""
    lib.hmk_notify(slot)


def call_back(
    context: Any, policy: WaitPolicy, operation: int, registers: Registers, payload: Payload, returns: int
) -> tuple[int, Reply]:
    """Call the service that called us (A -> B -> A): status and reply. Payloads are inline only."""
    message = ffi.new("struct hmk_message *")
    result = ffi.new("struct hmk_link *")
    result.policy, result.priority = policy.pointer, context.priority
    data = ffi.from_buffer("char[]", payload) if payload else ffi.NULL
    out = ffi.new("uint8_t[]", INLINE_BYTES)
    message.operation, message.registers, message.returns = operation, len(registers), returns
    message.args[0 : len(registers)] = list(registers)
    setattr(message, "in", ffi.cast("uint8_t *", data))
    message.in_length, message.out, message.out_capacity = len(payload), out, INLINE_BYTES
    status = int(lib.hmk_call_back(context, message, result))
    registers = tuple(ffi.unpack(result.rets, returns)) if returns else ()
    return status, (registers, bytes(ffi.buffer(out, result.reply_length)))


def cpus() -> int:
    """CPUs online."""
    return os.cpu_count() or 1
