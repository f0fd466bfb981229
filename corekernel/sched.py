"""Scheduler policy: where carriers should run. Pure functions over plain figures; the mechanism obeys a shared page.

The host schedules threads. What it cannot know is that a caller and a carrier alternate: two threads that meet on one
CPU while another is idle stay there, ten times slower than they could be, for they never are both runnable for long.
A carrier that keeps meeting its caller therefore moves away, compares, and stays or goes back (`native/carrier.c`); it
knows within a millisecond. What it cannot know is where to move: the core watches how busy each CPU is, and names the
idlest one, or forbids the move when the only other CPUs are dedicated to somebody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from corekernel.composition_model import Restart

IDLE_SHARE = 0.25
ACTIVE_PERIOD = 0.1
IDLE_PERIOD = 1.0
FREE, SAME_CORE, PINNED = 0, 1, 2
NO_POLLER = -1
ANYWHERE, NOWHERE = -1, -2

Times = dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Load:
    """Share of the last period in which each CPU worked, 0 to 1."""

    busy: tuple[float, ...]

    @property
    def active(self) -> bool:
        """Whether anything runs that placement could help."""
        return max(self.busy, default=0.0) > IDLE_SHARE


def read_times(path: Path = Path("/proc/stat")) -> Times:
    """(busy, total) host ticks of each CPU since boot."""
    times: Times = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.startswith("cpu"):
            break
        if name != "cpu":
            figures = [int(word) for word in rest.split()]
            total = sum(figures[:8])
            times[int(name[3:])] = total - figures[3] - figures[4], total
    return times


def load_between(before: Times, after: Times) -> Load:
    """How busy each CPU was between two readings."""
    shares = []
    for cpu in sorted(after):
        busy, total = (b - a for a, b in zip(before.get(cpu, (0, 0)), after[cpu], strict=True))
        shares.append(busy / total if total > 0 else 0.0)
    return Load(tuple(shares))


def promotion_target(load: Load, reserved: Sequence[int] = ()) -> int:
    """Where an unpinned carrier should move that shares its caller's CPU.

    The idlest CPU that is nobody else's; `ANYWHERE` when none is known to be idle: the carrier may find out; `NOWHERE`
    when finding out would disturb a dedicated CPU.
    """
    candidates = [(share, cpu) for cpu, share in enumerate(load.busy) if cpu not in reserved]
    share, cpu = min(candidates, default=(1.0, ANYWHERE))
    if share < IDLE_SHARE:
        return cpu
    return NOWHERE if reserved else ANYWHERE


def poller_cpu(asked: int | None, cpus: int, polled: Collection[int], placed: Collection[int] = ()) -> int:
    """The CPU to dedicate to the poller of an IC1 service.

    Args:
        asked: the one that the composition names; None leaves the choice.
        cpus: how many there are.
        polled: those dedicated to the pollers of others, or to be.
        placed: those on which others are placed: not to be chosen, unless asked for.

    Returns:
        A CPU, or `NO_POLLER`: there is none of that number, it is another poller's, or it would be the last one left
        for everything else.
    """
    dedicated = set(polled) & set(range(cpus))
    if asked is None:
        choice = [cpu for cpu in reversed(range(cpus)) if cpu not in {*dedicated, *placed}]
    else:
        choice = [cpu for cpu in (asked,) if cpu < cpus and cpu not in dedicated]
    return choice[0] if choice and len(dedicated) < cpus - 1 else NO_POLLER


def next_period(load: Load) -> float:
    """Seconds until the next look."""
    return ACTIVE_PERIOD if load.active else IDLE_PERIOD


def restart_delay(policy: Restart, deaths: list[float], young: int, now: float) -> float | None:
    """Seconds to wait before a restart; None when the service has died too often to be restarted.

    Args:
        policy: the service's.
        deaths: when it died, seconds; the last one included.
        young: how many of its last lives in a row were short.
        now: the present, by the same clock.
    """
    if sum(1 for at in deaths if now - at < 60.0) > policy.max_per_minute:
        return None
    return float(min(policy.backoff_ms * 2 ** min(young, 20), policy.backoff_max_ms)) / 1000
