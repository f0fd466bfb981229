"""The parts of hostfs by themselves: paths, listings, what is kept and for how long."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corekernel.errors import ServiceError
from corekernel.service import Environment
from services.files import Attributes, Entry, unpack_entries
from services.hostfs import exports, host, listing
from services.hostfs.cache import Recent
from services.hostfs.exports import Directory, Link, MadeUp
from services.hostfs.host import Descriptor
from services.hostfs.listing import Listing, Listings
from services.hostfs.paths import parse
from services.hostfs.service import Service
from services.stubs.hostfs import WalkResult

NAMES = st.binary(min_size=1, max_size=255).map(lambda raw: raw.replace(b"/", b"-").replace(b"\0", b"-"))
PLAIN = NAMES.filter(lambda name: name not in (b".", b".."))
SLASHES = st.integers(1, 3).map(lambda count: b"/" * count)

# ---- paths


@given(st.binary(max_size=5000))
def test_any_bytes_are_a_path_or_refused(raw: bytes) -> None:
    try:
        path = parse(raw)
    except ServiceError as error:
        wrong = 0 in raw or {b".", b".."} & set(raw.split(b"/"))
        assert error.errno == (errno.ENAMETOOLONG if len(raw) > 4095 else errno.EINVAL)
        assert wrong or len(raw) > 4095
        return
    assert path.names == [name for name in raw.split(b"/") if name]
    assert not {b".", b".."} & set(path.names)
    assert path.directory == raw.endswith(b"/")


@given(st.lists(st.tuples(SLASHES, PLAIN), max_size=8), SLASHES | st.just(b""))
def test_names_and_their_ends_are_those_that_it_was_made_of(parts: list[tuple[bytes, bytes]], rest: bytes) -> None:
    raw = b"".join(slashes + name for slashes, name in parts)
    path = parse(raw + rest)
    assert path.names == [name for _, name in parts]
    for index in range(len(parts)):
        assert raw[: path.end(index)] == b"".join(slashes + name for slashes, name in parts[: index + 1])


# ---- listings


@settings(deadline=None)
@given(st.sets(PLAIN, max_size=60), st.integers(270, 2000))
def test_batches_of_any_size_hold_each_name_once(names: set[bytes], size: int) -> None:
    whole = Listing(Entry(name, 2**64 - 1 - index, 0o100000) for index, name in enumerate(sorted(names)))
    found: list[Entry] = []
    last, finished = 0, False
    while not finished:
        before = last
        last, finished, raw = whole.after(last, size)
        batch = unpack_entries(raw)
        assert len(raw) <= size
        assert (last > before) == bool(batch)
        found += batch
    assert sorted(found) == [Entry(name, 2**64 - 1 - index, 0o100000) for index, name in enumerate(sorted(names))]


def test_names_with_one_position_are_never_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "position", lambda name: 1000 + name[0])
    whole = Listing(Entry(name, 1, 0o100000) for name in (b"a1", b"b1", b"b2", b"b3", b"c1"))
    first = whole.after(0, 3 + 3 * 12)
    assert [entry.name for entry in unpack_entries(first[2])] == [b"a1"]
    second = whole.after(first[0], 3 + 3 * 12)
    assert [entry.name for entry in unpack_entries(second[2])] == [b"b1", b"b2", b"b3"]
    with pytest.raises(ServiceError):
        whole.after(first[0], 3 + 2 * 12)


def test_positions_leave_room_for_the_callers_own() -> None:
    assert all(256 <= exports.position(b"%d" % number) < 1 << 63 for number in range(1000))


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What directories were opened for listing."""
    opened: list[int] = []
    real = host.open_directory

    def counting(held: int) -> Descriptor:
        opened.append(held)
        return real(held)

    monkeypatch.setattr(host, "open_directory", counting)
    return opened


def test_a_listing_is_kept_until_its_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scans: list[int]
) -> None:
    monkeypatch.setattr(listing, "TICK_NS", -(1 << 62))  # as if the directory had been left alone
    directory, listings = Directory.of(host.look(None, os.fsencode(tmp_path))), Listings()
    for _ in range(3):
        assert len(listings.of(directory)) == 0
    assert len(scans) == 1
    (tmp_path / "name").touch()
    os.utime(tmp_path, ns=(0, 12345))
    for _ in range(3):
        assert len(listings.of(directory)) == 1
    assert len(scans) == 2


def test_a_listing_of_a_directory_that_changed_just_now_is_not_believed_later(tmp_path: Path, scans: list[int]) -> None:
    (tmp_path / "name").touch()
    directory, listings = Directory.of(host.look(None, os.fsencode(tmp_path))), Listings()
    for _ in range(3):
        assert len(listings.of(directory)) == 1
    assert len(scans) == 3


# ---- what is kept


def test_the_least_recently_used_goes_first_and_costs_count() -> None:
    recent: Recent[str, int] = Recent(3)
    for number, key in enumerate("abc"):
        recent.put(key, number)
    assert recent.get("a") == 0
    recent.put("d", 3)
    assert [recent.get(key) for key in "abcd"] == [0, None, 2, 3]
    recent.put("e", 4, cost=100)
    assert [recent.get(key) for key in "acde"] == [None, None, None, 4]
    recent.put("e", 5)
    recent.put("f", 6)
    assert [recent.get(key) for key in "ef"] == [5, 6]


