"""Shared objects as this process maps them: any object, a client's frames, the page of a service's pool."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from corekernel._dispatcher import ffi, lib

SLOT_BYTES: Final[int] = ffi.sizeof("struct hmk_slot")
MAX_SLOTS: Final[int] = lib.HMK_MAX_SLOTS
MAX_OPERATIONS: Final[int] = lib.HMK_MAX_OPS
HISTOGRAM: Final[int] = lib.HMK_HISTOGRAM
PAGE: Final = mmap.PAGESIZE


class Mapping:
    """A whole shared object mapped here. It holds no descriptor, and lasts as long as it or a view of it does.

    Attributes:
        buffer: its address, for C.
        memory: a view of it, read-only if the mapping is.
    """

    def __init__(self, fd: int, size: int, writable: bool = True) -> None:
        address = lib.hmk_map(fd, size, int(writable))
        if address == ffi.NULL:
            raise OSError(ffi.errno, f"an object of {size} bytes could not be mapped")
        self.size = size
        self.buffer = ffi.gc(address, lambda pointer: lib.hmk_unmap(pointer, size))
        view = memoryview(ffi.buffer(self.buffer, size))
        self.memory = view if writable else view.toreadonly()


def checked(index: int) -> int:
    """The number of a slot; IndexError when there is none of that number."""
    if not 0 <= index < MAX_SLOTS:
        raise IndexError(index)
    return index


class Frames:
    """A mapped frames object: `MAX_SLOTS` slots between one client process and one service, and their ready bitmap."""

    SIZE: Final[int] = ffi.sizeof("struct hmk_frames")

    def __init__(self, fd: int) -> None:
        self.mapping = Mapping(fd, self.SIZE)
        self.c = ffi.cast("struct hmk_frames *", self.mapping.buffer)
        self.slots = self.c.slots

    def slot(self, index: int) -> Any:
        """C pointer to one slot."""
        return self.slots + checked(index)

    def ready(self, index: int) -> tuple[Any, int]:
        """Where a slot has its bit in the ready bitmap: C pointer to the word, and the bit."""
        return self.c.ready + index // 64, 1 << index % 64

    def kill(self, index: int) -> None:
        """Core only: end whatever goes on in a slot whose service is dead."""
        lib.hmk_frames_kill(self.slots, index)


@dataclass(frozen=True, slots=True)
class CarrierState:
    """One carrier as its shared record tells."""

    index: int
    state: int
    client: int
    slot: int
    tid: int
    calls: int
    handler_ticks: int
    started: int
    last_used: int
    waits: tuple[int, int, int]
    forged: int


class PoolPage:
    """The page a service and the core share about one pool: what the pool does, and what the core asks of it."""

    def __init__(self, mapping: Mapping, limit: int, cpus: int) -> None:
        self._mapping = mapping
        self.limit = limit
        self.cpus = cpus
        self.c = ffi.cast("struct hmk_pool_shared *", mapping.buffer)
        self._records = lib.hmk_pool_records(self.c)
        self._operations = lib.hmk_pool_operations(self.c, limit)
        self._trace = lib.hmk_pool_trace(self.c, limit, cpus)

    @staticmethod
    def size(limit: int, cpus: int) -> int:
        """Bytes of the shared object."""
        return (int(lib.hmk_pool_shared_size(limit, cpus)) + PAGE - 1) // PAGE * PAGE

    def place(self, mode: int, cpu: int) -> None:
        """Core only: publish a placement decision (mode HMK_PLACE_*, cpu or -1)."""
        self.c.placement = mode
        self.c.place_cpu = cpu & 0xFFFFFFFF
        self.c.place_epoch += 1

    def promote_to(self, cpu: int) -> None:
        """Core only: the CPU that an unpinned carrier sharing its caller's CPU should move to; -1 for none."""
        self.c.place_cpu = cpu & 0xFFFFFFFF

    def observe(self, operations: bool, trace: bool) -> None:
        """Core only: what to record."""
        self.c.observe = (lib.HMK_OBSERVE_OPERATIONS if operations else 0) | (lib.HMK_OBSERVE_TRACE if trace else 0)

    def counters(self) -> dict[str, int]:
        """bound, free, reserved, created, reclaimed, peak, promoted."""
        names = ("bound", "free", "reserved", "created", "reclaimed", "peak", "promoted")
        return {name: int(getattr(self.c, name)) for name in names}

    def carriers(self) -> Iterator[CarrierState]:
        """Every live carrier."""
        for index in range(min(self.c.carriers, self.limit)):
            r = self._records[index]
            if r.state == lib.HMK_CARRIER_NONE:
                continue
            yield CarrierState(
                index, r.state, r.client, r.slot, r.tid, r.calls, r.handler, r.started, r.last_used,
                (r.waits[0], r.waits[1], r.waits[2]), r.forged,
            )  # fmt: skip

    def held(self) -> Counter[int]:
        """How many carriers are bound to each client now."""
        records = (self._records[index] for index in range(min(self.c.carriers, self.limit)))
        return Counter(r.client for r in records if r.state >= lib.HMK_CARRIER_BOUND)

    def totals(self) -> dict[str, int]:
        """Over all carriers since the pool began: calls, handler ticks, spun, yielded, slept, forged."""
        sums = ffi.new("struct hmk_pool_totals *")
        lib.hmk_pool_sum(self.c, self.limit, sums)
        return {name: int(getattr(sums, name)) for name, _ in ffi.typeof("struct hmk_pool_totals").fields}

    def charged(self, client: int) -> int:
        """Ticks of handler time charged to the threads of a client that are bound now."""
        return int(lib.hmk_pool_charged(self.c, self.limit, client))

    def charge_of(self, carrier: int) -> int:
        """Ticks of handler time charged to the thread a carrier is bound to."""
        return int(self._records[carrier].handler)

    def calls_of(self, carrier: int) -> int:
        """How many calls a carrier has served, in all its bindings."""
        return int(self._records[carrier].calls)

    def longest_running(self) -> int:
        """Ticks that the longest-running handler has run so far; 0 when none runs."""
        return int(lib.hmk_pool_longest(self.c, self.limit))

    def operations(self) -> dict[int, tuple[int, int, list[int]]]:
        """Per operation number: calls, handler ticks, histogram (log2 of ticks / 64), summed over CPUs."""
        result: dict[int, tuple[int, int, list[int]]] = {}
        for number in range(MAX_OPERATIONS):
            calls = ticks = 0
            histogram = [0] * HISTOGRAM
            for cpu in range(self.cpus):
                record = self._operations[cpu * MAX_OPERATIONS + number]
                if record.calls:
                    calls += record.calls
                    ticks += record.handler
                    histogram = [a + b for a, b in zip(histogram, record.histogram, strict=True)]
            if calls:
                result[number] = (calls, ticks, histogram)
        return result

    def trace(self) -> Iterator[dict[str, int]]:
        """Events of the trace ring, oldest first."""
        head = int(self.c.trace_head)
        for at in range(max(0, head - lib.HMK_TRACE_EVENTS), head):
            event = self._trace[at % lib.HMK_TRACE_EVENTS]
            yield {name: int(getattr(event, name)) for name, _ in ffi.typeof("struct hmk_trace_event").fields}
