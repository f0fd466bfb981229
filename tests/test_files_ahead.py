"""Files of a volume that come ahead of their opens: when they are asked for, what they show, for how long, how many."""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corekernel.errors import ServiceError
from services.files import LARGEST_WHOLE, Attributes, FileAhead
from services.fs import ahead, fresh
from services.fs.ahead import DIRECTORIES, FILES, Ahead
from services.fs.fresh import LASTING_NS
from services.fs.host import HostVolume
from services.fs.volume import Walked
from services.hostfs.service import Service
from services.stubs.hostfs import AheadResult, WalkResult
from tests.forked import as_root
from tests.processes import until
from tests.systems import Box, boot_box
from tests.test_hostfs_parts import service_of

FILE = Attributes(1, 2, stat.S_IFREG | 0o644, 1, 0, 0, 0, 5, 4096, 8, 1, 2, 3, 4)


# ---- when they are asked for


class Clock:
    """The monotonic clock of what is kept, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 10**12
        for module in (ahead, fresh):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic_ns=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def asked(
    kept: Ahead, clock: Clock, opens: list[int], there: int = 10_000, pause: int = 1000, where: bytes = b"d"
) -> list[int]:
    """How many files were asked for with each open that was not answered from what was kept."""
    counts = []
    for number in opens:
        clock.now += pause
        path = where + b"/%05d" % number
        found, count = kept.take(path)
        if found is None:
            counts.append(count)
            names = [b"%05d" % next for next in range(number + 1, min(number + 1 + count, there))]
            kept.keep(path, [FileAhead(name, FILE, b"") for name in names], clock.now + LASTING_NS)
    return counts


def test_a_sequence_asks_for_twice_as_many_each_time_up_to_a_bound(clock: Clock) -> None:
    assert asked(Ahead(), clock, list(range(150))) == [0, 2, 8, 16, 32, 32, 32, 32]
    assert FILES == 32


def test_opens_in_another_order_ask_for_nothing(clock: Clock) -> None:
    assert set(asked(Ahead(), clock, list(range(300, 0, -1)))) == {0}
    assert set(asked(Ahead(), clock, [7] * 50)) == {0}
    for seed in range(20):
        opens = list(range(0, 3000, 3))  # with others between them, so that none is met by chance
        random.Random(seed).shuffle(opens)
        assert sum(asked(Ahead(), clock, opens)) <= 10


def test_opens_that_are_far_apart_in_time_ask_for_nothing(clock: Clock) -> None:
    assert set(asked(Ahead(), clock, list(range(50)), pause=LASTING_NS)) == {0}


def test_a_slow_reader_asks_for_as_many_as_it_comes_to_in_time(clock: Clock) -> None:
    counts = asked(Ahead(), clock, list(range(1000)), pause=LASTING_NS // 10)
    assert counts[:3] == [0, 2, 8] and set(counts[3:]) <= {16, 18, 20}


def test_what_was_of_no_use_takes_a_longer_run_to_be_asked_for_again(clock: Clock) -> None:
    kept = Ahead()
    assert asked(kept, clock, list(range(0, 900, 10))) == [0, 2, 0, 0, 0, 2, *[0] * 15, 2, *[0] * 63, 2, *[0] * 4]
    assert asked(kept, clock, list(range(1000, 1100)))[-3:] == [8, 16, 32]


def test_whoever_copies_a_tree_has_the_first_files_of_each_directory_come_along(clock: Clock) -> None:
    kept = Ahead()
    assert asked(kept, clock, list(range(5)), 5) == [0, 2, 8]
    for directory in (b"1", b"2", b"3"):
        assert asked(kept, clock, list(range(5)), 5, where=directory) == [8]
    assert asked(kept, clock, list(range(30)), 30, where=b"4") == [8, 16, 32]


def test_one_file_of_each_directory_has_others_come_along_in_vain_a_few_times(clock: Clock) -> None:
    kept = Ahead()
    asked(kept, clock, list(range(4)), 4)
    counts = [asked(kept, clock, [3], where=b"%d" % directory)[0] for directory in range(20)]
    assert counts == [8] * 4 + [0] * 16
    assert asked(kept, clock, list(range(4, 10)), 10, where=b"10") == [2, 8]


def test_directories_have_runs_of_their_own_and_few_of_them_are_watched(clock: Clock) -> None:
    kept = Ahead()
    for name in (b"1", b"2"):
        counts = {kept.take(b"%d/" % number + name)[1] for number in range(DIRECTORIES)}
    assert counts == {2}
    assert kept.take(b"another/1")[1] == 0
    assert [kept.take(b"%d/3" % number)[1] for number in (0, DIRECTORIES - 1)] == [0, 2]


# ---- how much is kept, and for how long


def test_what_is_kept_is_bounded_shown_once_and_the_oldest_goes_first(clock: Clock) -> None:
    kept = Ahead(10_000)
    files = [FileAhead(b"%02d" % number, FILE, bytes(1000)) for number in range(20)]
    kept.keep(b"d/0", files, clock.now + 1)
    assert 8000 < len(kept) <= 10_000
    shown = [kept.take(b"d/%02d" % number)[0] for number in range(20)]
    assert [number for number in range(20) if shown[number] is not None] == [16, 17, 18, 19]
    assert len(kept) == 0
    assert kept.take(b"d/19")[0] is None
    kept.keep(b"d/0", [FileAhead(b"1", FILE, bytes(20_000))], clock.now + 1)
    assert len(kept) == 0


def test_an_answer_that_is_kept_again_counts_once(clock: Clock) -> None:
    kept = Ahead()
    for _ in range(3):
        kept.keep(b"0", [FileAhead(b"1", FILE, b"12345")], clock.now + 1)
    found, _ = kept.take(b"1")
    assert found is not None and len(kept) == 0
    assert (found.consumed, found.attributes, found.contents) == (1, FILE, (b"12345", clock.now + 1))


def test_threads_that_open_the_same_files_leave_nothing_uncounted() -> None:
    kept, names = Ahead(200_000), [b"%03d" % number for number in range(300)]

    def opens() -> None:
        for index, name in enumerate(names):
            found, count = kept.take(b"d/" + name)
            if found is None:
                following = [FileAhead(after, FILE, after) for after in names[index + 1 : index + 1 + count]]
                kept.keep(b"d/" + name, following, 2**62)
            kept.drop(b"d/" + names[-index], FILE._replace(size=index))

    threads = [threading.Thread(target=opens) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        kept.take(b"d/" + name)
    assert len(kept) == 0


def test_nothing_is_shown_after_its_time_and_it_goes_with_the_next_that_comes(clock: Clock) -> None:
    kept = Ahead()
    kept.keep(b"d/0", [FileAhead(b"1", FILE, b""), FileAhead(b"2", FILE, b"")], clock.now + 5)
    clock.now += 4
    assert kept.take(b"d/1")[0] is not None
    clock.now += 1
    assert kept.take(b"d/2")[0] is None
    kept.keep(b"d/0", [FileAhead(b"3", FILE, b"")], clock.now)
    assert len(kept) == 0


# ---- a directory of the host, as it is opened


class Direct:
    """A client of the service within this process; `calls` counts its calls."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.calls = 0

    def walk(self, size: int, path: bytes) -> WalkResult:
        self.calls += 1
        return self.service.walk(NotImplemented, size, memoryview(path))

    def ahead(self, size: int, count: int, path: bytes) -> AheadResult:
        self.calls += 1
        return self.service.ahead(NotImplemented, size, count, memoryview(path))


