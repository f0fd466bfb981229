"""Control groups: what the host enforces on the processes of a system, memory and the number of processes.

    PLACE/hmk-NAME-PID/      one for each system and hierarchy; holds no process itself
        1/ 2/ 3/ ...         one for each process that a zygote becomes; what that forks stays in it

PLACE is the group that the core was started in, or one beside it (`corekernel.cgroup_places`): no limit that stands on
the launcher is escaped.

Life of a group: `Groups.make` before a zygote is ordered, which enters it when it is born, by itself: while it is
alone the host needs no lock for that, and where it does, nobody waits (moving a process from outside takes 10 ms on
an idle host). A spare zygote has no limit; what it becomes may get one just before it does. `Group.retire` once the
process has ended: the group goes as soon as the last one in it has.

No residue: the core holds a lock (flock) on the system's groups as long as it lives. A group that nobody has locked
is a dead system's, and `sweep` ends what is left in it and removes it. The keeper does that when the core ends, the
launcher when it kills a system, and the next system before it makes its own.

Invariants: a group that is listed nowhere is empty and gone; every group made is held by a zygote that is ordered or
lives, by the process it became, or stands in `Groups._retired`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from corekernel import cgroup_places
from corekernel.cgroup_places import Place, read
from corekernel.channel import close_all
from corekernel.namespaces import host_pid

PREFIX = "hmk-"

_RETRY_SECONDS = 0.002
_UNLIMITED_V1 = "-1"
_UNLIMITED_V2 = "max"


def _write(path: Path, text: str) -> None:
    # Not Path.write_text: the host wants the whole value in one write, and the file is never to be made.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _write_swap(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # the host may not account for swap
        _write(path, text)


# ---- one process


class Group:
    """The groups, one in each hierarchy, of one process and what that forks. Any thread may use it."""

    def __init__(self, groups: Groups, paths: Sequence[tuple[Path, Place]]) -> None:
        """Use `Groups.make`."""
        self._groups = groups
        self.paths = paths
        self.entrances: list[int] = []

    def make(self) -> None:
        """Make it, and open its `entrances`: a process with one thread enters by writing "0" to each."""
        for path, place in self.paths:
            os.mkdir(path)
            # "tasks" moves one thread: for the writer itself the host then takes no lock.
            name = "cgroup.procs" if place.unified else "tasks"
            self.entrances.append(os.open(path / name, os.O_WRONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Close the entrances: whoever was to enter has them."""
        close_all(self.entrances)
        self.entrances.clear()

    def _with(self, controller: str) -> tuple[Path, bool] | None:
        found = (place for place in self.paths if controller in place[1].controllers)
        return next(((path, place.unified) for path, place in found), None)

    def limit_memory(self, limit: int | None) -> None:
        """Let the host enforce a number of bytes, swap included; None for no limit.

        Raises:
            OSError: EBUSY: the group uses more than that already (version 1; version 2 kills somebody in it).
        """
        found = self._with("memory")
        if found is None:
            return
        path, unified = found
        value = str(limit) if limit is not None else _UNLIMITED_V2 if unified else _UNLIMITED_V1
        if unified:
            _write_swap(path / "memory.swap.max", "0")
            _write(path / "memory.max", value)
        else:
            self._limit_v1(path, value)

    @staticmethod
    def _limit_v1(path: Path, value: str) -> None:
        memory, with_swap = path / "memory.limit_in_bytes", path / "memory.memsw.limit_in_bytes"
        try:
            _write(memory, value)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _write(with_swap, value)  # a limit is raised: the one with swap may never be the lower one
            _write(memory, value)
        _write_swap(with_swap, value)

    def limit_processes(self, limit: int | None) -> None:
        """Let the host enforce a number of processes and threads; None for no limit."""
        found = self._with("pids")
        if found is not None:
            _write(found[0] / "pids.max", _UNLIMITED_V2 if limit is None else str(limit))

    def kills(self) -> int:
        """How many processes in it the host has killed at the memory limit."""
        found = self._with("memory")
        if found is None:
            return 0
        lines = read(found[0] / ("memory.events" if found[1] else "memory.oom_control")).splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def kill(self) -> None:
        """Kill everybody in it."""
        _end_all(self.paths[0][0])

    def retire(self) -> int:
        """The process has ended: remove the group as soon as nobody is in it. Returns `kills`."""
        kills = self.kills()
        self._groups.retire(self)
        return kills

    def remove(self) -> bool:
        """Remove it, if nobody is in it; whether it is gone."""
        left = [path for path, _ in self.paths if not _removed(path)]
        return not left


