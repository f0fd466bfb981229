"""The call frequency of a phone (Microkernel Goes General, OSDI '24: 41k calls a second) from a thousand threads.

Each thread calls on a timetable of its own, evenly shifted against the others', and sleeps in between. So nearly
every call finds its carrier asleep and its CPU in other hands: not the fast path, but what a system full of programs
does. Timers may be late by a millisecond, as on a phone, so that one interrupt wakes several threads. The loop is in C
for Python services too: pacing a thousand Python threads would measure the client.
"""

from __future__ import annotations

import dataclasses
import time
from array import array
from collections.abc import Iterator, Sequence

import shim
from bench.hmk import cell
from bench.hmk.cell import CellError, Outcome, Start
from bench.hmk.client import CClient, Findings, Task
from bench.hmk.latency import with_times
from bench.hmk.plan import Plan
from bench.hmk.system import Booted, boot_text, cpu_ns, three_names, three_services
from bench.hmk.threads import Crowd, Deed
from bench.stats import SIDES, Row
from shim.client import System

LEAD_NS = 100_000_000
GRACE_S = 30.0


@dataclasses.dataclass(frozen=True)
class Load:
    """What the threads found, and the CPU time that the services used meanwhile."""

    findings: Findings
    services_cpu_ns: int


@dataclasses.dataclass
class Timetable:
    """When threads call; `begin_ns` (monotonic clock) is set when they are let go."""

    threads: int
    per_s: int
    budget_s: float
    begin_ns: int = 0

    def deed(self, client: CClient, index: int) -> Deed:
        """What one thread does: call at its times until the end."""
        period = self.threads * 10**9 // self.per_s

        def call() -> Sequence[int]:
            first = self.begin_ns + period * index // self.threads
            return client.paced_calls(first, period, self.begin_ns + int(self.budget_s * 1e9))

        return call


def phone(plan: Plan) -> Iterator[Row]:
    """For each side the times with the rate that was reached, and the cores that the services used."""
    for side in SIDES:
        yield from measure(side, Timetable(plan.callers, plan.phone_per_s, plan.phone_s))


def measure(side: str, timetable: Timetable) -> Iterator[Row]:
    """Two rows for services in one language."""
    row = Row("ipc", "phone", "hmk", side, "free", clients=timetable.threads)
    cores = dataclasses.replace(row, unit="cores")
    try:
        with boot_text(three_services(side, prebind=False)) as booted:
            patience = timetable.budget_s + GRACE_S
            outcome = cell.run(booted, lambda _, start: _load(booted, side, timetable, start), patience)
    except CellError as error:
        yield from (row.unmeasured(str(error)), cores.unmeasured(str(error)))
        return
    load = outcome.results[0]
    found = load.findings
    timed = with_times(row, Outcome([found], outcome.system_cpu_ns))
    yield dataclasses.replace(timed, per_s=round(found.calls / found.elapsed_ns * 1e9, 1))
    used = round(load.services_cpu_ns / found.elapsed_ns, 3)
    yield dataclasses.replace(cores, n=found.calls, value=used, note="CPU time of the three services")


def _load(booted: Booted, side: str, timetable: Timetable, start: Start) -> Load:
    """In the client process: bind all threads, then let them call on the timetable."""
    system = shim.attach(booted.name)
    services = _service_pids(system, side)

    def prepare(index: int) -> Deed:
        client = CClient(system, Task(side, three_names(side)[index % 3]))
        client.some_calls(1.0, 1)
        return timetable.deed(client, index)

    crowd = Crowd(timetable.threads, prepare)
    start()
    used, cpu = cpu_ns(services), time.process_time_ns()
    timetable.begin_ns = time.monotonic_ns() + LEAD_NS
    crowd.go()
    elapsed, used = time.monotonic_ns() - timetable.begin_ns, cpu_ns(services) - used
    if crowd.failures:
        raise CellError(crowd.failures[0])
    crowd.leave()
    samples = array("q", (sample for each in crowd.samples for sample in each))
    return Load(Findings(samples, len(samples), elapsed, time.process_time_ns() - cpu), used)


def _service_pids(system: System, side: str) -> list[int]:
    """Host pids of the three services."""
    processes = system.ask("status")["processes"]
    names = three_names(side)
    return [p["pid"] for p in processes if any(service["name"] in names for service in p["services"])]
