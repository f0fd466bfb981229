"""`system.files`: what the library does with files it does with these; errors, threads, forks, calls saved."""

from __future__ import annotations

import array
import csv
import errno
import fcntl
import gc
import io
import json
import os
import pickle
import shutil
import sqlite3
import stat
import tarfile
import termios
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shim
from corekernel.port import Reply
from services.files import LARGEST_WHOLE
from services.stubs.devmgr import DevmgrClient
from services.stubs.fs import FsClient, FsOperation
from shim.files import Files, RawFile
from tests.callers import in_threads
from tests.processes import Tell
from tests.systems import Box, Keeps

MEGABYTE = bytes(range(256)) * 4096


@pytest.fixture
def box(kept: Keeps) -> Box:
    """A system with a file system, for all tests here."""
    return kept(base="default")


@pytest.fixture
def files(box: Box) -> Iterator[Files]:
    """The files of a client that stands in an empty directory."""
    files = box.attach().files
    files.mkdir("/here")
    files.chdir("/here")
    yield files
    files.chdir("/")
    files.rmtree("/here")


class Counted:
    """A port that notes what is called."""

    def __init__(self, system: shim.System) -> None:
        self._port = system.port("fs")
        self.calls: list[str] = []

    def call(self, operation: int, *arguments: Any, **named: Any) -> Reply:
        """See `corekernel.port.Port`."""
        self.calls.append(FsOperation(operation).name.lower())
        return self._port.call(operation, *arguments, **named)


def counted(box: Box) -> tuple[Files, list[str]]:
    port = Counted(box.attach())
    return Files(FsClient(port), lambda: DevmgrClient(port)), port.calls


def refusal(call: Callable[..., object], *arguments: Any, **named: Any) -> OSError:
    with pytest.raises(OSError) as caught:
        call(*arguments, **named)
    assert caught.value.errno, caught.value
    return caught.value


# ---- open


@pytest.mark.parametrize("there", [True, False])
def test_a_mode_means_what_it_means_to_the_builtin_open(files: Files, tmp_path: Path, there: bool) -> None:
    def use(opener: Callable[..., Any], path: str, mode: str) -> list[object]:
        said: list[object] = []
        try:
            with opener(path, mode) as file:
                text = "wörd\n" if "b" not in mode else b"w\xc3\xb6rd\n"
                said += [type(file).__name__, file.mode, file.readable(), file.writable(), file.tell()]
                for step in (lambda: file.write(text), lambda: file.seek(1), file.read, file.tell, file.truncate):
                    try:
                        said.append(step())
                    except (OSError, ValueError) as error:
                        said.append(type(error).__name__)
            said.append(file.closed)
        except OSError as error:
            said.append((type(error).__name__, error.errno))
        return said

    for mode in ("r", "r+", "rb", "rb+", "w", "w+b", "x", "xb+", "a", "ab", "a+", "rt", "wt"):
        host, path = tmp_path / mode, files.path(mode)
        if there:
            host.write_text("before")
            path.write_text("before")
        assert use(files.open, str(path), mode) == use(open, str(host), mode), mode
        assert path.exists() == host.exists()
        assert not path.exists() or path.read_bytes() == host.read_bytes()


def test_wrong_arguments_are_refused_without_a_call(box: Box) -> None:
    files, calls = counted(box)
    wrong: list[Any] = [
        ("f", "q"),
        ("f", "rw"),
        ("f", "rbt"),
        ("f", "b"),
        ("f", "r", 0),
        ("f", "rb", -1, "utf-8"),
        ("f\0",),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError):
            files.open(*arguments)
    no_path: Any = 1.5
    with pytest.raises(TypeError):
        files.open(no_path)
    assert calls == []


