"""Where the core can make control groups: found from what the host says of this process, in either version.

OWN is the group that this process is in; what is made below it stays under whatever limits it. Under version 1 each
controller has a hierarchy of its own, and OWN will do. Under version 2 a group with processes may not have groups with
limits below it, unless it is the root, so the place is beside OWN; there is none if OWN has a limit on memory or CPU,
since it would be escaped. (A limit on the number of processes, which systemd puts on every session, is.)

Nothing here changes anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CONTROLLERS = ("memory", "pids")

_LIMITS = ("memory.max", "memory.high", "memory.swap.max", "cpu.max")


def read(path: Path) -> str:
    """Contents of a small file of the host's; empty when there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory below which groups get controllers.

    Attributes:
        path: the directory.
        controllers: those of `CONTROLLERS` that groups get here.
        unified: whether it is of version 2.
    """

    path: Path
    controllers: tuple[str, ...]
    unified: bool


class _Mount(NamedTuple):
    """A control group file system: whether of version 2, the group at its root, where it is, its options."""

    unified: bool
    root: str
    at: Path
    options: set[str]


def _mounts(text: str) -> Iterator[_Mount]:
    """Control group file systems in a mountinfo text."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) >= 5 and len(kind) >= 3 and kind[0] in ("cgroup", "cgroup2"):
            yield _Mount(kind[0] == "cgroup2", fields[3], Path(fields[4]), set(kind[2].split(",")))


def _directory(group: str, mount: _Mount) -> Path | None:
    """The directory of a group, if it is visible below this mount."""
    inside = os.path.relpath(group, mount.root)
    return None if inside.startswith("..") else mount.at / inside


def _writable(path: Path) -> bool:
    return (path / "cgroup.procs").exists() and os.access(path, os.W_OK)


def _distributed(path: Path) -> set[str]:
    """Controllers of version 2 that groups below `path` have, or could be given: at the root only."""
    name = "cgroup.subtree_control" if (path / "cgroup.type").exists() else "cgroup.controllers"
    return set(read(path / name).split())


def _unlimited(group: Path) -> bool:
    return all(read(group / name).split()[:1] in ([], ["max"]) for name in _LIMITS)


def _unified(own: Path, top: Path) -> Iterator[Place]:
    """Places in version 2 for a process in group `own` of a hierarchy mounted at `top`, the better one first."""
    for path in [own, own.parent] if own != top and _unlimited(own) else [own]:
        given = _distributed(path)
        names = tuple(name for name in CONTROLLERS if name in given)
        if names:
            yield Place(path, names, True)


def find(groups: str, mountinfo: str) -> tuple[Place, ...]:
    """Where a process may make groups, from its /proc/PID/cgroup and /proc/PID/mountinfo."""
    own = _memberships(groups)
    found: list[Place] = []
    for mount in _mounts(mountinfo):
        usable = [place for place in _below(mount, own) if _writable(place.path)]
        # One is enough: a process is in one group of a hierarchy, which may be mounted twice.
        found.extend(place for place in usable[:1] if not any(_same(place, other) for other in found))
    return tuple(found)


def _same(one: Place, other: Place) -> bool:
    """Whether two places are in the same hierarchy."""
    return (one.unified and other.unified) or bool(set(one.controllers) & set(other.controllers))


def _memberships(text: str) -> dict[str, str]:
    """Controller -> group, from a /proc/PID/cgroup text; version 2 stands under the empty name."""
    own = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    return own


def _below(mount: _Mount, own: dict[str, str]) -> Iterable[Place]:
    """Places in one hierarchy for a process in the groups `own`."""
    names = tuple(n for n in CONTROLLERS if n in mount.options)
    group = own.get("" if mount.unified else names[0] if names else "none")
    directory = _directory(group, mount) if group is not None else None
    if directory is None:
        return ()
    return _unified(directory, mount.at) if mount.unified else (Place(directory, names, False),)


def places() -> tuple[Place, ...]:
    """Where this process may make groups; nowhere unless it is root."""
    if os.geteuid() != 0:
        return ()
    return find(read(Path("/proc/self/cgroup")), read(Path("/proc/self/mountinfo")))


def where(controller: str) -> Path | None:
    """The directory below which this process may make groups with a controller; None without one."""
    return next((place.path for place in places() if controller in place.controllers), None)
