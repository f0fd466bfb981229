"""What the system costs when nobody calls it, and how long it takes until somebody can."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator

import shim
from bench.hmk import cell
from bench.hmk.cell import CellError, Start
from bench.hmk.plan import Plan
from bench.hmk.system import Booted, boot
from bench.stats import Row

COMPOSITION = "default"
SETTLE_S = 0.5


def idle(plan: Plan) -> Iterator[Row]:
    """CPU time of all processes of the default composition, core included, without a client; % of one CPU."""
    with boot(COMPOSITION) as booted:
        time.sleep(SETTLE_S)  # what follows a boot is not idling
        used, began = booted.cpu_ns(), time.perf_counter_ns()
        time.sleep(plan.idle_s)
        used, took = booted.cpu_ns() - used, time.perf_counter_ns() - began
        count = len(booted.pids())
    note = f"{count} processes over {plan.idle_s:g} s"
    yield Row("ipc", "idle", "hmk", "python", "free", n=1, unit="%", value=round(100 * used / took, 4), note=note)


def boots(plan: Plan) -> Iterator[Row]:
    """From the launch of the default composition to the end of a client's first call; the median, in seconds."""
    row = Row("ipc", "boot", "hmk", "python", "free", unit="s")
    try:
        took = [_boot_and_call() for _ in range(plan.boots)]
    except CellError as error:
        yield row.unmeasured(str(error))
        return
    note = f"{min(took):.3f} to {max(took):.3f} s"
    yield dataclasses.replace(row, n=len(took), value=round(statistics.median(took), 4), note=note)


def _boot_and_call() -> float:
    began = time.monotonic()  # one clock for all processes of the host

    def body(booted: Booted, start: Start) -> float:
        start()
        with shim.attach(booted.name) as system:
            system.example.digest(b"first call")
            return time.monotonic()

    with boot(COMPOSITION) as booted:
        return cell.run(booted, lambda _, start: body(booted, start), 1.0).results[0] - began