class Shown:
    """A directory of the host as a volume shows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = Direct(service_of(folder))
        self.volume = self.another()

    def another(self) -> HostVolume:
        """A volume to which nothing has come ahead."""
        volume = HostVolume(1, 1, NotImplemented)
        volume._client = self.client  # type: ignore[assignment]
        return volume

    def walk(self, name: str | bytes, size: int = LARGEST_WHOLE, volume: HostVolume | None = None) -> Walked:
        path = os.fsencode(self.folder)[1:] + b"/" + os.fsencode(name)
        return (volume or self.volume).walk(path, NotImplemented, size)

    def read(self, name: str) -> bytes:
        contents = self.walk(name).contents
        assert contents is not None
        return contents.data


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def mixed(folder: Path) -> None:
    """Fill a directory with a hundred small files, and with what else may stand between them."""
    for number in range(100):
        (folder / f"{number:02}").write_bytes(os.urandom(number * 50))
    for name in (b"\x01", b"\n", b"10\xff\xfe", b"15 and more", b" ", b"x" * 255, "20é".encode(), b"...", b"~"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    (folder / "12-link").symlink_to("70")
    (folder / "13-loop").symlink_to("13-loop")
    (folder / "14-nowhere").symlink_to("nowhere")
    (folder / "25-directory").mkdir()
    (folder / "25-directory/within").write_bytes(b"within")
    os.mkfifo(folder / "26-pipe")
    (folder / "30-secret").write_bytes(b"secret")
    (folder / "30-secret").chmod(0)
    (folder / "31-large").write_bytes(os.urandom(LARGEST_WHOLE + 1))
    (folder / "32-whole").write_bytes(os.urandom(LARGEST_WHOLE))


def untouched(walked: Walked) -> Walked:
    """An answer but for the time of access, which looking changes."""
    return walked._replace(attributes=walked.attributes._replace(atime=0))


def test_every_answer_is_that_of_a_walk_of_its_own(shown: Shown, clock: Clock) -> None:
    mixed(shown.folder)
    names = sorted(os.listdir(os.fsencode(shown.folder)))
    found = [shown.walk(name) for name in names]
    assert shown.client.calls < len(names) / 3
    for name, walked in zip(names, found, strict=True):
        assert untouched(walked) == untouched(shown.walk(name, volume=shown.another()))


CHANGES: dict[str, tuple[Callable[[Path], object], bytes | None]] = {
    "written": (lambda path: path.write_bytes(b"new contents"), b"new contents"),
    "removed": (Path.unlink, None),
    "replaced": (lambda path: os.replace(path.parent / "another", path), b"another"),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_change_of_a_file_that_came_ahead_is_seen_after_a_tenth_of_a_second(
    shown: Shown, clock: Clock, how: str
) -> None:
    change, after = CHANGES[how]
    for name in ("1", "2", "3", "4"):
        (shown.folder / name).write_bytes(name.encode())
    assert [shown.read("1"), shown.read("2")] == [b"1", b"2"]
    for name in ("3", "4"):
        (shown.folder / "another").write_bytes(b"another")
        change(shown.folder / name)
    clock.now += LASTING_NS - 1
    assert shown.read("3") == b"3"
    clock.now += 1
    if after is None:
        with pytest.raises(ServiceError):
            shown.read("4")
    else:
        assert shown.read("4") == after


def test_what_stat_has_shown_is_never_followed_by_what_was_there_before(shown: Shown, clock: Clock) -> None:
    for name in "12345":
        (shown.folder / name).write_bytes(name.encode())
    shown.read("1")
    shown.read("2")
    calls = shown.client.calls
    assert shown.walk("3", 0).attributes.size == 1
    assert shown.read("3") == b"3" and shown.client.calls == calls + 1
    (shown.folder / "4").write_bytes(b"longer")
    assert shown.walk("4", 0).attributes.size == 6
    assert shown.read("4") == b"longer"
    shown.read("5")
    (shown.folder / "6").write_bytes(b"6")
    (shown.folder / "7").write_bytes(b"7")
    shown.read("6")
    (shown.folder / "7").unlink()
    for size in (0, LARGEST_WHOLE):
        with pytest.raises(ServiceError):
            shown.walk("7", size)


@pytest.mark.parametrize(
    "wrong",
    [
        {"own": 100}, {"found": b"short"}, {"consumed": 4096}, {"attributes": b""},
        {"found": b"".join(FileAhead(b"a/b", FILE, b"").pack())}, {"own": 2**63},
    ],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_an_error_and_nothing_is_kept(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    for name in "123":
        (shown.folder / name).write_bytes(b"")
    shown.walk("1")
    real = shown.client.ahead

    def lying(size: int, count: int, path: bytes) -> AheadResult:
        answer: AheadResult = real(size, count, path)._replace(**wrong)
        return answer

    monkeypatch.setattr(shown.client, "ahead", lying)
    with pytest.raises(ServiceError) as caught:
        shown.walk("2")
    assert caught.value.errno == errno.EIO
    monkeypatch.undo()
    calls = shown.client.calls
    assert shown.read("3") == b"" and shown.client.calls == calls + 1


# ---- a whole system


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ahead")
    for path in (made, *made.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    made.chmod(0o755)
    mixed(made)
    return made


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Box]:
    composition = f'[system]\nattach = "anyone"\n[service.hostfs]\nhost_paths = ["{folder}"]\n'
    box = boot_box(tmp_path_factory.mktemp("system"), "default", composition)
    yield box
    box.close()


def copied(box: Box, folder: Path) -> tuple[dict[bytes, bytes | str | None], int]:
    """What opening and reading each name in its order gives, and how many calls of hostfs it took."""
    files = box.attached[0].files if box.attached else box.attach().files
    found: dict[bytes, bytes | str | None] = {}
    before = box.ask("statistics", service="hostfs")["totals"]["calls"]
    for name in sorted(os.listdir(os.fsencode(folder))):
        try:
            number = files.open_descriptor(os.fsencode(f"/host{folder}/") + name, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            found[name] = errno.errorcode[error.errno or 0]
            continue
        try:
            found[name] = files.read(number, 1 << 20)
        except IsADirectoryError:
            found[name] = None
        files.close(number)
    return found, box.ask("statistics", service="hostfs")["totals"]["calls"] - before


def expected(folder: Path) -> dict[bytes, bytes | str | None]:
    special: dict[bytes, bytes | str | None] = dict.fromkeys((b"12-link", b"13-loop", b"14-nowhere"), "ELOOP")
    special |= {b"25-directory": None, b"26-pipe": "ENXIO"}
    if as_root:
        special[b"30-secret"] = "EACCES"
    base = os.fsencode(folder) + b"/"
    return {
        name: special[name] if name in special else Path(os.fsdecode(base + name)).read_bytes()
        for name in os.listdir(os.fsencode(folder))
    }


def test_a_directory_is_copied_with_few_calls_of_hostfs_and_as_it_is(box: Box, folder: Path) -> None:
    def few() -> bool:
        found, calls = copied(box, folder)
        assert found == expected(folder)
        return calls < len(found) / 3

    until(few, "a third of a call per file is enough")  # not if it takes too long, and so begins anew


@pytest.mark.parametrize("service", ["hostfs", "fs"])
def test_a_death_costs_nothing_but_what_was_kept(box: Box, folder: Path, service: str) -> None:
    files = box.attached[0].files if box.attached else box.attach().files
    for number in range(50):
        if number == 25:
            box.recovered(service, box.kill(service))
        assert files.path(f"/host{folder}/{number:02}").read_bytes() == (folder / f"{number:02}").read_bytes()
