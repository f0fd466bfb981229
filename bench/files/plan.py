"""How much a run of `bench fs` measures: every number that makes it short or thorough, in one place."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Plan:
    """The extent of a run.

    Attributes:
        rounds: how often each operation is measured.
        budget_s: seconds of timing one operation, per place and number of clients.
        most: operations timed at most; so many files are made to be removed.
        clients: numbers of client processes.
        listed: entries of the directory that `readdir` reads.
        big_mib: size of the files that are read and written in a row.
        tree_files: files that `tree-copy` copies at most.
        tree_rounds: how often.
        large: entries of the large directories, ascending.
        kills: how often the service is killed.
    """

    rounds: int
    budget_s: float
    most: int
    clients: tuple[int, ...]
    listed: int
    big_mib: int
    tree_files: int
    tree_rounds: int
    large: tuple[int, ...]
    kills: int


FULL = Plan(
    rounds=5,
    budget_s=0.2,
    most=500,
    clients=(1, 4),
    listed=1000,
    big_mib=32,
    tree_files=100_000,
    tree_rounds=3,
    large=(10_000, 100_000),
    kills=200,
)
QUICK = dataclasses.replace(
    FULL,
    rounds=1,
    budget_s=0.03,
    most=100,
    big_mib=8,
    tree_files=500,
    tree_rounds=1,
    large=(500, 5_000),
    kills=10,
)
