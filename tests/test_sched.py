"""The scheduler policy: pure functions over readings of CPU time."""

from __future__ import annotations

from pathlib import Path

import pytest

from corekernel.sched import (
    ACTIVE_PERIOD,
    ANYWHERE,
    IDLE_PERIOD,
    NO_POLLER,
    NOWHERE,
    Load,
    load_between,
    next_period,
    poller_cpu,
    promotion_target,
    read_times,
)

STAT = """cpu  30 0 10 160 0 0 0 0 0 0
cpu0 20 0 10 70 0 0 0 0 0 0
cpu1 5 1 4 80 10 0 0 0 7 7
intr 12345
cpu9 ignored after the first other line
"""


def test_busy_time_excludes_idling_and_waiting_for_disks(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(STAT)
    assert read_times(tmp_path / "stat") == {0: (30, 100), 1: (10, 100)}


def test_this_host_has_times_for_each_cpu() -> None:
    times = read_times()
    assert times and all(0 <= busy <= total for busy, total in times.values())


def test_load_is_the_share_of_the_period_between_two_readings() -> None:
    assert load_between({0: (30, 100), 1: (10, 100)}, {0: (80, 200), 1: (10, 200)}) == Load((0.5, 0.0))


def test_a_period_without_ticks_is_no_load() -> None:
    assert load_between({0: (30, 100)}, {0: (30, 100)}) == Load((0.0,))


def test_a_cpu_that_came_meanwhile_counts_from_zero() -> None:
    assert load_between({}, {0: (50, 100)}) == Load((0.5,))


@pytest.mark.parametrize(
    ("busy", "reserved", "target"),
    [
        ((0.9, 0.1), [], 1),
        ((0.1, 0.9), [], 0),
        ((0.9, 0.9), [], ANYWHERE),
        ((0.9, 0.25), [], ANYWHERE),
        ((0.9, 0.24), [], 1),
        ((0.9, 0.0), [1], NOWHERE),
        ((0.2, 0.0, 0.1), [1], 2),
        ((0.1, 0.1), [], 0),
        ((), [], ANYWHERE),
        ((0.9, 0.9), [1], NOWHERE),
    ],
)
def test_carriers_are_promoted_to_the_idlest_cpu_that_is_nobody_else_s(
    busy: tuple[float, ...], reserved: list[int], target: int
) -> None:
    assert promotion_target(Load(busy), reserved) == target


def test_an_idle_system_is_looked_at_less_often() -> None:
    assert next_period(Load((0.0, 0.1))) == IDLE_PERIOD
    assert next_period(Load((0.0, 0.5))) == ACTIVE_PERIOD
    assert next_period(Load(())) == IDLE_PERIOD


@pytest.mark.parametrize(
    ("asked", "cpus", "polled", "placed", "cpu"),
    [
        (None, 4, [], [], 3),
        (None, 4, [3], [], 2),
        (None, 4, [], [3, 2], 1),
        (None, 2, [], [0], 1),
        (None, 2, [], [1], 0),
        (None, 2, [], [0, 1], NO_POLLER),
        (None, 2, [1], [], NO_POLLER),
        (None, 2, [99], [], 1),
        (None, 1, [], [], NO_POLLER),
        (1, 2, [], [1], 1),
        (0, 2, [1], [], NO_POLLER),
        (0, 1, [], [], NO_POLLER),
        (2, 2, [], [], NO_POLLER),
        (1, 4, [1], [], NO_POLLER),
        (1, 4, [2], [], 1),
    ],
)
def test_a_poller_gets_a_cpu_of_its_own_and_never_the_last(
    asked: int | None, cpus: int, polled: list[int], placed: list[int], cpu: int
) -> None:
    assert poller_cpu(asked, cpus, polled, placed) == cpu
