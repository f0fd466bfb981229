"""Where the two halves of a call run, and what else competes for that CPU.

Three placements: `same-core` (client and server pinned to one CPU), `cross-core` (each pinned to its own)
and `free` (the host's scheduler decides). CPU numbers come from this process's own affinity mask, so a
benchmark in a container stays inside it. A placement that the machine cannot give is refused with a reason
that goes into the row; it is never quietly replaced by another.
"""

from __future__ import annotations

import dataclasses
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from bench.stats import PLACEMENTS

HOG_SAME_SESSION = "CPU hog in the same session"
HOG_OTHER_SESSION = "CPU hog in another session"
HOG_NOTES = (HOG_SAME_SESSION, HOG_OTHER_SESSION)

_HOG_START_S = 10.0
_HOG = """
import ctypes, os, signal, sys
parent, cpu = int(sys.argv[1]), int(sys.argv[2])
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.sched_setaffinity(0, {cpu})
if os.getppid() == parent:
    os.write(1, b"!")
    while True:
        pass
"""


@dataclasses.dataclass(frozen=True)
class Placement:
    """A placement and its CPUs; `None` means not pinned."""

    name: str
    client: int | None
    server: int | None

    @property
    def shared(self) -> bool:
        """True when client and server may find themselves on one CPU."""
        return self.client is None or self.client == self.server


class PlacementError(ValueError):
    """The machine cannot give this placement; the text says what is missing."""


def cpus() -> list[int]:
    """Return the CPUs this process may use, ascending; at least one."""
    return sorted(os.sched_getaffinity(0))


def needs(count: int) -> str:
    """Return why the machine has too few CPUs for `count`, or an empty string when it has enough."""
    have = len(cpus())
    return "" if have >= count else f"needs {count} CPUs, {have} available"


def placement(name: str) -> Placement:
    """Choose the CPUs of a placement.

    The first usable CPU is the client's; a cross-core server gets the next CPU that is not its hyper-thread
    sibling, or, if there is none, the next one.

    Raises:
        PlacementError: cross-core was asked for and there is only one CPU, or the name is unknown.
    """
    if name not in PLACEMENTS:
        raise PlacementError(f"no such placement: {name!r}")
    if name == "free":
        return Placement(name, None, None)
    first, *others = cpus()
    if name == "same-core":
        return Placement(name, first, first)
    if not others:
        raise PlacementError(needs(2))
    siblings = _siblings(first)
    return Placement(name, first, next((cpu for cpu in others if cpu not in siblings), others[0]))


def _siblings(cpu: int) -> set[int]:
    """Read the host's list of hyper-thread siblings, like `0,4` or `0-1`; empty where it is not shown."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        ranges = [part.split("-") for part in path.read_text().strip().split(",")]
        return {n for bounds in ranges for n in range(int(bounds[0]), int(bounds[-1]) + 1)}
    except (OSError, ValueError):
        return set()


def pin(cpu: int | None) -> None:
    """Pin the calling thread to one CPU; `None` leaves it as it is.

    Raises:
        OSError: the CPU is not available to this process.
    """
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


class Hog:
    """A process that uses all it gets of one CPU, while the context lasts.

    In another session it lands, on hosts with automatic task groups, in a scheduling group of its own; then
    it competes differently. It dies with this process. Entering returns once it is pinned and running.
    """

    def __init__(self, cpu: int, same_session: bool) -> None:
        """Args: the CPU to occupy, and whether the hog stays in this process's session."""
        self.cpu = cpu
        self.same_session = same_session
        self.note = HOG_SAME_SESSION if same_session else HOG_OTHER_SESSION
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running hog."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Hog:
        arguments = [sys.executable, "-I", "-S", "-c", _HOG, str(os.getpid()), str(self.cpu)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, start_new_session=not self.same_session)
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], _HOG_START_S)[0]
        if not ready or self._process.stdout.read(1) != b"!":
            self._stop()
            raise PlacementError(f"no CPU hog could be started on CPU {self.cpu}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