def _removed(path: Path) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:  # EBUSY: somebody is in it
        return False
    return True


# ---- one system


class Groups:
    """All groups of one system. Any thread may use it."""

    def __init__(self, roots: Sequence[tuple[Path, Place]] = (), refused: str = "") -> None:
        """Use `Groups.start`; without arguments: no groups at all."""
        self._roots = roots
        self._refused = refused
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()  # of the groups below
        self._retired: list[Group] = []

    @classmethod
    def start(cls, name: str) -> Groups:
        """Remove what dead systems left, and make the groups of a new one; the caller is its core.

        A host that offers groups and then refuses one gets a system without; `weaknesses` has its reason.
        """
        sweep()
        roots = [(place.path / f"{_prefix(name)}{host_pid()}", place) for place in cgroup_places.places()]
        try:
            for path, place in roots:
                _claim(path)
                if place.unified:
                    _distribute(place.path, place.controllers)
                    _distribute(path, place.controllers)
        except OSError as error:
            return cls((), f" ({error})")
        return cls(roots)

    def enforces(self, controller: str) -> bool:
        """Whether the host enforces limits of this kind."""
        return any(controller in place.controllers for _, place in self._roots)

    def weaknesses(self) -> list[str]:
        """What is weaker than designed, one plain sentence each."""
        lost = {
            "memory": "memory limits are detected and punished, not enforced",
            "pids": "the number of a program's processes is limited by user id only",
        }
        return [
            f"no {controller} control group{self._refused}: {text}"
            for controller, text in lost.items()
            if not self.enforces(controller)
        ]

    def make(self) -> Group | None:
        """A new group without limits; None when this system has none.

        Raises:
            OSError: the host refuses one more.
        """
        if not self._roots:
            return None
        number = str(next(self._numbers))
        group = Group(self, [(root / number, place) for root, place in self._roots])
        try:
            group.make()
        except OSError:
            group.close()
            group.remove()
            raise
        return group

    def retire(self, group: Group) -> None:
        """Remove a group as soon as nobody is in it."""
        with self._guard:
            self._retired.append(group)
        self.collect()

    @property
    def retired(self) -> bool:
        """Whether there are retired groups with somebody in them."""
        return bool(self._retired)

    def collect(self) -> None:
        """Remove the retired groups that the last process has left."""
        with self._guard:
            self._retired = [group for group in self._retired if not group.remove()]


def _prefix(name: str) -> str:
    """What the group of a system is called, but for the pid of its core."""
    return PREFIX + re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:64] + "-"


def _distribute(directory: Path, controllers: Iterable[str]) -> None:
    """Have groups below a directory of version 2 get controllers."""
    missing = set(controllers) - set(read(directory / "cgroup.subtree_control").split())
    if missing:
        _write(directory / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(missing)))


def _claim(path: Path) -> None:
    """Make a system's group and lock it for the rest of this process's life: the descriptor is never closed."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        with contextlib.suppress(FileNotFoundError):  # a sweep may find it before it is locked
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_ino == _inode(path):
                return
            os.close(lock)


def _inode(path: Path) -> int:
    """Number of a directory's inode; 0 when there is none."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


# ---- what dead systems leave


def sweep(dying: str = "", seconds: float = 0.0) -> None:
    """End what still runs in groups of dead systems, and remove these; nothing happens unless called by root.

    Args:
        dying: name of a system that was killed: wait until it is dead and its groups are gone.
        seconds: how long to wait for that.
    """
    give_up = time.monotonic() + seconds
    for path in systems():
        _sweep(path)
    while dying and (left := [path for path in systems() if _is_of(path, dying)]):
        if time.monotonic() >= give_up:
            return
        time.sleep(_RETRY_SECONDS)
        for path in left:
            _sweep(path)


def systems() -> list[Path]:
    """Groups of systems, dead or alive, where this process may make its own."""
    return [path for place in cgroup_places.places() for path in place.path.glob(f"{PREFIX}*/")]


def _is_of(path: Path, name: str) -> bool:
    return path.name.removeprefix(_prefix(name)).isdigit()


def _sweep(path: Path) -> None:
    """Remove a dead system's group, as far as it is empty already; leave a living one's alone."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for inner in path.glob("*/"):
            _end_all(inner)
            _removed(inner)
        _removed(path)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def _end_all(path: Path) -> None:
    for pid in map(int, read(path / "cgroup.procs").split()):
        if pid:  # 0 is one that this pid namespace does not show
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
