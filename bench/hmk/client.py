"""What one client process does in a cell: attach, warm up, call, hand back the times.

Two clients with one face. The Python one calls through the typed client of the shim, as any program does. The C one
attaches and binds in Python too, and then calls in a loop of C (`bench/native/hmk_client.c`), without an
interpreter between two calls. Both compare every reply of the warm-up with what it must be.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
import os
import time
from array import array
from collections.abc import Sequence
from typing import Any

import shim
from bench.hmk.cell import Start
from bench.hmk.system import Booted, service_name
from bench.peers.harness import MAX_SAMPLES, Call, PeerError, timed, warm_up
from bench.placement import pin, placement
from corekernel import dispatcher
from corekernel.errors import Status
from corekernel.port import INLINE_BYTES
from services.stubs.bench_echo import BenchEchoOperation
from shim.client import System

KEPT_SAMPLES = 20_000
_WARM_UP_CALLS = 1000


@dataclasses.dataclass(frozen=True)
class Task:
    """What to call, how, from where, and for how long.

    Attributes:
        side: `c` or `python`: both the client and, by its name, the service.
        service: whom to call.
        payload_bytes: of the request and of the reply; 0 is the null call.
        depth: calls in the chain that each call starts; 0 is no chain.
        cpu: the client's; None leaves it free.
        budget_s: seconds of sampling.
    """

    side: str
    service: str
    payload_bytes: int = 0
    depth: int = 0
    cpu: int | None = None
    budget_s: float = 0.1


@dataclasses.dataclass(frozen=True)
class Findings:
    """Times of single calls (nanoseconds, thinned evenly to `KEPT_SAMPLES`), calls made, and what making them took."""

    samples: array[int]
    calls: int
    elapsed_ns: int
    cpu_ns: int


def echo_task(side: str, place: str, payload_bytes: int, budget_s: float) -> Task:
    """The null call (no payload) or echo, to the service that stands where the placement wants it.

    Raises:
        PlacementError: this machine cannot give that placement.
    """
    cpu = placement(place).client
    return Task(side, service_name(side, place), payload_bytes, cpu=cpu, budget_s=budget_s)


def work(booted: Booted, task: Task, start: Start) -> Findings:
    """The life of one client: the body of a cell."""
    pin(task.cpu)
    client = new_client(booted, task)
    client.warm_up()
    start()
    cpu, began = time.process_time_ns(), time.perf_counter_ns()
    samples = client.calls(task.budget_s)
    elapsed, used = time.perf_counter_ns() - began, time.process_time_ns() - cpu
    step = -(-len(samples) // KEPT_SAMPLES)
    return Findings(array("q", samples[::step]), len(samples), elapsed, used)


class Client(abc.ABC):
    """A client of one service, attached."""

    @abc.abstractmethod
    def warm_up(self) -> None:
        """Call for a while, comparing replies.

        Raises:
            PeerError: a reply is not what it must be.
        """

    @abc.abstractmethod
    def calls(self, budget_s: float) -> Sequence[int]:
        """Call for so many seconds; nanoseconds per call, at least one."""


def new_client(booted: Booted, task: Task) -> Client:
    """Attach this process to a system as the client that a task describes."""
    system = shim.attach(booted.name)
    return CClient(system, task) if task.side == "c" else PythonClient(system, task)


class PythonClient(Client):
    """Calls through the typed client."""

    def __init__(self, system: System, task: Task) -> None:
        self._task = task
        self._payload = os.urandom(task.payload_bytes)
        self._call = _python_call(system.client(task.service), task)

    def warm_up(self) -> None:
        """See `Client`."""
        warm_up(self._call, self._payload, self._task.budget_s)

    def calls(self, budget_s: float) -> Sequence[int]:
        """See `Client`."""
        return timed(self._call, self._payload, budget_s)


def _python_call(client: Any, task: Task) -> Call:
    """The call as peers make theirs: takes the payload, returns it if all went well."""
    if task.depth:
        chain, depth = client.chain, task.depth
        return lambda payload: payload if chain(depth) == depth else b"a chain that was cut short"
    if not task.payload_bytes:
        null = client.null
        return lambda payload: null() or payload
    echo: Call = client.echo
    return echo


class CClient(Client):
    """Calls in C, on a link of an attachment made in Python."""

    def __init__(self, system: System, task: Task) -> None:
        """Args: an attached system, and what to call there. The calling thread is the one that will call."""
        self._native: Any = importlib.import_module("bench._raw")
        self._attachment = system.attachment
        self._held = self._attachment.held(task.service)
        self._link = self._attachment.another_link(self._held)
        if self._native.ffi.sizeof(self._link.c[0]) != self._native.lib.bench_link_bytes():
            raise PeerError("bench._raw was built for another ABI: build the C extensions again")
        self._task = task
        self._payload = os.urandom(task.payload_bytes)
        self._reply = bytearray(task.payload_bytes)
        self._message = self._describe()
        if task.payload_bytes > INLINE_BYTES:
            self._attachment.buffer(self._held.session, self._link, task.payload_bytes)

    def _describe(self) -> Any:
        task, ffi = self._task, self._native.ffi
        message = ffi.new("struct bench_call *")
        message.link = int(ffi.cast("uintptr_t", self._link.c))
        message.operation = BenchEchoOperation.NULL
        if task.depth:
            message.operation, message.registers, message.argument = BenchEchoOperation.CHAIN, 1, task.depth
        elif task.payload_bytes:
            message.operation, message.registers = BenchEchoOperation.ECHO, 1
            message.argument = message.length = task.payload_bytes
            self._pinned = ffi.from_buffer(self._payload), ffi.from_buffer(self._reply)
            setattr(message, "in", self._pinned[0])
            message.out = self._pinned[1]
        return message

    def warm_up(self) -> None:
        """See `Client`."""
        self.some_calls(self._task.budget_s * 0.2, _WARM_UP_CALLS)
        if self._reply != self._payload:
            raise PeerError("the reply differs from the request")
        if self._task.depth and self._link.c.rets[0] != self._task.depth:
            raise PeerError(f"a chain of {self._link.c.rets[0]} calls, not {self._task.depth}")

    def calls(self, budget_s: float) -> Sequence[int]:
        """See `Client`."""
        return self.some_calls(budget_s, MAX_SAMPLES)

    def some_calls(self, budget_s: float, most: int) -> Sequence[int]:
        """Call without a pause until the time is up or so many calls are made."""
        return self._run(self._native.lib.bench_calls, most, int(budget_s * 1e9))

    def paced_calls(self, first_ns: int, period_ns: int, end_ns: int) -> Sequence[int]:
        """Call at a time (monotonic clock), and every period from then until another time."""
        most = (end_ns - first_ns) // period_ns + 1
        return self._run(self._native.lib.bench_paced, most, first_ns, period_ns, end_ns)

    def waits(self) -> list[int]:
        """How replies were awaited so far: spun, yielded, slept."""
        return self._link.waits()

    def _run(self, loop: Any, most: int, *arguments: int) -> Sequence[int]:
        """Run a loop of C; whenever our stack has been reclaimed, bind another and go on.

        The samples are a view of untouched memory: neither making room nor handing out is part of what is measured.
        """
        ffi = self._native.ffi
        room, n = ffi.new("uint64_t[]", most), 0
        while True:
            n += loop(self._message, *arguments, room + n, most - n)
            status = self._message.status
            if status != Status.UNBOUND:
                break
            self._attachment.bind(self._held.session, [self._link])
        if status:
            raise dispatcher.failure(status, self._task.service, self._held.session.generation, "")
        return memoryview(ffi.buffer(room, 8 * n)).cast("Q")