def test_a_descriptor_is_closed_with_its_last_user_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    recent: Recent[int, Descriptor] = Recent(1)
    recent.put(0, host.open_file(os.open(tmp_path, os.O_PATH), b"file"))
    used = recent.get(0)
    assert used is not None
    number = used.fd
    recent.put(1, Descriptor(os.open(tmp_path, os.O_PATH)))
    assert os.pread(number, 10, 0) == b"content"
    del used
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_readers_on_many_threads_never_meet_a_closed_descriptor(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    held = host.look(None, os.fsencode(tmp_path))
    recent: Recent[int, Descriptor] = Recent(2)
    wrong: list[object] = []

    def reads(start: int) -> None:
        for step in range(1500):
            number = (start + step * 5) % 8
            file = recent.get(number)
            if file is None:
                file = host.open_file(held.fd, b"%d" % number)
                recent.put(number, file)
            try:
                if os.pread(file.fd, 10, 0) != b"%d" % number:
                    wrong.append(number)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=reads, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(recent) <= 2


# ---- opening what a walk has found


def service_of(*paths: str | Path) -> Service:
    """The service within this process; it serves nobody but the test."""
    return Service(Environment("hostfs", {}, NotImplemented, {}, host_paths=tuple(map(str, paths))))


def opened(service: Service, path: str | Path, size: int = 100) -> WalkResult:
    return service.walk(NotImplemented, size, memoryview(os.fsencode(path)[1:]))


def replaced(path: Path) -> None:
    (path.parent / "other").write_bytes(b"other")
    os.replace(path.parent / "other", path)


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("target")


@pytest.mark.parametrize(("change", "whole", "found"), [(replaced, True, b"other"), (linked, False, b"target")])
def test_what_is_opened_is_what_the_attributes_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], whole: bool, found: bytes
) -> None:
    (tmp_path / "file").write_bytes(b"one")
    real = host.open_file

    def late(directory: int, name: bytes) -> Descriptor:
        monkeypatch.setattr(host, "open_file", real)
        change(tmp_path / "file")
        return real(directory, name)

    monkeypatch.setattr(host, "open_file", late)
    seen = opened(service_of(tmp_path), tmp_path / "file")
    assert (seen.refused, seen.whole, seen.found) == (0, whole, found)
    assert Attributes.unpack(seen.attributes).ino == os.lstat(tmp_path / "file").st_ino


def test_a_file_that_is_gone_before_it_is_opened_was_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"one")
    real = host.open_file

    def late(directory: int, name: bytes) -> Descriptor:
        (tmp_path / "file").unlink()
        return real(directory, name)

    monkeypatch.setattr(host, "open_file", late)
    with pytest.raises(ServiceError) as caught:
        opened(service_of(tmp_path), tmp_path / "file")
    assert caught.value.errno == errno.ENOENT


def test_a_file_that_holds_more_than_its_size_says_is_not_taken_for_whole() -> None:
    process = f"/proc/{os.getpid()}"
    seen = opened(service_of(process), f"{process}/status")
    assert Attributes.unpack(seen.attributes).size == 0
    assert (seen.refused, seen.whole, seen.found) == (0, False, b"")


# ---- exports


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/up").symlink_to("../a/b/../b")
    (tmp_path / "absolute").symlink_to(tmp_path / "a/up")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    yield tmp_path


def below(root: exports.Node, path: Path) -> exports.Node:
    for name in os.fsencode(path).split(b"/")[1:]:
        assert isinstance(root, MadeUp), name
        root = root.children[name]
    return root


def test_links_on_the_way_to_an_export_are_followed_as_the_host_does(tree: Path) -> None:
    said: list[str] = []
    root = exports.build([str(tree / "absolute/c")], said.append)
    assert said == []
    end = below(root, tree / "a/b/c")
    assert isinstance(end, Directory) and end.ino == os.stat(tree / "a/b/c").st_ino
    assert isinstance(below(root, tree / "absolute"), Link)
    assert isinstance(below(root, tree / "a/up"), Link)


def test_what_is_within_another_export_has_no_place_of_its_own(tree: Path) -> None:
    for paths in (["a", "a/b", "absolute"], ["absolute", "a/b/c", "a"]):
        root = exports.build([str(tree / path) for path in paths], print)
        made_up = below(root, tree)
        assert isinstance(made_up, MadeUp)
        assert set(made_up.children) == {b"a", b"absolute"}
        assert isinstance(made_up.children[b"a"], Directory)
    assert isinstance(exports.build(["/", "/usr"], print), Directory)


def test_what_cannot_be_reached_is_left_out_and_said(tree: Path) -> None:
    said: list[str] = []
    root = exports.build([str(tree / path) for path in ("none", "file", "loop", "a")], said.append)
    assert [text.split(" is left out: ")[1] for text in said] == [
        "No such file or directory", "Not a directory", "Too many levels of symbolic links",
    ]  # fmt: skip
    made_up = below(root, tree)
    assert isinstance(made_up, MadeUp) and b"a" in made_up.children
    assert exports.build([], said.append).children == {}  # type: ignore[union-attr]
