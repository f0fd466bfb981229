"""Open files, positions, locks and unlinked files survive the death of `fs`; every operation happens exactly once."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import shim
from corekernel.errors import ServiceError
from tests.file_calls import Files
from tests.processes import Tell
from tests.systems import Box, boot_box

DYING = """
[service.fs]
module = "tests.dying_fs"
restart = { max_per_minute = 6000, backoff_ms = 1, backoff_max_ms = 1 }
"""
QUICK_STEPS = 6  # kills of each operation in the quick run, spread over all its steps


@pytest.fixture(scope="module")
def _dying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("dying"), "default", DYING)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def dying(_dying: Box) -> Iterator[Box]:
    """A system whose `fs` can be told to die; each test leaves its pools settled."""
    yield _dying
    _dying.settle()
    _dying.attached.clear()


@pytest.fixture
def files(dying: Box) -> Files:
    """The file system, with an empty directory /d."""
    files = Files(dying.attach().client("fs"))
    if files.exists(b"/d"):
        for name in files.names(b"/d"):
            files.unlink(b"/d/" + name)
    else:
        files.mkdir(b"/d")
    return files


# ---- one operation, killed at every step


@dataclass
class Case:
    """An operation, what must be true after it, and what is there before; `prepare` gives a descriptor, or -1."""

    act: Callable[[Files, int], Any]
    check: Callable[[Files, int, Any], bool]
    prepare: Callable[[Files], int] = lambda files: -1


def _put(*files_there: tuple[bytes, bytes]) -> Callable[[Files], int]:
    def prepare(files: Files) -> int:
        for path, data in files_there:
            files.put(path, data)
        return -1

    return prepare


def _opened(data: bytes, flags: int = os.O_RDWR, position: int = 0) -> Callable[[Files], int]:
    def prepare(files: Files) -> int:
        files.put(b"/d/a", data)
        number = files.open(b"/d/a", flags)
        files.seek(number, position)
        return number

    return prepare


def _unlinked(files: Files) -> int:
    number = _opened(b"contents")(files)
    files.unlink(b"/d/a")
    return number


def _closed(files: Files, number: int, result: Any) -> bool:
    with pytest.raises(ServiceError) as caught:
        files.read(number)
    return caught.value.errno == errno.EBADF


def _closes_all(files: Files, number: int) -> bool:
    """Whether a descriptor is the only one."""
    files.close(number)
    other = files.open(b"/d/a")
    files.close(other)
    return other == number


def _without_e(files: Files) -> int:
    if files.exists(b"/e"):
        files.unlink(b"/e", directory=True)
    return -1


def _directory(files: Files) -> int:
    files.mkdir(b"/d/a")
    return -1


def _mounted(files: Files) -> int:
    _directory(files)
    files.client.mount(next(files.numbers), "proc", b"/d/a")
    return -1


def _removed(files: Files) -> bool:
    files.unlink(b"/d/a", directory=True)
    return True


def _unmounted(files: Files) -> bool:
    files.client.unmount(next(files.numbers), b"/d/a")
    return _removed(files)


TEN = b"0123456789"
CASES = {
    "rename over a file": Case(
        lambda f, n: f.rename(b"/d/a", b"/d/b"),
        lambda f, n, r: f.names(b"/d") == {b"b"} and f.get(b"/d/b") == b"a" * 5000,
        _put((b"/d/a", b"a" * 5000), (b"/d/b", b"b" * 9000)),
    ),
    "exchange": Case(
        lambda f, n: f.rename(b"/d/a", b"/d/b", 2),
        lambda f, n, r: f.get(b"/d/a") == b"b" and f.get(b"/d/b") == b"a",
        _put((b"/d/a", b"a"), (b"/d/b", b"b")),
    ),
    "unlink of an open file": Case(
        lambda f, n: f.unlink(b"/d/a"),
        lambda f, n, r: f.names(b"/d") == set() and f.read(n, 0) == b"contents",
        _opened(b"contents"),
    ),
    "close of an unlinked file": Case(lambda f, n: f.close(n), _closed, _unlinked),
    "truncate": Case(
        lambda f, n: f.truncate(b"/d/a", 5001),
        lambda f, n, r: f.get(b"/d/a") == b"x" * 5001 and f.stat(b"/d/a").blocks == 16,
        _put((b"/d/a", b"x" * 20000)),
    ),
    "write at the position": Case(
        lambda f, n: f.write(n, b"abc"),
        lambda f, n, r: r == 3 and f.read(n) == b"89" and f.get(b"/d/a") == b"01234abc89",
        _opened(TEN, position=5),
    ),
    "append": Case(
        lambda f, n: f.write(n, b"y" * 5000),
        lambda f, n, r: r == 5000 and f.get(b"/d/a") == b"x" + b"y" * 5000,
        _opened(b"x", os.O_WRONLY | os.O_APPEND),
    ),
    "read at the position": Case(
        lambda f, n: f.read(n, size=2),
        lambda f, n, r: r == b"56" and f.read(n) == b"789",
        _opened(TEN, position=5),
    ),
    "exclusive creation": Case(
        lambda f, n: f.open(b"/d/a", os.O_CREAT | os.O_EXCL | os.O_RDWR),
        lambda f, n, made: f.write(made, b"z") == 1 and f.get(b"/d/a") == b"z",
    ),
    "store of a new file": Case(
        lambda f, n: f.store(b"/d/a", b"n" * 9000),
        lambda f, n, stored: stored and f.get(b"/d/a") == b"n" * 9000 and f.stat(b"/d/a").blocks == 24,
    ),
    "store over a file": Case(
        lambda f, n: f.store(b"/d/a", b"n" * 5000),
        lambda f, n, stored: stored and f.get(b"/d/a") == b"n" * 5000 and f.stat(b"/d/a").blocks == 16,
        _put((b"/d/a", b"o" * 20000)),
    ),
    "fetch of a large file": Case(
        lambda f, n: f.fetch(b"/d/a"),
        lambda f, n, number: f.read(number) == b"l" * 200_000 and _closes_all(f, number),
        _put((b"/d/a", b"l" * 200_000)),
    ),
    "make directory": Case(lambda f, n: f.mkdir(b"/e"), lambda f, n, r: f.stat(b"/e").nlink == 2, _without_e),
    "mount": Case(
        lambda f, n: f.client.mount(next(f.numbers), "proc", b"/d/a"),
        lambda f, n, r: b"mounts" in f.names(b"/d/a") and _unmounted(f),
        _directory,
    ),
    "unmount": Case(
        lambda f, n: f.client.unmount(next(f.numbers), b"/d/a"),
        lambda f, n, r: f.names(b"/d/a") == set() and _removed(f),
        _mounted,
    ),
    "link": Case(
        lambda f, n: f.link(b"/d/a", b"/d/b"),
        lambda f, n, r: f.stat(b"/d/a").nlink == 2 and f.stat(b"/d/a").ino == f.stat(b"/d/b").ino,
        _put((b"/d/a", b"1")),
    ),
    "list, which writes to the database what is not there yet": Case(
        lambda f, n: f.names(b"/d"),
        lambda f, n, r: r == {b"a", b"b", b"c"},
        _put((b"/d/a", b"1"), (b"/d/b", b"2"), (b"/d/c", b"3")),
    ),
    "duplicate": Case(
        lambda f, n: f.client.duplicate(next(f.numbers), n, 0, False, 0),
        lambda f, n, other: f.read(other) == b"56789" and f.read(n) == b"",
        _opened(TEN, position=5),
    ),
}


def _killed_at(dying: Box, files: Files, case: Case, line: int) -> bool:
    """Run a case with a kill at a line of the operation; False when the operation has fewer lines."""
    before = case.prepare(files)
    files.stat(b"/.die-%d" % line)
    result = case.act(files, before)
    lived = files.exists(b"/.lived")
    assert case.check(files, before, result), f"killed at line {line}"
    return not lived


def _cleared(dying: Box, name: str) -> Files:
    """A new client, all else gone, and /d empty."""
    for system in dying.attached:
        system.close()
    dying.attached.clear()
    files = Files(dying.attach().client("fs"))
    for entry in files.names(b"/d"):
        files.unlink(b"/d/" + entry)
    return files


def _campaign(dying: Box, files: Files, name: str, lines: Iterator[int]) -> int:
    """Kill an operation at these lines until it has no such line; how many kills there were."""
    killed = 0
    free = files.free()
    for line in lines:
        if not _killed_at(dying, files, CASES[name], line):
            break
        killed += 1
        files = _cleared(dying, name)
    files = _cleared(dying, name)
    assert files.free() == free, "blocks were lost"
    return killed


@pytest.mark.parametrize("name", CASES)
def test_an_operation_is_done_once_wherever_fs_is_killed(dying: Box, files: Files, name: str) -> None:
    steps = _length(dying, files, name)
    stride = max(steps // QUICK_STEPS, 1)
    killed = _campaign(dying, _cleared(dying, name), name, iter(range(1 + stride // 2, steps, stride)))
    assert killed >= QUICK_STEPS - 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_an_operation_is_done_once_at_every_line_of_fs(dying: Box, files: Files, name: str) -> None:
    assert _campaign(dying, files, name, itertools.count(1)) > 20


def _length(dying: Box, files: Files, name: str) -> int:
    """About how many lines an operation has: found by halving, without a kill wherever possible."""
    low, high = 1, 2048
    while not _survives(dying, files, name, high):
        high *= 2
        files = _cleared(dying, name)
    while high - low > 32:
        middle = (low + high) // 2
        files = _cleared(dying, name)
        if _survives(dying, files, name, middle):
            high = middle
        else:
            low = middle
    return low


def _survives(dying: Box, files: Files, name: str, line: int) -> bool:
    return not _killed_at(dying, files, CASES[name], line)


# ---- what stays open


def test_open_files_positions_and_locks_survive(dying: Box, files: Files) -> None:
    files.put(b"/d/a", b"0123456789")
    number = files.open(b"/d/a", os.O_RDWR)
    files.read(number, size=4)
    files.client.lock_file(number, fcntl.LOCK_EX)
    other = Files(dying.attach().client("fs"))
    theirs = other.open(b"/d/a")
    dying.recovered("fs", dying.kill("fs"))
    with pytest.raises(ServiceError) as caught:
        other.client.lock_file(theirs, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert caught.value.errno == errno.EWOULDBLOCK
    assert files.read(number) == b"456789"
    files.close(number)
    other.client.lock_file(theirs, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_what_a_client_held_goes_with_it_even_while_fs_is_down(dying: Box, files: Files) -> None:
    free = files.free()
    files.put(b"/d/a", b"x" * 100_000)

    def hold(system: shim.System, tell: Tell) -> None:
        mine = Files(system.client("fs"))
        number = mine.open(b"/d/a", os.O_RDWR)
        mine.client.lock_range(number, fcntl.F_WRLCK, 0, 0, False)
        tell("open")

    child = dying.client(hold)
    child.hear()
    files.unlink(b"/d/a")
    with dying.frozen("fs") as pid:
        child.close()
        os.kill(pid, 9)
    dying.recovered("fs", dying.generation("fs") - 1)
    assert files.free() == free
