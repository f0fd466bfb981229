"""Several client processes at once on unpinned services: one service, and chains of two and three.

What counts is calls per second *and* fairness: throughput is easily bought by starving somebody. In a chain the
client's call makes the first service call the second, and so on: A -> B is a chain of two. One whole chain is one call
here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bench.hmk import cell, client
from bench.hmk.cell import CellError
from bench.hmk.client import Task
from bench.hmk.latency import with_times
from bench.hmk.plan import Plan
from bench.hmk.system import Booted, service_name
from bench.stats import SIDES, Row, fairness

FIRST_OF_CHAIN = {"c": "cchain_a", "python": "chain_a"}
ALONE_AND_MANY = (1, 8)


def clients(booted: Booted, plan: Plan) -> Iterator[Row]:
    """Null calls of 1 to 8 clients to one service."""
    for side in SIDES:
        for count in plan.clients:
            task = Task(side, service_name(side, "free"), budget_s=plan.crowd_s)
            yield measure(booted, "clients", task, count)


def chain2(booted: Booted, plan: Plan) -> Iterator[Row]:
    """Chains of two services, of one client and of eight."""
    return _chains(booted, "chain2", 2, plan.crowd_s)


def chain3(booted: Booted, plan: Plan) -> Iterator[Row]:
    """Chains of three services, of one client and of eight."""
    return _chains(booted, "chain3", 3, plan.crowd_s)


def _chains(booted: Booted, case: str, depth: int, budget_s: float) -> Iterator[Row]:
    for side in SIDES:
        for count in ALONE_AND_MANY:
            task = Task(side, FIRST_OF_CHAIN[side], depth=depth, budget_s=budget_s)
            yield measure(booted, case, task, count)


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