def test_a_raw_file_is_like_a_file_of_io(files: Files) -> None:
    with files.open("f", "wb+", buffering=0) as raw:
        assert isinstance(raw, RawFile) and isinstance(raw, io.RawIOBase)
        assert (raw.write(b"0123456789"), raw.tell(), raw.seek(-3, os.SEEK_END)) == (10, 10, 7)
        buffer = bytearray(b"......")
        assert (raw.readinto(buffer), bytes(buffer)) == (3, b"789...")
        assert (raw.read(), raw.readall(), raw.read(0)) == (b"", b"", b"")
        assert (raw.seekable(), raw.isatty(), raw.mode, raw.name) == (True, False, "rb+", "f")
        assert raw.truncate(4) == 4
        assert (raw.seek(0), raw.readall()) == (0, b"0123")
        with pytest.raises(TypeError):
            pickle.dumps(raw)
    for use in (raw.read, raw.tell, raw.fileno, lambda: raw.write(b"x"), raw.seekable):
        with pytest.raises(ValueError, match="closed"):
            use()
    raw.close()
    with files.open("f", "rb", buffering=0) as raw, pytest.raises(io.UnsupportedOperation):
        raw.write(b"x")


def test_a_descriptor_can_be_opened_and_outlive_the_file(files: Files) -> None:
    fd = files.open_descriptor("f", os.O_RDWR | os.O_CREAT)
    with files.open(fd, "w", closefd=False) as file:
        file.write("text")
    assert files.fstat(fd).st_size == 4
    with files.open(fd, "rb") as again:
        assert (again.tell(), again.seek(0), again.read()) == (4, 0, b"text")
    assert refusal(files.fstat, fd).errno == errno.EBADF
    assert refusal(files.open, ".").errno == errno.EISDIR


def test_a_position_that_others_move_is_asked_for(files: Files) -> None:
    with files.open("f", "wb+", buffering=0) as file:
        file.write(b"0123456789")
        other = files.dup(file.fileno())
        files.lseek(other, 3, os.SEEK_SET)
        assert (file.tell(), file.read(2), files.read(other, 2), file.tell()) == (3, b"34", b"56", 7)
        files.close(other)


