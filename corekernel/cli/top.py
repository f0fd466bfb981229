"""`top`: what every service does now, from the counters that carriers keep in pages shared with the core.

A *sample* is what the core answers for each service: calls and handler time per operation with a histogram, how
carriers waited for their requests, and the CPU time of the service's process as the host accounts it. A *view* is the
difference of two samples. Per-operation counters run only while somebody observes: we switch them on, and off again
at the end.

Histogram bucket b counts calls that took [2**(b-1), 2**b) units of 64 time stamp ticks from issue to reply; a
percentile is interpolated within its bucket, so it is right within a factor of two and usually much nearer.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import psutil

import shim
from corekernel.channel import Message
from corekernel.cli.text import table
from corekernel.errors import CallError
from services import stubs

UNIT_TICKS = 64
CLEAR = "\033[H\033[2J"
WAYS = ("spun", "yielded", "slept")


@dataclass
class Operation:
    """Counters of one operation; times in ticks."""

    calls: int = 0
    handler: int = 0
    histogram: list[int] = field(default_factory=list)

    def since(self, before: Operation) -> Operation:
        """What happened after `before`; everything, when the counters began anew meanwhile."""
        if self.calls < before.calls:
            return self
        old = before.histogram or [0] * len(self.histogram)
        # The page's counts are 32 bit wide and wrap.
        histogram = [(a - b) & 0xFFFFFFFF for a, b in zip(self.histogram, old, strict=True)]
        return Operation(self.calls - before.calls, self.handler - before.handler, histogram)


@dataclass
class Sample:
    """Counters of one service at one time."""

    interface: str
    at: float
    cpu_seconds: float
    totals: dict[str, int]
    operations: dict[int, Operation]

    def since(self, before: Sample) -> Sample:
        """What happened between two samples; `at` is then the time between them, in seconds."""
        anew = self.totals.get("calls", 0) < before.totals.get("calls", 0)
        totals = self.totals if anew else {k: v - before.totals.get(k, 0) for k, v in self.totals.items()}
        operations = {n: o.since(before.operations.get(n, Operation())) for n, o in self.operations.items()}
        cpu = max(0.0, self.cpu_seconds - before.cpu_seconds)
        return Sample(self.interface, self.at - before.at, cpu, totals, operations)


def percentile(histogram: Sequence[int], share: float, tick_khz: int) -> float:
    """The value, in microseconds, below which a share of the calls lies; 0 when there are none."""
    wanted = share * sum(histogram)
    seen = 0
    for bucket, count in enumerate(histogram):
        if count and seen + count >= wanted:
            low = 2.0 ** (bucket - 1) if bucket else 0.5
            return low * 2 ** ((wanted - seen) / count) * UNIT_TICKS / tick_khz * 1000
        seen += count
    return 0.0


def _sample(system: shim.System) -> dict[str, Sample]:
    """The present counters of every service."""
    found = {}
    for process in system.ask("status")["processes"]:
        cpu = _cpu_seconds(process["pid"])
        for service in process["services"]:
            try:
                reply = system.ask("statistics", service=service["name"])
            except CallError:  # not ours to look at
                continue
            found[service["name"]] = Sample(
                service["interface"], time.monotonic(), cpu, reply["totals"], _operations(reply["operations"])
            )
    return found


def _operations(counters: Message) -> dict[int, Operation]:
    return {int(number): Operation(*record) for number, record in counters.items()}


def _cpu_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def views(system: shim.System, seconds: float) -> Generator[dict[str, Sample]]:
    """What happened in each period of so many seconds, for ever; observation is on meanwhile."""
    system.ask("observe", operations=True)
    try:
        before = _sample(system)
        while True:
            time.sleep(seconds)
            now = _sample(system)
            yield {name: s.since(before[name]) for name, s in now.items() if name in before}
            before = now
    finally:
        system.ask("observe", operations=False)


def render(view: dict[str, Sample], tick_khz: int) -> str:
    """A view as a table: a line for each service, and below it one for each operation that was called."""
    rows: list[tuple[str, ...]] = [
        ("service", "calls/s", "p50 µs", "p99 µs", "handler µs", "CPU %", "CPU µs/call", "spin/yield/sleep %")
    ]
    for name, sample in view.items():
        rows.append(_service_row(name, sample))
        rows += [_operation_row(sample, n, o, tick_khz) for n, o in sorted(sample.operations.items()) if o.calls]
    return "\n".join(table(rows, right=range(1, 8)))


def _service_row(name: str, sample: Sample) -> tuple[str, ...]:
    calls = sample.totals.get("calls", 0)
    ways = [sample.totals.get(way, 0) for way in WAYS]
    awaited = "/".join(f"{100 * way / sum(ways):.0f}" for way in ways) if sum(ways) else "-"
    each = f"{sample.cpu_seconds * 1e6 / calls:.1f}" if calls and sample.cpu_seconds else "-"
    busy = f"{100 * sample.cpu_seconds / sample.at:.0f}"
    return (name, f"{calls / sample.at:,.0f}", "", "", "", busy, each, awaited)


def _operation_row(sample: Sample, number: int, operation: Operation, tick_khz: int) -> tuple[str, ...]:
    known = stubs.INTERFACES.get(sample.interface)
    info = known.operations.get(number) if known else None
    name = info.name if info else "(ping)" if number == 0 else f"operation {number}"
    times = [percentile(operation.histogram, share, tick_khz) for share in (0.50, 0.99)]
    handler = operation.handler / operation.calls / tick_khz * 1000
    rate = f"{operation.calls / sample.at:,.0f}"
    return (f"  {name}", rate, *(f"{value:.1f}" for value in times), f"{handler:.1f}", "", "", "")


def top(name: str, once: bool, seconds: float = 1.0) -> int:
    """Show a system's services, again each second until Ctrl-C; exit status."""
    with shim.attach(name) as system:
        tick_khz = int(system.ask("status")["tick_khz"])
        found = views(system, seconds)
        try:
            for view in itertools.islice(found, 1) if once else found:
                clear = CLEAR if sys.stdout.isatty() and not once else ""
                print(f"{clear}{name}, over {seconds:g} s\n\n{render(view, tick_khz)}", flush=True)
        except KeyboardInterrupt:
            print()
        finally:
            found.close()
    return 0
