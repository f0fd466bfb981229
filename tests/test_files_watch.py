"""Changes are noted as Linux's inotify notes them: the same operations here and on a tmpfs of the host."""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import shim
from services.fs.watches import ALL, CREATE, DELETE, IS_DIRECTORY, OVERFLOW, QUEUED
from shim.files import Files
from tests.processes import Tell
from tests.systems import Box, boot_box

_EVENT = struct.Struct("<iIII")
_libc = ctypes.CDLL(None, use_errno=True)
_bases = itertools.count()

Noted: TypeAlias = "tuple[int, int, bytes]"
Act: TypeAlias = "Callable[[Any, str], None]"


def parsed(raw: bytes) -> list[Noted]:
    """(watch, mask, name) of each event."""
    events = []
    while raw:
        watch, mask, _, length = _EVENT.unpack_from(raw)
        events.append((watch, mask, raw[_EVENT.size : _EVENT.size + length].rstrip(b"\0")))
        raw = raw[_EVENT.size + length :]
    return events


@pytest.fixture(scope="module")
def _box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("watch"), "default", "")
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def files(_box: Box) -> Iterator[Files]:
    """The files of a system, for tests that leave it as it was."""
    yield _box.attach().files
    _box.settle()
    _box.attached.clear()


# ---- the same operations on both sides; `side` is the module os, or the file API


def _open(side: Any, path: str, flags: int) -> int:
    return int(side.open(path, flags) if side is os else side.open_descriptor(path, flags))


def _read_and_write(side: Any, base: str) -> None:
    number = _open(side, f"{base}/f", os.O_RDWR)
    side.read(number, 3)
    side.write(number, b"xyz")
    side.close(number)


def _make_and_strike(side: Any, base: str) -> None:
    side.close(_open(side, f"{base}/new", os.O_CREAT | os.O_WRONLY))
    side.mkdir(f"{base}/sub")
    side.symlink("f", f"{base}/link")
    side.link(f"{base}/f", f"{base}/hard")
    side.unlink(f"{base}/hard")
    side.unlink(f"{base}/link")
    side.rmdir(f"{base}/sub")
    side.unlink(f"{base}/new")


def _rename(side: Any, base: str) -> None:
    side.rename(f"{base}/f", f"{base}/g")
    side.mkdir(f"{base}/sub")
    side.rename(f"{base}/g", f"{base}/sub/h")
    side.rename(f"{base}/sub/h", f"{base}/f")


def _change(side: Any, base: str) -> None:
    side.chmod(f"{base}/f", 0o600)
    side.utime(f"{base}/f", (1, 2))


def _whole(side: Any, base: str) -> None:
    path = Path(f"{base}/new") if side is os else side.path(f"{base}/new")
    path.write_bytes(b"contents")
    assert path.read_bytes() == b"contents"
    path.unlink()


def _last_name(side: Any, base: str) -> None:
    side.unlink(f"{base}/f")


OPERATIONS = (_read_and_write, _make_and_strike, _rename, _change, _whole, _last_name)


def _noted_on_host(act: Act) -> list[Noted]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as base:
        Path(base, "f").write_bytes(b"contents")
        notes = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for path in (base, f"{base}/f"):
            assert _libc.inotify_add_watch(notes, path.encode(), ALL) > 0
        act(os, base)
        noted = parsed(os.read(notes, 1 << 16))
        os.close(notes)
    return noted


def _noted_here(files: Files, act: Act) -> list[Noted]:
    base = f"/{next(_bases)}"
    files.mkdir(base)
    (files.path(base) / "f").write_bytes(b"contents")
    numbers = [files.watch(path, ALL) for path in (base, f"{base}/f")]
    act(files, base)
    return [(numbers.index(c.number) + 1, c.mask, os.fsencode(c.name)) for c in files.changes(wait=False)]


@pytest.mark.parametrize("act", OPERATIONS)
def test_the_same_is_noted_as_by_inotify(files: Files, act: Act) -> None:
    assert _noted_here(files, act) == _noted_on_host(act)


def test_a_waiting_client_is_told(_box: Box, files: Files) -> None:
    files.mkdir("/told")

    def wait(system: shim.System, tell: Tell) -> list[str]:
        system.files.watch("/told", CREATE)
        tell("watching")
        return [os.fsdecode(change.name) for change in system.files.changes()]

    child = _box.client(wait)
    child.hear()
    child.waits()
    files.mkdir("/told/x")
    assert child.result() == ["x"]


def test_a_death_of_fs_is_an_overflow_and_watches_go_on(_box: Box, files: Files) -> None:
    files.mkdir("/kept")
    number = files.watch("/kept", CREATE)
    files.mkdir("/kept/lost")
    _box.recovered("fs", _box.kill("fs"))
    files.mkdir("/kept/found")
    changes = files.changes(wait=False)
    assert [(c.number, c.mask & ~IS_DIRECTORY) for c in changes] == [(-1, OVERFLOW), (number, CREATE)]


def test_a_full_queue_is_an_overflow_at_its_end(files: Files) -> None:
    files.mkdir("/full")
    files.watch("/full", CREATE | DELETE)
    for index in range(QUEUED // 2 + 1):
        files.mkdir(f"/full/{index}")
        files.rmdir(f"/full/{index}")
    changes = []
    while True:
        try:
            changes += files.changes(wait=False)
        except BlockingIOError:
            break
    assert len(changes) == QUEUED
    assert [c.mask for c in changes if c.mask == OVERFLOW] == [OVERFLOW] and changes[-1].mask == OVERFLOW
