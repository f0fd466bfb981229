"""The host's directories as the service shows them, while the host changes them and the service is killed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corekernel.errors import ServiceError, TooBig
from services.files import Attributes
from tests.forked import as_root
from tests.host_directories import COMPOSITION, Host, attempt, flips, refused
from tests.processes import until
from tests.systems import boot_box


@pytest.fixture(scope="module")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(Path(tempfile.mkdtemp(prefix="hmk-hostfs-")))  # not pytest's own: that is closed to other user ids
    box = boot_box(tmp_path_factory.mktemp("hostfs"), "default", COMPOSITION.format(base=host.base))
    try:
        host.box = box
        yield host
    finally:
        box.close()
        shutil.rmtree(host.base)


@pytest.fixture
def host(_host: Host) -> Iterator[Host]:
    """The exported directory, empty, and a client."""
    _host.connect(_host.box)
    yield _host
    for path in _host.open.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _host.box.settle()
    _host.box.attached.clear()


# ---- walking


def test_attributes_are_those_of_the_host(host: Host) -> None:
    (host.open / "directory").mkdir()
    (host.open / "directory/file").write_bytes(b"content")
    os.utime(host.open / "directory/file", ns=(-1_000_000_001, 2_000_000_003))
    for name in ("", "directory", "directory/file"):
        seen, true = host.stat(name), os.stat(host.open / name)
        ids = (true.st_ino, true.st_dev, true.st_mode, true.st_nlink, true.st_uid, true.st_gid, true.st_rdev)
        times = (true.st_atime_ns, true.st_mtime_ns, true.st_ctime_ns)
        assert seen[:13] == (*ids, true.st_size, true.st_blksize, true.st_blocks, *times)


def test_a_walk_stops_at_the_first_symbolic_link_wherever_it_is(host: Host) -> None:
    (host.open / "a/b").mkdir(parents=True)
    (host.open / "a/b/file").touch()
    links = {"first": "a", "a/second": "b", "a/b/last": "../../../secret/file", "a/b/none": "nowhere", "loop": "loop"}
    for name, to in links.items():
        (host.open / name).symlink_to(to)
    for path in (
        "first",
        "first/b/file",
        "a/second",
        "a/second/",
        "a/second/file/more",
        "a/b/last",
        "a/b/none/x",
        "loop/",
    ):
        link = next(name for name in links if path == name or path.startswith(f"{name}/"))
        consumed, attributes, target = host.walk(path)
        assert consumed == len(host.path(link))
        assert target == links[link].encode()
        assert (attributes.kind, attributes.size) == (stat.S_IFLNK, len(target))
        assert attributes.ino == os.lstat(host.open / link).st_ino
    with refused(errno.ENOTDIR):
        host.names("first")
    with refused(errno.ENOTDIR):
        host.client.statfs(host.path("first/b"))
    true = os.stat(host.open / "a/b/file")
    with refused(errno.ESTALE):
        host.client.read(true.st_dev, true.st_ino, 0, 1, host.path("first/b/file"))
    assert host.client.statfs(host.path("first")).kind == host.client.statfs(host.path("")).kind


def test_directories_that_lead_to_exports_show_nothing_else(host: Host) -> None:
    base = host.base
    assert set(host.names(base)) == {b"inner", b"open", b"way"}
    assert host.names("/") == [os.fsencode(base).split(b"/")[1]]
    assert host.names(base / "inner") == [b"deep"]
    seen = host.stat(base)
    assert (seen.mode, seen.uid, seen.gid, seen.nlink, seen.dev) == (stat.S_IFDIR | 0o555, 0, 0, 4, 0)
    kinds = {entry.name: entry.kind for batch in host.batches(base) for entry in batch}
    assert kinds == {b"inner": stat.S_IFDIR, b"open": stat.S_IFDIR, b"way": stat.S_IFLNK}
    assert host.client.statfs(host.path(base)).flags == os.ST_RDONLY
    for path in ("secret", "secret/file", "proc", "gone", "inner/file"):
        with refused(errno.ENOENT):
            host.walk(base / path)
    with refused(errno.EISDIR):
        host.read(base, of=seen)


def test_an_export_behind_a_link_is_under_its_real_path_and_the_link_shown(host: Host) -> None:
    consumed, _, target = host.walk(host.base / "way/deep/file")
    assert (consumed, target) == (len(host.path(host.base / "way")), b"inner")
    assert host.read(host.base / "inner/deep/file") == b"deep"


def test_a_listed_path_that_is_not_there_is_left_out_and_the_console_says_so(host: Host) -> None:
    host.box.logged(f"hostfs: {host.base}/gone is no directory of this host, so it is left out")


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b".", errno.EINVAL), (b"..", errno.EINVAL), (b"../../secret/file", errno.EINVAL), (b"a/./b", errno.EINVAL),
        (b"a\0b", errno.EINVAL), (b"\0", errno.EINVAL), (b"a/..", errno.EINVAL),
        (b"x" * 256, errno.ENAMETOOLONG), (b"x" * 255, errno.ENOENT),
        (b"...", errno.ENOENT), (b"file/x", errno.ENOTDIR), (b"file/", errno.ENOTDIR), (b"none/x", errno.ENOENT),
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere_has_the_error_of_linux(host: Host, path: bytes, number: int) -> None:
    (host.open / "file").touch()
    with refused(number):
        host.walk(path)
    with pytest.raises(ServiceError):
        host.names(path)
    with pytest.raises(ServiceError):
        host.client.statfs(host.path(path))
    with pytest.raises(ServiceError):
        host.client.read(1, 1, 0, 1, host.path(path))


def test_slashes_too_many_mean_one(host: Host) -> None:
    (host.open / "a").mkdir()
    (host.open / "a/file").write_bytes(b"here")
    assert host.read(b"a///file") == b"here"
    assert host.stat(b"a//").ino == os.stat(host.open / "a").st_ino
    path = b"//" + host.path("a")
    assert host.client.walk(0, path).consumed == len(path)


def test_a_path_has_at_most_4095_bytes(host: Host) -> None:
    with refused(errno.ENOENT):
        host.client.walk(0, b"x" + b"/" * 4094)
    with refused(errno.ENAMETOOLONG):
        host.client.walk(0, b"x" + b"/" * 4095)
    with pytest.raises(TooBig):
        host.client.walk(0, b"x" * 4097)


def test_names_of_every_byte_and_length_are_served_as_they_are(host: Host) -> None:
    single = {bytes([byte]) for byte in range(1, 256)} - {b"/", b"."}
    others = {b"\xff\xfe\x80", "é".encode(), "é".encode("latin-1"), b" ", b"\n", b"x" * 255, b"\xff" * 255}
    for name in single | others:
        with open(os.path.join(os.fsencode(host.open), name), "wb") as file:
            file.write(name)
    assert set(host.names("")) == single | others
    assert all(host.read(name) == name for name in single | others)


# ---- reading


def test_contents_are_read_at_any_offset_and_size(host: Host) -> None:
    content = os.urandom(300_000)
    (host.open / "file").write_bytes(content)
    for offset, size in (
        (0, 0),
        (0, 1),
        (1, 65536),
        (65535, 65537),
        (299_999, 10),
        (300_000, 5),
        (1 << 40, 5),
        (0, 1 << 63),
    ):
        assert host.read("file", offset=offset, size=size) == content[offset : offset + size]
    with refused(errno.EINVAL):
        host.read("file", offset=1 << 63)


def test_a_small_file_comes_whole_with_the_walk_to_it(host: Host) -> None:
    for length, wanted, whole in ((0, 1, True), (10, 9, False), (10, 10, True), (10, 1 << 63, True),
                                  (131072, 131072, True), (131073, 1 << 20, False)):  # fmt: skip
        content = os.urandom(length)
        (host.open / "file").write_bytes(content)
        found = host.open_file("file", wanted)
        assert found[2:] == (0, whole, content if whole else b"")
        assert Attributes.unpack(found.attributes).size == length
        assert found.consumed == len(host.path("file"))
    (host.open / "link").symlink_to("file")
    assert host.open_file("link", 100)[2:] == (0, False, b"file")
    assert host.open_file("", 100)[2:] == (0, False, b"")
    with refused(errno.ENOTDIR):
        host.open_file("file/", 100)


def test_an_opened_file_is_read_on_after_it_was_replaced(host: Host) -> None:
    (host.open / "file").write_bytes(b"old")
    seen = Attributes.unpack(host.open_file("file").attributes)
    (host.open / "new").write_bytes(b"new")
    os.rename(host.open / "new", host.open / "file")
    assert host.read("file", of=seen) == b"old"
    assert host.open_file("file", 10).found == b"new"


def test_sixteen_mebibytes_come_in_one_read_and_no_more(host: Host) -> None:
    with open(host.open / "file", "wb") as file:
        file.truncate((16 << 20) + 1)
    assert len(host.read("file", size=1 << 40)) == 16 << 20


def test_a_changed_file_is_seen_by_the_next_call(host: Host) -> None:
    path = host.open / "file"
    path.write_bytes(b"first")
    before = host.stat("file")
    assert host.read("file") == b"first"
    for content in (b"longer than before", b"", b"x"):
        path.write_bytes(content)
        assert host.read("file", of=before) == content
        assert host.stat("file").size == len(content)
    path.chmod(0o640)
    assert host.stat("file").mode == stat.S_IFREG | 0o640


def test_a_replaced_or_deleted_file_is_read_on_while_it_is_open_and_stale_otherwise(host: Host) -> None:
    for name in ("opened", "walked"):
        (host.open / name).write_bytes(b"old")
    opened, walked = host.stat("opened"), host.stat("walked")
    assert host.read("opened", of=opened) == b"old"
    for name in ("opened", "walked"):
        (host.open / "new").write_bytes(b"new")
        os.rename(host.open / "new", host.open / name)
    assert host.read("opened", of=opened) == b"old"
    assert host.read("opened") == b"new"
    with refused(errno.ESTALE):
        host.read("walked", of=walked)
    os.unlink(host.open / "opened")
    assert host.read("opened", of=opened) == b"old"
    with refused(errno.ENOENT):
        host.stat("opened")


def test_a_file_that_moved_is_found_where_it_is_now(host: Host) -> None:
    (host.open / "a").mkdir()
    (host.open / "a/file").write_bytes(b"moved")
    seen = host.stat("a/file")
    os.rename(host.open / "a", host.open / "b")
    with refused(errno.ENOENT):
        host.stat("a/file")
    assert host.read("b/file", of=seen) == b"moved"


@pytest.mark.skipif(not as_root, reason="without root the service has the user id of the test")
def test_what_others_may_not_read_is_refused(host: Host) -> None:
    (host.open / "closed").write_bytes(b"secret")
    (host.open / "closed").chmod(0o600)
    assert host.stat("closed").size == 6
    with refused(errno.EACCES):
        host.read("closed")
    assert host.open_file("closed", 100)[2:] == (errno.EACCES, False, b"")
    (host.open / "room").mkdir()
    (host.open / "room/file").write_bytes(b"inside")
    assert host.read("room/file") == b"inside"
    (host.open / "room").chmod(0o711)
    assert host.read("room/file") == b"inside"
    with refused(errno.EACCES):
        host.names("room")
    (host.open / "room").chmod(0o700)
    with refused(errno.EACCES):
        host.stat("room/file")
    (host.open / "room").chmod(0o755)
    (host.open / "room/file").chmod(0o600)
    assert host.open_file("room/file").refused == errno.EACCES


def test_sockets_pipes_and_devices_are_shown_but_not_opened(host: Host) -> None:
    os.mkfifo(host.open / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(host.open / "socket"))
    kinds = {b"pipe": stat.S_IFIFO, b"socket": stat.S_IFSOCK}
    if as_root:
        os.mknod(host.open / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        kinds[b"null"] = stat.S_IFCHR
        assert host.stat("null").rdev == os.makedev(1, 3)
    assert {entry.name: entry.kind for batch in host.batches("") for entry in batch} == kinds
    for name, kind in kinds.items():
        assert host.stat(name).kind == kind
        assert host.open_file(name)[2:] == (0, False, b"")
        with refused(errno.EACCES):
            host.read(name)


def test_more_files_and_directories_than_are_kept_open_are_served(host: Host) -> None:
    for number in range(700):
        (host.open / f"{number}").mkdir()
        (host.open / f"{number}/file").write_bytes(b"%d" % number)
    seen = [host.stat(f"{number}/file") for number in range(700)]
    for _ in range(2):
        assert all(host.read(f"{number}/file", of=seen[number]) == b"%d" % number for number in range(700))
    assert len(os.listdir(f"/proc/{host.box.pid('hostfs')}/fd")) < 1700


# ---- directories


def test_a_change_of_a_directory_is_seen_by_the_next_listing_however_soon(host: Host) -> None:
    present = set()
    for number in range(100):
        name = b"%d" % number
        (host.open / name.decode()).touch()
        present.add(name)
        assert set(host.names("")) == present
        if number % 3 == 0:
            os.unlink(host.open / name.decode())
            present.remove(name)
            assert set(host.names("")) == present


def test_a_listing_in_progress_has_each_lasting_name_once_whatever_else_happens(host: Host) -> None:
    lasting = {b"lasting-%d" % number for number in range(300)}
    for name in lasting:
        (host.open / name.decode()).touch()
    found: list[bytes] = []
    for step, batch in enumerate(host.batches("", size=600)):
        found += [entry.name for entry in batch]
        for number in range(5):
            (host.open / f"passing-{step}-{number}").touch()
            (host.open / f"passing-{step - 3}-{number}").unlink(missing_ok=True)
        if step == 5:
            generation = host.box.kill("hostfs")
            host.box.recovered("hostfs", generation)
    assert sorted(name for name in found if name in lasting) == sorted(lasting)
    assert len(found) == len(set(found))


def test_a_directory_that_vanishes_while_it_is_listed_is_gone(host: Host) -> None:
    (host.open / "d").mkdir()
    for number in range(100):
        (host.open / f"d/{number}").touch()
    batches = host.batches("d", size=512)
    next(batches)
    shutil.rmtree(host.open / "d")
    with refused(errno.ENOENT):
        next(batches)


def test_a_listing_needs_room_for_one_entry(host: Host) -> None:
    assert host.client.entries(0, 0, host.path(""))[:2] == (0, True)
    (host.open / "name").touch()
    for size in (0, 3, 4, 16):
        with refused(errno.EINVAL):
            host.client.entries(0, size, host.path(""))
    assert host.names("", size=17) == [b"name"]
    assert host.client.entries(2**64 - 1, 100, host.path(""))[:2] == (2**64 - 1, True)


# ---- the service dies, the host is hostile


def test_killed_in_the_middle_of_reads_it_loses_nothing(host: Host) -> None:
    content = os.urandom(1 << 20)
    (host.open / "file").write_bytes(content)
    failures: list[str] = []
    rounds = [0, 0]
    done = threading.Event()

    def reads(number: int) -> None:
        try:
            while not done.is_set():
                if host.read("file") != content:
                    failures.append("wrong contents")
                rounds[number] += 1
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=reads, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        seen = list(rounds)
        until(lambda seen=seen: all(n > s for n, s in zip(rounds, seen, strict=True)) or failures, "reads go on")  # type: ignore[misc]
        host.box.recovered("hostfs", host.box.kill("hostfs"))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_directory_swapped_for_a_link_to_the_outside_never_leads_there(host: Host) -> None:
    (host.open / "x").mkdir()
    (host.open / "x/file").write_bytes(b"inside")
    (host.open / "link").symlink_to(host.base / "secret")
    outside = os.stat(host.base / "secret/file")
    done = threading.Event()
    flipping = threading.Thread(target=flips, args=(host.open, done))
    flipping.start()
    try:
        found = [answer for _ in range(300) for answer in attempt(host, outside)]
    finally:
        done.set()
        flipping.join()
    links = [answer for answer in found if isinstance(answer, tuple)]
    assert all(target == os.fsencode(host.base / "secret") for _, _, target in links)
    assert [a for a in found if not isinstance(a, tuple) and a not in (b"inside", [b"file"], False)] == []
    assert b"inside" in found
    assert links
