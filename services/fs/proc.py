"""`/proc`: processes, services, mounts and memory as files, made from objects when they are read.

self            link to the directory of whoever asks
mounts          link to self/mounts
PID/status      name, state, parent, user, threads and files of a process
PID/comm  PID/mounts
PID/fd/N        links to the paths of its open files; the process itself and user id 0 may look
services        one line per service: number, name, stacks
meminfo  uptime  version  filesystems
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from corekernel.errors import CallError, ServiceError
from corekernel.port import Caller
from corekernel.process_table import LIVE, ProcessRecord
from services.files import Attributes, Entry, pack_entries
from services.fs.volume import Remote, Walked

if TYPE_CHECKING:
    from services.fs.filesystem import FileSystem

_DIRECTORY, _FILE, _LINK = stat.S_IFDIR | 0o555, stat.S_IFREG | 0o444, stat.S_IFLNK | 0o777
_OF_PROCESS = ("comm", "fd", "mounts", "status")
_MAGIC = 0x9FA0


class ProcVolume:
    """A mount of `/proc`."""

    kind = "proc"
    source = "proc"

    def __init__(self, number: int, covers: int, files: FileSystem) -> None:
        self.number = number
        self.covers = covers
        self._files = files
        self._made = time.time_ns()
        self._texts: dict[str, Callable[[], str]] = {
            "filesystems": lambda: "\thmk\nnodev\tproc\nnodev\thostfs\n",
            "meminfo": self._meminfo,
            "services": self._services,
            "uptime": self._uptime,
            "version": lambda: "hmk\n",
        }

    # ---- the tree

    def walk(self, path: bytes, who: Caller, size: int) -> Walked:
        """See `volume.Volume`; contents are made when they are read."""
        names = os.fsdecode(path).split("/") if path else []
        if not names:
            return Walked(0, self._attributes(_DIRECTORY, 1), b"")
        first = names[0]
        if first == "self":
            return self._link(first, str(who.client), 2)
        if first == "mounts":
            return self._link(first, "self/mounts", 3)
        if first in self._texts:
            return self._file(path, names, 1, 4 + sorted(self._texts).index(first))
        return self._in_process(path, names, self._process(first), who)

    def _in_process(self, path: bytes, names: list[str], record: ProcessRecord, who: Caller) -> Walked:
        base = (record.pid + 1) << 16
        if len(names) == 1:
            return Walked(len(path), self._attributes(_DIRECTORY, base, record), b"")
        if names[1] not in _OF_PROCESS:
            raise ServiceError(errno.ENOENT)
        if names[1] != "fd":
            return self._file(path, names, 2, base + 1 + _OF_PROCESS.index(names[1]), record)
        if who.uid != 0 and who.client != record.pid:
            raise ServiceError(errno.EACCES)
        if len(names) == 2:
            return Walked(len(path), self._attributes(_DIRECTORY, base + 8, record), b"")
        target = dict(self._files.paths_of(record.pid)).get(names[2])
        if target is None:
            raise ServiceError(errno.ENOENT)
        consumed = len(os.fsencode("/".join(names[:3])))
        return Walked(consumed, self._attributes(_LINK, base + 16 + int(names[2]), record), target)

    def _link(self, name: str, target: str, number: int) -> Walked:
        return Walked(len(name), self._attributes(_LINK, number), target.encode())

    def _file(
        self, path: bytes, names: list[str], depth: int, number: int, record: ProcessRecord | None = None
    ) -> Walked:
        if len(names) > depth:
            raise ServiceError(errno.ENOTDIR)
        return Walked(len(path), self._attributes(_FILE, number, record), b"")

    def _attributes(self, mode: int, number: int, record: ProcessRecord | None = None) -> Attributes:
        when, owner = self._made, 0
        if record is not None:
            when, owner = time.time_ns() - time.monotonic_ns() + record.started_ns, record.uid
        return Attributes(number, 0, mode, 1, owner, owner, 0, 0, 4096, 0, when, when, when, when)

    def _process(self, name: str) -> ProcessRecord:
        record = self._files.process(int(name)) if name.isascii() and name.isdigit() and len(name) < 20 else None
        if record is None:
            raise ServiceError(errno.ENOENT)
        return record

    def entries(self, node: Remote, after: int, size: int) -> tuple[int, bool, bytes]:
        """See `volume.Volume`; a position is the number of the entry, which a change of processes may shift."""
        found = self._list(node.path)
        part = found[after : after + max(size // 64, 1)]
        return after + len(part), after + len(part) >= len(found), pack_entries(part)

    def _list(self, path: bytes) -> list[Entry]:
        names = os.fsdecode(path).split("/") if path else []
        if not names:
            texts = [Entry(name.encode(), 4 + index, stat.S_IFREG) for index, name in enumerate(sorted(self._texts))]
            links = [Entry(b"self", 2, stat.S_IFLNK), Entry(b"mounts", 3, stat.S_IFLNK)]
            pids = sorted(record.pid for record in self._files.processes())
            return [*links, *texts, *(Entry(b"%d" % pid, (pid + 1) << 16, stat.S_IFDIR) for pid in pids)]
        record = self._process(names[0])
        base = (record.pid + 1) << 16
        if len(names) == 1:
            kinds = [stat.S_IFDIR if name == "fd" else stat.S_IFREG for name in _OF_PROCESS]
            return [Entry(n.encode(), base + 1 + i, kinds[i]) for i, n in enumerate(_OF_PROCESS)]
        return [Entry(n.encode(), base + 16 + int(n), stat.S_IFLNK) for n, _ in self._files.paths_of(record.pid)]

    # ---- what stands in it

    def read(self, node: Remote, offset: int, size: int) -> bytes:
        """See `volume.Volume`."""
        names = os.fsdecode(node.path).split("/")
        text = self._texts[names[0]]() if names[0] in self._texts else self._of_process(names)
        return text.encode("utf-8", "surrogateescape")[offset : offset + size]

    def _of_process(self, names: list[str]) -> str:
        record = self._process(names[0])
        if names[1] == "comm":
            return f"{record.name}\n"
        if names[1] == "mounts":
            return "".join(
                f"{row['source']} {row['path']} {row['kind']} {row['options']} 0 0\n"
                for row in self._files.mount_table()
            )
        state = "R (running)" if record.state == LIVE else "Z (zombie)"
        rows = {
            "Name": record.name,
            "State": state,
            "Pid": record.pid,
            "PPid": record.parent,
            "Uid": "\t".join([str(record.uid)] * 4),
            "HostPid": record.host_pid,
            "FDSize": len(self._files.paths_of(record.pid)),
        }
        return "".join(f"{key}:\t{value}\n" for key, value in rows.items())

    def _uptime(self) -> str:
        started = min((record.started_ns for record in self._files.processes()), default=time.monotonic_ns())
        return f"{(time.monotonic_ns() - min(started, self._files.started_ns)) / 1e9:.2f} 0.00\n"

    def _meminfo(self) -> str:
        total, free = self._files.device_blocks()
        rows = {"DeviceTotal": total * 4, "DeviceFree": free * 4}
        for name, pool in self._files.pools().items():
            rows[f"Stacks({name})"] = int(pool.get("resident", 0)) >> 10
        return "".join(f"{key + ':':<24}{value:>10} kB\n" for key, value in rows.items())

    def _services(self) -> str:
        rows = [
            f"{pool['number']:>6} {name:<16} {pool['bound']:>6} {pool['free']:>6}\n"
            for name, pool in self._files.pools().items()
        ]
        return "number name              bound   free\n" + "".join(rows)

    def statfs(self, path: bytes) -> tuple[int, ...]:
        """See `volume.Volume`."""
        return (_MAGIC, 4096, 0, 0, 0, 0, 1, 0)


def pools(ask: Callable[[], bytes]) -> dict[str, dict[str, int]]:
    """Every service's stack pool, as the core tells."""
    try:
        found: dict[str, dict[str, int]] = json.loads(ask())
    except (CallError, ValueError):
        return {}
    return found
