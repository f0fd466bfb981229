"""What is timed: one operation on files, prepared in a client process, then done again and again.

An operation is made for a `Site`: it gets ready (files made, descriptors open) and gives a `Deed`. Its `act(i)` is what
is timed, with i from 0 on, one after the other, never twice the same. `again` is called, untimed, before the first and
then before every `period`th act: a file that has been read or written to its end begins anew.

Files that are only read are shared by all clients and made once for each place (`furnish`); what is written is each
client's own.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Final

from bench.files.places import Calls, Place
from bench.files.plan import Plan

SMALL = b"0123456789abcdef" * 64  # 1 KiB
PAGE = SMALL * 4
MIB = 1 << 20
CHUNK = SMALL * 1024
WRITE_NEW = os.O_CREAT | os.O_WRONLY
_PAGES_WRITTEN = 1024
_FILES_READ = 100


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a client works: `shared` is what `furnish` made, `own` a directory of this client alone, empty."""

    calls: Calls
    shared: str
    own: str
    plan: Plan
    acts: int  # how many there will be at most


@dataclasses.dataclass(frozen=True)
class Deed:
    """An operation, ready."""

    act: Callable[[int], object]
    again: Callable[[], object] | None = None
    period: int = 0


@dataclasses.dataclass(frozen=True)
class Operation:
    """A case: what it needs for a client, and how many bytes of contents one act moves."""

    prepare: Callable[[Site], Deed]
    moved: int = 0


def put(calls: Calls, path: str, data: bytes) -> None:
    """Make a file, as the case `create` does."""
    fd = calls.open(path, WRITE_NEW, 0o644)
    calls.write(fd, data)
    calls.close(fd)


def furnish(calls: Calls, place: Place, plan: Plan) -> None:
    """Make what the clients share: a directory of small files, and a big file."""
    shared = shared_of(place)
    calls.mkdir(shared)
    calls.mkdir(f"{shared}/listed")
    for index in range(plan.listed):
        put(calls, f"{shared}/listed/{index:06}", SMALL)
    fd = calls.open(f"{shared}/big", WRITE_NEW, 0o644)
    for _ in range(plan.big_mib):
        calls.write(fd, CHUNK)
    calls.close(fd)


def shared_of(place: Place) -> str:
    """Path of what `furnish` makes."""
    return f"{place.root}/shared"


# ---- the operations


def _create(site: Site) -> Deed:
    calls, own = site.calls, site.own
    return Deed(lambda i: put(calls, f"{own}/{i}", SMALL))


def _some(site: Site) -> list[str]:
    """Paths of files that are there."""
    return [f"{site.shared}/listed/{index:06}" for index in range(min(_FILES_READ, site.plan.listed))]


def _stat(site: Site) -> Deed:
    stat, paths = site.calls.stat, _some(site)
    count = len(paths)
    return Deed(lambda i: stat(paths[i % count]))


def _open(site: Site) -> Deed:
    open_, close, paths = site.calls.open, site.calls.close, _some(site)
    count = len(paths)
    return Deed(lambda i: close(open_(paths[i % count], os.O_RDONLY, 0)))


def _readdir(site: Site) -> Deed:
    listdir, path, count = site.calls.listdir, f"{site.shared}/listed", site.plan.listed

    def act(i: int) -> None:
        assert len(listdir(path)) == count

    return Deed(act)


def _read_4k(site: Site) -> Deed:
    fd, pread = site.calls.open(f"{site.shared}/big", os.O_RDONLY, 0), site.calls.pread
    pages = site.plan.big_mib * MIB // len(PAGE)

    def act(i: int) -> None:
        assert len(pread(fd, 4096, i * 7919 % pages * 4096)) == 4096

    return Deed(act)


def _write_4k(site: Site) -> Deed:
    calls = site.calls
    fd, pwrite = calls.open(f"{site.own}/file", os.O_CREAT | os.O_RDWR, 0o644), calls.pwrite
    for _ in range(_PAGES_WRITTEN * len(PAGE) // MIB):
        calls.write(fd, CHUNK)
    return Deed(lambda i: pwrite(fd, PAGE, i * 797 % _PAGES_WRITTEN * 4096))


def _read_seq(site: Site) -> Deed:
    calls = site.calls
    fd, read = calls.open(f"{site.shared}/big", os.O_RDONLY, 0), calls.read

    def act(i: int) -> None:
        assert len(read(fd, MIB)) == MIB

    return Deed(act, lambda: calls.lseek(fd, 0, os.SEEK_SET), site.plan.big_mib)


def _write_seq(site: Site) -> Deed:
    """A file written from its beginning on; before it is written again, it is cut to nothing."""
    calls = site.calls
    fd, write = calls.open(f"{site.own}/file", os.O_CREAT | os.O_RDWR, 0o644), calls.write

    def again() -> None:
        calls.ftruncate(fd, 0)
        calls.lseek(fd, 0, os.SEEK_SET)

    for _ in range(site.plan.big_mib):  # the host gives memory at its first use: that is not timed here
        write(fd, CHUNK)
    return Deed(lambda i: write(fd, CHUNK), again, site.plan.big_mib)


def _rename(site: Site) -> Deed:
    rename, own = site.calls.rename, site.own
    put(site.calls, f"{own}/0", SMALL)
    names = itertools.count()
    old = f"{own}/{next(names)}"

    def act(i: int) -> None:
        nonlocal old
        new = f"{own}/{next(names)}"
        rename(old, new)
        old = new

    return Deed(act)


def _unlink(site: Site) -> Deed:
    unlink, own = site.calls.unlink, site.own
    for index in range(site.acts):
        put(site.calls, f"{own}/{index}", SMALL)
    return Deed(lambda i: unlink(f"{own}/{i}"))


OPERATIONS: Final[Mapping[str, Operation]] = {
    "create": Operation(_create),
    "stat": Operation(_stat),
    "open": Operation(_open),
    "readdir": Operation(_readdir),
    "read-4k": Operation(_read_4k, 4096),
    "write-4k": Operation(_write_4k, 4096),
    "read-seq": Operation(_read_seq, MIB),
    "write-seq": Operation(_write_seq, MIB),
    "rename": Operation(_rename),
    "unlink": Operation(_unlink),
}
