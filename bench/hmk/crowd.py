"""Several client processes at once on unpinned services: one service, and chains of two and three.

What counts is calls per second *and* fairness: throughput is easily bought by starving somebody. In a chain the
client's call makes the first service call the second, and so on: A -> B is a chain of two. One whole chain is one call
here.
"""

from __future__ import annotations

import dataclasses

from bench.hmk import cell, client
from bench.hmk.cell import CellError
from bench.hmk.client import Task
from bench.hmk.latency import with_times
from bench.hmk.system import Booted, service_name
from bench.stats import Row, fairness

FIRST_OF_CHAIN = {"c": "cchain_a", "python": "chain_a"}
ALONE_AND_MANY = (1, 8)


def task(case: str, side: str, budget_s: float) -> Task:
    """What each client of a case does: `clients`, `chain2` or `chain3`."""
    if case == "clients":
        return Task(side, service_name(side, "free"), budget_s=budget_s)
    return Task(side, FIRST_OF_CHAIN[side], depth=int(case.removeprefix("chain")), budget_s=budget_s)


def measure(booted: Booted, case: str, task: Task, count: int) -> Row:
    """One row: times of all clients together, their calls per second, and least / most calls of a client."""
    row = Row("ipc", case, booted.system, task.side, "free", task.payload_bytes, count)
    try:
        outcome = cell.run(booted, lambda _, start: client.work(booted, task, start), task.budget_s, count)
    except CellError as error:
        return row.unmeasured(str(error))
    found = outcome.results
    return dataclasses.replace(
        with_times(row, outcome),
        per_s=round(sum(each.calls / each.elapsed_ns for each in found) * 1e9, 1),
        fairness=fairness([each.calls for each in found]),
    )