def test_what_nobody_closed_is_closed_and_warned_of(files: Files) -> None:
    files.path("f").write_bytes(b"")
    for buffering in (0, -1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            files.open("f", "rb", buffering)
            gc.collect()
        assert [w.category for w in caught] == [ResourceWarning]
    fd = files.open_descriptor("f", os.O_RDONLY)
    assert fd <= 1, "the descriptors have come back (one is the current directory)"
    files.close(fd)


# ---- how many calls


def test_no_call_is_made_that_need_not_be(box: Box) -> None:
    files, calls = counted(box)

    def of(body: Callable[[], object]) -> list[str]:
        calls.clear()
        body()
        return calls[:]

    def create() -> None:
        with files.open("/calls", "wb") as file:
            file.write(bytes(1024))

    def write_json() -> None:
        with files.open("/calls", "w") as file:
            json.dump(list(range(10_000)), file)

    def read_json() -> None:
        with files.open("/calls") as file:
            assert json.load(file) == list(range(10_000))

    def read_lines() -> None:
        with files.open("/calls") as file:
            assert sum(map(len, file)) == 58890

    def tell_and_seek() -> None:
        with files.open("/calls", "rb") as file:
            assert (file.read(10), file.tell(), file.seek(5), len(file.read(100))) == (b"[0, 1, 2, ", 10, 5, 100)

    assert of(create) == ["open", "write", "close"]
    assert of(write_json) == ["open", "write", "close"]
    assert of(read_json) == ["open", "read", "close"]
    assert of(read_lines) == ["open", *["read"] * 3, "close"]  # it asks for the end, and again for the next line
    assert of(tell_and_seek) == ["open", "read", "close"]
    assert of(lambda: files.path("/calls").read_bytes()) == ["fetch"]
    assert of(lambda: files.path("/calls").write_bytes(b"small")) == ["store"]
    assert of(lambda: files.path("/calls").write_text("small")) == ["open", "write", "close"]
    assert of(lambda: files.stat("/calls")) == ["stat"]
    assert of(lambda: files.listdir("/")) == ["open", "entries", "close"]
    files.unlink("/calls")


@pytest.mark.parametrize("size", [0, 1, 4097, LARGEST_WHOLE, LARGEST_WHOLE + 1, 3 * LARGEST_WHOLE])
def test_a_file_is_made_and_read_as_a_whole_whatever_its_size(box: Box, size: int) -> None:
    files, calls = counted(box)
    for data in (os.urandom(size), os.urandom(max(size - 1, 0))):
        assert files.write_bytes("/whole", data) == len(data)
        assert files.stat("/whole").st_size == len(data) and files.read_bytes("/whole") == data
        assert ("fetch" in calls) and ("store" in calls) == (len(data) <= LARGEST_WHOLE)
    assert files.write_bytes("/whole", array.array("I", range(size // 4))) == size // 4 * 4
    assert files.read_bytes("/whole") == array.array("I", range(size // 4)).tobytes()
    assert files.open_descriptor("/whole", os.O_RDONLY) == 0, "nothing was left open"
    files.close(0)
    files.unlink("/whole")


def test_what_is_no_file_is_read_and_made_whole_like_any_other(box: Box) -> None:
    files = box.attach().files
    with pytest.raises(IsADirectoryError, match="'/tmp'"):
        files.read_bytes("/tmp")
    with pytest.raises(IsADirectoryError, match="'/tmp'"):
        files.write_bytes("/tmp", b"x")
    assert (files.read_bytes("/dev/null"), files.write_bytes("/dev/null", b"xyz")) == (b"", 3)
    assert refusal(files.write_bytes, "/dev/full", b"x").errno == errno.ENOSPC
    assert refusal(files.write_bytes, "/proc/uptime", b"x").errno == errno.EROFS
    assert float(files.read_bytes("/proc/uptime").split()[0]) > 0
    assert refusal(files.read_bytes, "/nowhere").errno == errno.ENOENT


def test_large_contents_travel_in_large_pieces(box: Box) -> None:
    files, calls = counted(box)
    data = MEGABYTE * 33
    with files.open("/large", "wb") as file:
        assert file.write(data) == len(data)
    with files.open("/large", "rb") as file:
        assert file.read() == data
    assert calls == ["open", *["write"] * 3, "close", "open", *["read"] * 3, "close"]
    fd = files.open_descriptor("/large", os.O_RDWR)
    assert files.write(fd, data) == files.pwrite(fd, data, 0) == 16 << 20
    assert len(files.read(fd, 1 << 40)) == len(files.pread(fd, 1 << 40, 0)) == 16 << 20
    files.unlink("/large")


# ---- the library


def test_json_csv_and_lines(files: Files) -> None:
    value = {"ä": [1, 2.5, None, "x" * 100_000]}
    with files.open("f.json", "w", encoding="utf-8") as file:
        json.dump(value, file)
    with files.open("f.json", encoding="utf-8") as file:
        assert json.load(file) == value
    rows = [[str(n), "a,b", "line\nbreak"] for n in range(1000)]
    with files.open("f.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    with files.open("f.csv", newline="") as file:
        assert list(csv.reader(file)) == rows
    with files.open("lines", "w") as file:
        print(*range(100), sep="\n", file=file)
    with files.open("lines", "a+") as file:
        file.write("end")
        file.seek(0)
        assert [line.strip() for line in file] == [*map(str, range(100)), "end"]


def test_archives(files: Files) -> None:
    with files.open("a.tar.gz", "wb+") as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name in ("one", "two"):
                entry = tarfile.TarInfo(name)
                entry.size = len(MEGABYTE)
                archive.addfile(entry, io.BytesIO(MEGABYTE))
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            assert archive.getnames() == ["one", "two"]
            member = archive.extractfile("two")
            assert member is not None and member.read() == MEGABYTE
    with files.open("a.zip", "wb+") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("x/y", MEGABYTE)
        with zipfile.ZipFile(file) as zipped:
            assert (zipped.namelist(), zipped.read("x/y")) == (["x/y"], MEGABYTE)


def test_copies_from_and_to_the_host(files: Files, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "data").write_bytes(MEGABYTE)
    (tree / "sub" / "link").symlink_to("data")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o750)
    os.utime(tree / "run", ns=(10**15, 2 * 10**15 + 5))
    files.copy_in(tree, "copy")
    assert (files.stat("copy/run").st_mtime_ns, stat.S_IMODE(files.stat("copy/run").st_mode)) == (2 * 10**15 + 5, 0o750)
    files.copy_out("copy", tmp_path / "back")
    assert (tmp_path / "back/sub/link").read_bytes() == MEGABYTE
    assert os.readlink(tmp_path / "back/sub/link") == "data"
    assert os.stat(tmp_path / "back/run").st_mtime_ns == 2 * 10**15 + 5
    with files.open("copy/sub/data", "rb") as source, files.open("again", "wb") as target:
        shutil.copyfileobj(source, target)
    assert files.path("again").read_bytes() == MEGABYTE


def test_a_database_goes_in_and_out(files: Files, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("CREATE TABLE t AS SELECT 42 AS answer")
    files.copy_in(tmp_path / "db", "db")
    files.copy_out("db", tmp_path / "other")
    assert sqlite3.connect(tmp_path / "other").execute("SELECT answer FROM t").fetchone() == (42,)


# ---- directories and paths


def test_walking_is_as_on_the_host(files: Files, tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "a" / "loop").symlink_to("..")
    (tmp_path / "dangling").symlink_to("nowhere")
    files.copy_in(tmp_path, "tree")

    def walked(found: Iterator[tuple[str, list[str], list[str]]], base: str) -> list[tuple[str, list[str], list[str]]]:
        result = []
        for top, directories, others in found:
            directories.sort()
            result.append((os.path.relpath(top, base), directories[:], sorted(others)))
            if "d" in directories:
                directories.remove("d")
        return result

    for topdown in (True, False):
        theirs = walked(os.walk(tmp_path, topdown=topdown), str(tmp_path))
        mine = walked(files.walk("tree", topdown=topdown), "tree")
        assert mine == theirs if topdown else sorted(mine) == sorted(theirs)
    failed: list[OSError] = []
    assert list(files.walk("nowhere", onerror=failed.append)) == []
    assert failed[0].filename == "nowhere"


def test_entries_know_what_they_are(files: Files) -> None:
    files.mkdir("d")
    files.symlink("d", "l")
    files.symlink("gone", "g")
    files.path("f").write_bytes(b"12345")
    with files.scandir() as scan:
        entries = {entry.name: entry for entry in scan}
    assert sorted(entries) == ["d", "f", "g", "l"]
    assert [entries[name].is_dir() for name in "dfgl"] == [True, False, False, True]
    assert [entries[name].is_symlink() for name in "dfgl"] == [False, False, True, True]
    assert entries["f"].is_file() and entries["f"].stat().st_size == 5 and os.fspath(entries["f"]) == "./f"
    assert entries["f"].inode() == files.stat("f").st_ino
    assert sorted(files.listdir(b".")) == [b"d", b"f", b"g", b"l"]
    fd = files.open_descriptor(".", os.O_RDONLY)
    assert sorted(files.listdir(fd)) == sorted(files.listdir(fd)) == ["d", "f", "g", "l"]
    assert [entry.stat().st_size for entry in files.scandir(fd) if entry.name == "f"] == [5]
    files.close(fd)


def test_a_large_directory_is_listed_whole(files: Files) -> None:
    names = {f"{number:05}-{'x' * 50}" for number in range(1500)}
    for name in names:
        files.close(files.open_descriptor(name, os.O_CREAT | os.O_WRONLY))
    assert set(files.listdir()) == names
    files.rmtree("../here")
    files.mkdir("/here")


def test_paths_are_objects(files: Files) -> None:
    base = files.path("/here")
    (base / "a" / "b").mkdir(parents=True)
    (base / "a" / "b" / "x.py").write_text("héllo")
    (base / "a" / "y.py").touch()
    (base / "l").symlink_to("a")
    assert sorted(map(str, base.rglob("*.py"))) == ["/here/a/b/x.py", "/here/a/y.py"]
    assert sorted(map(str, base.glob("*/y.py"))) == ["/here/a/y.py"]
    assert sorted(path.name for path in base.iterdir()) == ["a", "l"]
    found = base / "a" / "b" / "x.py"
    assert (found.read_text(), found.read_bytes(), found.suffix) == ("héllo", "héllo".encode(), ".py")
    assert found.parent.is_dir() and found.is_file() and (base / "l").is_symlink() and not (base / "z").exists()
    assert (base / "l").readlink() == files.path("a") and (base / "l" / "y.py").samefile(base / "a" / "y.py")
    moved = found.rename(base / "moved")
    assert moved.exists() and not found.exists()
    moved.unlink()
    moved.unlink(missing_ok=True)
    assert isinstance(refusal(moved.unlink), FileNotFoundError)
    assert files.path("x").absolute() == base / "x"
    (base / "a").rmtree()
    assert not (base / "a").exists()


def test_names_that_are_no_text(files: Files) -> None:
    name = os.fsdecode(b"\xff\xfe")
    files.path(name).write_bytes(b"odd")
    assert files.listdir() == [name] and files.listdir(b".") == [b"\xff\xfe"]
    with files.open(b"\xff\xfe", "rb") as file:
        assert file.read() == b"odd"


# ---- errors


def test_errors_are_those_of_os(files: Files) -> None:
    files.path("f").write_bytes(b"")
    files.mkdir("d")
    files.mkdir("d/sub")
    files.symlink("loop", "loop")
    cases: list[tuple[Callable[..., object], tuple[Any, ...], type[OSError], str]] = [
        (files.open, ("none",), FileNotFoundError, "ENOENT"),
        (files.open, ("d",), IsADirectoryError, "EISDIR"),
        (files.open, ("d", "w"), IsADirectoryError, "EISDIR"),
        (files.open, ("f", "x"), FileExistsError, "EEXIST"),
        (files.open, ("f/x",), NotADirectoryError, "ENOTDIR"),
        (files.stat, ("loop",), OSError, "ELOOP"),
        (files.stat, ("n" * 256,), OSError, "ENAMETOOLONG"),
        (files.stat, ("n/" * 2048,), OSError, "ENAMETOOLONG"),
        (files.stat, ("",), FileNotFoundError, "ENOENT"),
        (files.mkdir, ("d",), FileExistsError, "EEXIST"),
        (files.rmdir, ("d",), OSError, "ENOTEMPTY"),
        (files.unlink, ("d",), IsADirectoryError, "EISDIR"),
        (files.listdir, ("f",), NotADirectoryError, "ENOTDIR"),
        (files.readlink, ("f",), OSError, "EINVAL"),
        (files.getxattr, ("f", "user.x"), OSError, "ENODATA"),
        (files.truncate, ("f", -1), OSError, "EINVAL"),
    ]
    for call, arguments, kind, name in cases:
        error = refusal(call, *arguments)
        assert (type(error), errno.errorcode[error.errno or 0]) == (kind, name), (call, arguments)
        assert error.filename == arguments[0] and error.strerror == os.strerror(error.errno or 0)
    error = refusal(files.rename, "none", files.path("d"))
    assert (error.filename, error.filename2) == ("none", "d")
    for use in (lambda: files.read(-1, 1), lambda: files.close(999), lambda: files.stat("x", dir_fd=999)):
        assert refusal(use).errno == errno.EBADF


def test_the_current_directory_and_the_umask_are_the_clients(box: Box) -> None:
    first, second = box.attach().files, box.attach().files
    first.makedirs("/cwd/sub")
    first.chdir("/cwd/sub")
    assert (first.getcwd(), second.getcwd()) == ("/cwd/sub", "/")
    first.umask(0o077)
    for files, mode in ((first, 0o600), (second, 0o644)):
        with files.open("/cwd/f", "w"):
            assert stat.S_IMODE(files.stat("/cwd/f").st_mode) == mode
        files.unlink("/cwd/f")
    second.rmtree("/cwd")
    assert isinstance(refusal(first.getcwd), FileNotFoundError)
    assert isinstance(refusal(first.open, "x", "w"), FileNotFoundError)


# ---- locks


def test_locks_keep_others_out(box: Box, files: Files) -> None:
    other = box.attach().files
    with files.open("/here/lock", "w+") as mine, other.open("/here/lock", "r+") as others:
        files.flock(mine, fcntl.LOCK_EX)
        assert isinstance(refusal(other.flock, others, fcntl.LOCK_SH | fcntl.LOCK_NB), BlockingIOError)
        files.flock(mine, fcntl.LOCK_UN)
        other.flock(others, fcntl.LOCK_SH | fcntl.LOCK_NB)
        files.lockf(mine, fcntl.LOCK_EX, 10, 5)
        assert isinstance(refusal(other.lockf, others, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14), BlockingIOError)
        other.lockf(others, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 15)
        found = other.getlk(others, fcntl.LOCK_EX, 100)
        assert found is not None and (found.kind, found.start, found.length) == (fcntl.F_WRLCK, 5, 10)


def test_a_lock_is_waited_for(box: Box, files: Files) -> None:
    def body(system: shim.System, tell: Tell) -> str:
        with system.files.open("/here/lock", "w") as file:
            tell("waiting")
            system.files.flock(file, fcntl.LOCK_EX)
        return "got it"

    with files.open("lock", "w") as file:
        files.flock(file, fcntl.LOCK_EX)
        child = box.client(body)
        assert child.hear() == "waiting"
        child.waits()
    assert child.result() == "got it"


# ---- devices


def test_devices_are_read_and_written_where_they_are(files: Files) -> None:
    with files.open("/dev/zero", "rb") as zero, files.open("/dev/null", "w") as null:
        assert (zero.read(100_000), null.write("text"), null.isatty()) == (bytes(100_000), 4, False)
    with files.open("/dev/full", "wb", buffering=0) as full:
        assert refusal(full.write, b"x").errno == errno.ENOSPC
        assert refusal(full.tell).errno == errno.ESPIPE and not full.seekable()
        assert refusal(files.pread, full.fileno(), 1, 0).errno == errno.ESPIPE
        assert stat.S_ISCHR(files.fstat(full.fileno()).st_mode)
    fd = files.open_descriptor("/dev/urandom", os.O_RDONLY)
    other = files.dup(fd)
    files.close(fd)
    assert len(set(files.read(other, 1000))) > 100
    files.close(other)
    assert refusal(files.read, other, 1).errno == errno.EBADF
    with files.open("/dev/console", "r+b", buffering=0) as console, files.open("f", "w") as file:
        assert console.isatty() and not file.isatty()
        assert len(files.ioctl(console, termios.TIOCGWINSZ, bytes(8))) == 8
        assert refusal(files.ioctl, file, termios.TIOCGWINSZ).errno == errno.ENOTTY


# ---- threads and forks


def test_threads_share_a_client(files: Files) -> None:
    def body(number: int) -> None:
        for turn in range(20):
            with files.open(f"{number}-{turn}", "wb+") as file:
                file.write(bytes([number]) * 5000)
                file.seek(1)
                assert file.read() == bytes([number]) * 4999
            files.rename(f"{number}-{turn}", f"{number}")
        assert files.stat(f"{number}").st_size == 5000

    in_threads(6, body)
    assert sorted(files.listdir()) == list("012345")


def test_threads_share_a_file(files: Files) -> None:
    with files.open("f", "wb", buffering=0) as file:
        in_threads(4, lambda number: [file.write(b"0123456789") for _ in range(50)])
        assert file.tell() == 2000
    assert files.path("f").read_bytes() == b"0123456789" * 200


def test_request_numbers_are_never_used_twice(files: Files) -> None:
    numbers: list[int] = []
    for _ in range(3):
        in_threads(4, lambda number: numbers.extend(files._lanes.request() for _ in range(100)))
    assert len(set(numbers)) == 1200
    assert len({number >> 48 for number in numbers}) <= 13, "lanes are used again"
    assert all(number & (1 << 48) - 1 for number in numbers)


def test_a_forked_child_is_another_client(box: Box, files: Files) -> None:
    with files.open("f", "wb+", buffering=0) as file:
        file.write(b"parent")
        fd = file.fileno()

        def body(tell: Tell) -> list[object]:
            stale = [
                refusal(use).errno for use in (lambda: file.read(1), lambda: file.seek(0), lambda: files.fstat(fd))
            ]
            with files.open("f", "ab") as mine:  # in the directory where the parent stood
                mine.write(b" and child")
            file.close()
            return [stale, files.getcwd(), files.umask(0)]

        files.umask(0o027)
        assert box.child(body).result() == [[errno.EBADF] * 3, "/here", 0o027]
        assert (file.seek(0), file.read()) == (0, b"parent and child")


def test_files_survive_the_death_of_the_service(box: Box, files: Files) -> None:
    with files.open("f", "w+") as file:
        file.write("before")
        file.flush()
        generation = box.kill("fs")
        file.write(" after")
        file.seek(0)
        assert file.read() == "before after"
    box.recovered("fs", generation)
