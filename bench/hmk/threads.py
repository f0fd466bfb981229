"""A client process of very many threads, each bound to three services: what a stack costs, what happens without.

*Cost*: all threads are made first and parked; then each binds to its services and calls them. The growth of the
host's memory in between, divided by the stacks bound in between, is all that a bound stack costs on either side:
machine stack, thread, page tables, frame, bookkeeping. Memory is the whole host's (/proc/meminfo), because pages of
shared objects and kernel stacks are on nobody's account; so the host should be quiet.

*Shortage*: the same with pools that may hold stacks for a quarter of the threads. Stacks are then taken back from
idle threads all the time, and yet no call may fail.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import shim
from bench.hmk import cell
from bench.hmk.cell import CellError, Start
from bench.hmk.client import CClient, Client, PythonClient, Task
from bench.hmk.plan import Plan
from bench.hmk.system import Booted, boot_text, three_names, three_services
from bench.stats import SIDES, Row
from shim.client import System

COUNTED = ("AnonPages", "Shmem", "KernelStack", "PageTables", "SUnreclaim")
CALLS = 2
FEWEST_STACKS = 15
DRIFT_S = 0.2
GRACE_S = 120.0
Deed: TypeAlias = Callable[[], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Growth:
    """What binding did: stacks bound, KiB the host lost, time of each call, calls that failed and the first reason.

    `drift_kib` is what the host lost or gained by itself while all were parked.
    """

    stacks: int
    kib: int
    drift_kib: int
    samples: array[int]
    elapsed_ns: int
    failed: int
    reason: str


def threads(plan: Plan) -> Iterator[Row]:
    """Both measurements on both sides."""
    for side in SIDES:
        yield cost(side, plan.threads)
        yield shortage(side, plan.squeezed)


def cost(side: str, count: int) -> Row:
    """KiB per bound stack; a row is only measured if no call failed."""
    row = Row("ipc", "threads", "hmk", side, "free", clients=count, unit="KiB/stack")
    try:
        growth = _grow(three_services(side), side, count)
    except CellError as error:
        return row.unmeasured(str(error))
    if growth.failed:
        return row.unmeasured(f"{growth.failed} calls failed, the first: {growth.reason}")
    drift = f"the host's memory moved by itself by {growth.drift_kib} KiB in {DRIFT_S} s"
    if growth.kib <= 0:
        return row.unmeasured(f"{drift}: it is not quiet")
    note = f"{growth.stacks} stacks bound in {growth.elapsed_ns / 1e9:.1f} s, no call failed; {drift}"
    value = round(growth.kib / max(1, growth.stacks), 2)
    return dataclasses.replace(row, n=len(growth.samples), value=value, note=note)


def shortage(side: str, count: int) -> Row:
    """Failed calls where pools hold stacks for a quarter of the threads; times include the waits for a stack."""
    row = Row("ipc", "threads", "hmk", side, "free", clients=count, unit="failed calls")
    most = max(FEWEST_STACKS, count // 4)
    try:
        growth = _grow(three_services(side, most), side, count)
    except CellError as error:
        return row.unmeasured(str(error))
    note = growth.reason or f"{most} stacks in each of 3 services for {count} threads"
    row = row.timed(growth.samples)
    per_s = round(len(growth.samples) / growth.elapsed_ns * 1e9, 1)
    return dataclasses.replace(row, value=float(growth.failed), per_s=per_s, note=note)


def _grow(composition: str, side: str, count: int) -> Growth:
    with boot_text(composition) as booted:

        def body(_: int, start: Start) -> Growth:
            return _bind_all(booted, side, count, start)

        return cell.run(booted, body, GRACE_S).results[0]


def _bind_all(booted: Booted, side: str, count: int, start: Start) -> Growth:
    """In the client process: make the threads, then let them bind and call, and compare."""
    system = shim.attach(booted.name)
    _call_each(system, side)
    crowd = Crowd(count, lambda _: lambda: _call_each(system, side))
    gc.collect()
    gc.freeze()  # a collection would copy what this fork shares with its parent: no stack costs that
    start()
    parked = meminfo_kib()
    time.sleep(DRIFT_S)
    stacks, memory, began = _bound(system, side), meminfo_kib(), time.perf_counter_ns()
    crowd.go()
    elapsed = time.perf_counter_ns() - began
    grown = Growth(
        _bound(system, side) - stacks,
        meminfo_kib() - memory,
        memory - parked,
        array("q", (sample for samples in crowd.samples for sample in samples)),
        elapsed,
        len(crowd.failures),
        crowd.failures[0] if crowd.failures else "",
    )
    crowd.leave()
    return grown


def _call_each(system: System, side: str) -> list[int]:
    """Call each service a few times from this thread; nanoseconds per call, the first ones included."""
    clock = time.perf_counter_ns
    samples = []
    callers = [_caller(system, side, name) for name in three_names(side)]
    for _ in range(CALLS):
        for call in callers:
            before = clock()
            call()
            samples.append(clock() - before)
    return samples


def _caller(system: System, side: str, name: str) -> Callable[[], object]:
    task = Task(side, name)
    client: Client
    if side == "python":
        client = PythonClient(system, task)
        return lambda: client.calls(0)
    client = CClient(system, task)
    return lambda: client.some_calls(1.0, 1)


def _bound(system: System, side: str) -> int:
    """Stacks now bound to anybody in the three services."""
    services = [service for process in system.ask("status")["processes"] for service in process["services"]]
    return sum(int(s["pool"]["bound"]) for s in services if s["name"] in three_names(side))


def meminfo_kib() -> int:
    """Host memory in use by processes, shared objects and the kernel for them, KiB."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(words[1]) for words in lines if words[0].rstrip(":") in COUNTED)


class Crowd:
    """Threads that prepare and park, do their deed when told, and park again until they may leave."""

    def __init__(self, count: int, prepare: Callable[[int], Deed]) -> None:
        """Make the threads; returns once all of them are parked.

        Args:
            count: how many threads.
            prepare: gives each thread, in itself, the deed that it will do; takes the thread's number.
        """
        self.samples: list[Sequence[int]] = []
        self.failures: list[str] = []
        self._prepare = prepare
        self._at_rest = threading.Semaphore(0)
        self._go, self._leave = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(index,)) for index in range(count)]
        for thread in self._threads:
            thread.start()
        self._await_rest()

    def _live(self, index: int) -> None:
        try:
            deed = self._prepare(index)
            self._at_rest.release()
            self._go.wait()
            self.samples.append(deed())
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            if not self._go.is_set():
                self._at_rest.release()
        self._at_rest.release()
        self._leave.wait()

    def _await_rest(self) -> None:
        for _ in self._threads:
            self._at_rest.acquire()

    def go(self) -> None:
        """Let all do their deed; returns when they have."""
        self._go.set()
        self._await_rest()

    def leave(self) -> None:
        """Let all end."""
        self._leave.set()
        for thread in self._threads:
            thread.join()
