"""What a test may not leave behind: processes, entries of /dev/shm, abstract sockets, mounts, control groups.

The test process is a child subreaper, so whatever is left behind becomes its descendant, whoever started it; whatever
else runs on the host at the same time is none of ours and is not looked at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corekernel import cgroups
from tests.processes import SETTLE_SECONDS, alive, childless, process_table, status_of


def _ours(before: set[tuple[int, str]]) -> dict[int, str]:
    """Living descendants of this process that have no ancestor among those there before; zombies are collected."""
    if childless():
        return {}
    table = process_table()
    kin: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        kin.setdefault(parent, []).append(pid)
    found: dict[int, str] = {}
    waiting = list(kin.get(os.getpid(), []))
    while waiting:
        pid = waiting.pop()
        if (pid, table[pid][1]) in before:
            continue
        waiting.extend(kin.get(pid, []))
        if alive(pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just gone
                found[pid] = " ".join(status_of(pid).get(key, "") for key in ("Name", "PPid", "State", "Uid"))
        elif table[pid][0] == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return found


def _shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


def _used_by_others(name: str) -> bool:
    """Whether a process that is not ours has an entry of /dev/shm mapped or open (then it is not our residue)."""
    for pid in process_table():
        with contextlib.suppress(OSError):
            if f"/dev/shm/{name}" in Path(f"/proc/{pid}/maps").read_text() and pid != os.getpid():
                return True
    return False


def _sockets() -> set[str]:
    """Names of systems of this run that have a socket."""
    names = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "@hmk/" in line}
    return {name for name in names if f"-{os.getpid()}-" in name or name.endswith(f"-{os.getpid()}")}


def groups_of_systems() -> set[str]:
    """Control groups of systems of this run."""
    return {str(path) for path in cgroups.systems() if f"-{os.getpid()}-" in path.name}


def _mounts() -> set[str]:
    return set(Path("/proc/self/mounts").read_text().splitlines())


@dataclass
class Residue:
    """What is there now that a test may not add to."""

    processes: set[tuple[int, str]]
    memory: set[str]
    sockets: set[str]
    mounts: set[str]
    groups: set[str]

    @classmethod
    def now(cls) -> Residue:
        """Take stock."""
        table = (
            {} if childless() else process_table()
        )  # only descendants are looked for, and they have only descendants
        processes = {(pid, started) for pid, (_, started) in table.items()}
        return cls(processes, _shared_memory(), _sockets(), _mounts(), groups_of_systems())

    @contextlib.contextmanager
    def admitting(self) -> Iterator[None]:
        """What comes in the block is to stay for other tests."""
        earlier = Residue.now()
        yield
        later = Residue.now()
        self.processes |= later.processes - earlier.processes
        self.memory |= later.memory - earlier.memory
        self.sockets |= later.sockets - earlier.sockets
        self.mounts |= later.mounts - earlier.mounts
        self.groups |= later.groups - earlier.groups

    def added(self) -> list[str]:
        """What has come since, one line each."""
        found = [f"process {pid}: {what}" for pid, what in _ours(self.processes).items()]
        found += [f"/dev/shm/{name}" for name in _shared_memory() - self.memory if not _used_by_others(name)]
        found += [f"socket {name}" for name in _sockets() - self.sockets]
        found += [f"mount {line}" for line in _mounts() - self.mounts]
        return found + [f"control group {path}" for path in groups_of_systems() - self.groups]


def no_residue(before: Residue) -> None:
    give_up = time.monotonic() + SETTLE_SECONDS
    while left := before.added():
        if time.monotonic() > give_up:
            for pid in _ours(before.processes):
                os.kill(pid, signal.SIGKILL)
            pytest.fail("left behind:\n" + "\n".join(left))
        time.sleep(0.005)
