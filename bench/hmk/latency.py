"""One client, one service: the null call, echo by size, and a CPU hog beside them.

Each row comes from a fresh client process. What could not be measured is a row that says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bench.hmk import cell, client
from bench.hmk.cell import CellError, Outcome
from bench.hmk.client import Findings, Task
from bench.hmk.system import Booted
from bench.placement import Hog, PlacementError, placement
from bench.stats import SIDES, Row


def hog(booted: Booted, same_session: bool, budget_s: float) -> Iterator[Row]:
    """The null call on one CPU with a hog, in this session or another; rows match `raw.hog_row` by note."""
    cpu = placement("same-core").client
    assert cpu is not None
    for side in SIDES:
        with Hog(cpu, same_session) as running:
            row = measure(booted, side, "same-core", 0, budget_s)
        yield dataclasses.replace(row, case="hog", note=running.note if row.n else row.note)


def measure(booted: Booted, side: str, place: str, payload_bytes: int, budget_s: float) -> Row:
    """One row of case `null` (no payload) or `echo`."""
    case = "echo" if payload_bytes else "null"
    row = Row("ipc", case, booted.system, side, place, payload_bytes)
    try:
        task = client.echo_task(side, place, payload_bytes, budget_s)
        return with_times(row, one_client(booted, task))
    except (CellError, PlacementError) as error:
        return row.unmeasured(str(error))


def one_client(booted: Booted, task: Task) -> Outcome[Findings]:
    """Run a task in one client process.

    Raises:
        CellError: it could not be measured.
    """
    return cell.run(booted, lambda _, start: client.work(booted, task, start), task.budget_s)


def with_times(row: Row, outcome: Outcome[Findings]) -> Row:
    """A row with the times of all clients, and the CPU time of both sides per call."""
    samples = [sample for found in outcome.results for sample in found.samples]
    calls = sum(found.calls for found in outcome.results)
    cpu_ns = outcome.system_cpu_ns + sum(found.cpu_ns for found in outcome.results)
    timed = dataclasses.replace(row.timed(samples), n=calls)
    return dataclasses.replace(timed, cpu_us_per_call=round(cpu_ns / 1e3 / calls, 3))
