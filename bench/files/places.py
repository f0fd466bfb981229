"""Where files are measured: a running system, the host's tmpfs, and a file system of the host on a disk.

The measured code is the same for all: it calls the functions of a `Calls`, which are those of `os`, or those of
`system.files`, which have the same signatures. On the host each place is a private directory that goes with the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import shim
from bench.hmk.system import Booted, boot_text

ROOT = "/bench"
SERVICE = "fs"
MEMORY_DIRECTORY = "/dev/shm"
_PREFIX = "hmkbench-fs-"


@dataclasses.dataclass(frozen=True)
class Calls:
    """What the measured code calls, with the signatures of `os`, of `shutil.rmtree` and of paths."""

    open: Callable[[str, int, int], int]
    close: Callable[[int], None]
    read: Callable[[int, int], bytes]
    write: Callable[[int, Any], int]
    pread: Callable[[int, int, int], bytes]
    pwrite: Callable[[int, Any, int], int]
    lseek: Callable[[int, int, int], int]
    ftruncate: Callable[[int, int], None]
    stat: Callable[[str], os.stat_result]
    listdir: Callable[[str], list[str]]
    rename: Callable[[str, str], None]
    unlink: Callable[[str], None]
    mkdir: Callable[[str], None]
    remove: Callable[[str], None]
    read_bytes: Callable[[str], bytes]
    write_bytes: Callable[[str, bytes], int]


def _read_bytes(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _write_bytes(path: str, data: bytes) -> int:
    with open(path, "wb", buffering=0) as file:
        return file.write(data)


HOST = Calls(
    os.open, os.close, os.read, os.write, os.pread, os.pwrite, os.lseek, os.ftruncate, os.stat, os.listdir, os.rename,
    os.unlink, os.mkdir, shutil.rmtree, _read_bytes, _write_bytes,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Session:
    """A place as one client process has it.

    Attributes:
        calls: what it calls.
        made: how many calls the service has served so far, whosever; 0 on the host.
        mounts: where something else is mounted.
    """

    calls: Calls
    made: Callable[[], int]
    mounts: tuple[str, ...] = ()


class Place(Protocol):
    """Somewhere to keep files; `system` is its name in rows, `root` a directory of its own."""

    @property
    def system(self) -> str:
        """Its name in rows."""
        ...

    @property
    def root(self) -> str:
        """A directory of its own."""
        ...

    def session(self) -> Session:
        """Get ready to call, in a client process."""
        ...

    def cpu_ns(self) -> int:
        """CPU time used by whoever serves the files, nanoseconds; 0 on the host."""
        ...


@dataclasses.dataclass(frozen=True)
class HostPlace:
    """A directory of the host."""

    system: str
    root: str

    def session(self) -> Session:
        """See `Place`."""
        return Session(HOST, lambda: 0)

    def cpu_ns(self) -> int:
        """See `Place`."""
        return 0


@dataclasses.dataclass(frozen=True)
class SystemPlace:
    """A running system."""

    booted: Booted
    root: str = ROOT

    @property
    def system(self) -> str:
        """See `Place`."""
        return self.booted.system

    def session(self) -> Session:
        """See `Place`."""
        return session_of(shim.attach(self.booted.name))

    def cpu_ns(self) -> int:
        """See `Place`."""
        return self.booted.cpu_ns()


def session_of(system: shim.System) -> Session:
    """What a client of a system calls. The service itself counts, before it replies: asking takes no call."""
    files = system.files

    def made() -> int:
        return int(system.ask("statistics", service=SERVICE)["totals"]["calls"])

    calls = Calls(
        files.open_descriptor, files.close, files.read, files.write, files.pread, files.pwrite, files.lseek,
        files.ftruncate, files.stat, files.listdir, files.rename, files.unlink, files.mkdir, files.rmtree,
        files.read_bytes, files.write_bytes,
    )  # fmt: skip
    return Session(calls, made, tuple(mount.path for mount in files.mounts()))


def file_system_of(path: str | Path) -> str:
    """The kind of file system a directory of the host is on, as /proc/self/mounts names it."""
    real = os.path.realpath(path)
    best, kind = "", "host"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, found = line.split(" ", 3)[:3]
        where = mount.encode().decode("unicode_escape").rstrip("/")
        if (real == where or real.startswith(where + "/")) and len(where) >= len(best):
            best, kind = where, found
    return kind


def disk_directory() -> str:
    """The directory for temporary files that outlive a boot: TMPDIR, or /var/tmp."""
    return os.environ.get("TMPDIR") or "/var/tmp"


@contextlib.contextmanager
def host_places() -> Iterator[list[HostPlace]]:
    """Directories on the host's tmpfs, and on what TMPDIR or /var/tmp is on if that is something else."""
    wanted = dict.fromkeys((file_system_of(path), path) for path in (MEMORY_DIRECTORY, disk_directory()))
    kinds: dict[str, str] = {}
    for kind, path in wanted:
        if os.access(path, os.W_OK):
            kinds.setdefault(kind, path)
    with contextlib.ExitStack() as stack:
        yield [
            HostPlace(kind, stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path)))
            for kind, path in kinds.items()
        ]


@contextlib.contextmanager
def places() -> Iterator[list[Place]]:
    """A fresh system of the default composition, then the places of the host.

    Raises:
        BootError: the system does not come up.
    """
    with boot_text('inherit = "default"') as booted, host_places() as others:
        yield [SystemPlace(booted), *others]
