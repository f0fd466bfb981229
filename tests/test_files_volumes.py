"""What is mounted beside the device: the host's directories, /proc, and the devices in /dev, through the file API."""

from __future__ import annotations

import errno
import os
import stat
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shim
from shim.files import Files
from tests.processes import Tell, until
from tests.systems import Box, boot_box

LIBRARY = Path(sysconfig.get_path("stdlib"))
HERE = Path(__file__).resolve()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the host that the system may read."""
    folder = tmp_path_factory.mktemp("shown")
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def _box(folder: Path) -> Iterator[Box]:
    box = boot_box(
        folder, "default", f'[system]\nattach = "anyone"\n[service.hostfs]\nhost_paths = ["{folder}", "@python"]\n'
    )
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def box(_box: Box) -> Iterator[Box]:
    """A system for tests that break nothing; it may read one folder of the host, and Python's library."""
    yield _box
    _box.settle()
    _box.children.clear()
    _box.attached.clear()


@pytest.fixture
def files(box: Box) -> Files:
    """Its files."""
    return box.attach().files


def refused(act: Callable[[], object]) -> str:
    """Name of the errno of an operation."""
    with pytest.raises(OSError) as caught:
        act()
    return errno.errorcode[caught.value.errno or 0]


# ---- the host's directories


def test_a_tree_of_the_host_is_what_it_is_there(files: Files) -> None:
    base = f"/host{LIBRARY}/json"
    assert set(files.listdir(base)) == set(os.listdir(LIBRARY / "json"))
    for name in ("__init__.py", "decoder.py"):
        with files.open(f"{base}/{name}", "rb") as shown:
            assert shown.read() == (LIBRARY / "json" / name).read_bytes()
        here, there = files.stat(f"{base}/{name}"), os.stat(LIBRARY / "json" / name)
        assert (here.st_mode, here.st_size, here.st_ino, here.st_mtime_ns, here.st_uid) == (
            there.st_mode, there.st_size, there.st_ino, there.st_mtime_ns, there.st_uid,
        )  # fmt: skip


def test_nothing_can_be_changed_there(files: Files, folder: Path) -> None:
    (folder / "f").write_text("x")
    path = f"/host{folder}"
    files.chdir("/tmp")
    changes = [
        lambda: files.open(f"{path}/f", "w"),
        lambda: files.open(f"{path}/new", "w"),
        lambda: files.mkdir(f"{path}/new"),
        lambda: files.unlink(f"{path}/f"),
        lambda: files.rename(f"{path}/f", f"{path}/g"),
        lambda: files.chmod(f"{path}/f", 0o600),
        lambda: files.truncate(f"{path}/f", 0),
        lambda: files.symlink("x", f"{path}/new"),
    ]
    assert [refused(change) for change in changes] == ["EROFS"] * len(changes)
    assert refused(lambda: files.rename(f"{path}/f", "/tmp/f")) == "EXDEV"
    assert refused(lambda: files.link(f"{path}/f", "/tmp/f")) == "EXDEV"
    assert refused(lambda: files.mkdir(path)) == "EEXIST"
    assert refused(lambda: files.open(f"{path}/f/x")) == "ENOTDIR"
    assert refused(lambda: files.rmdir("/host")) == "EBUSY"


def test_changes_on_the_host_are_seen_by_the_next_call(files: Files, folder: Path) -> None:
    shown = f"/host{folder}/changing"
    (folder / "changing").write_text("one")
    assert files.path(shown).read_text() == "one"
    (folder / "changing").write_text("three")
    assert files.path(shown).read_text() == "three" and files.stat(shown).st_size == 5
    (folder / "new").write_text("two")
    os.replace(folder / "new", folder / "changing")
    assert files.path(shown).read_text() == "two"
    (folder / "changing").unlink()
    assert refused(lambda: files.open(shown)) == "ENOENT"


def test_what_the_host_does_not_let_everybody_read_is_refused_when_it_is_opened(files: Files, folder: Path) -> None:
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0o600)
    if os.getuid() == 0:
        assert refused(lambda: files.open(f"/host{folder}/secret", buffering=0, mode="rb")) == "EACCES"
    acts: dict[int, str] = {os.O_RDONLY | os.O_DIRECTORY: "ENOTDIR", os.O_RDWR: "EROFS", os.O_WRONLY: "EROFS"}
    for flags, answer in acts.items():
        assert refused(lambda flags=flags: files.open_descriptor(f"/host{folder}/secret", flags)) == answer  # type: ignore[misc]
    files.close(files.open_descriptor(f"/host{folder}/secret", os.O_PATH))
    assert refused(lambda: files.open("/host/root/.profile", "rb")) in ("EACCES", "ENOENT")
    assert refused(lambda: files.listdir("/host/var")) == "ENOENT"
    os.mkfifo(folder / "pipe")
    assert stat.S_ISFIFO(files.stat(f"/host{folder}/pipe").st_mode)
    assert refused(lambda: files.open_descriptor(f"/host{folder}/pipe", os.O_RDONLY)) == "ENXIO"


def test_links_of_the_host_stay_within_it_and_dots_lead_out(files: Files, folder: Path) -> None:
    (folder / "target").write_text("found")
    (folder / "relative").symlink_to("target")
    (folder / "absolute").symlink_to(folder / "target")
    (folder / "outside").symlink_to("/etc/hostname")
    (folder / "loop").symlink_to("loop")
    for name in ("relative", "absolute"):
        assert files.path(f"/host{folder}/{name}").read_text() == "found"
    assert files.readlink(f"/host{folder}/relative") == "target"
    assert refused(lambda: files.open(f"/host{folder}/outside")) == "ENOENT"
    assert refused(lambda: files.open(f"/host{folder}/loop")) == "ELOOP"
    assert files.stat("/host/..").st_ino == files.stat("/").st_ino
    assert files.stat(f"/host{folder}/../../../../../../..").st_ino == files.stat("/").st_ino


def test_a_link_of_ours_may_lead_to_the_host(files: Files, folder: Path) -> None:
    (folder / "there").write_text("there")
    files.symlink(f"/host{folder}", "/tmp/shortcut")
    assert files.path("/tmp/shortcut/there").read_text() == "there"
    files.unlink("/tmp/shortcut")


def test_an_open_file_goes_on_when_hostfs_dies(box: Box, files: Files, folder: Path) -> None:
    (folder / "long").write_bytes(os.urandom(100_000))
    with files.open(f"/host{folder}/long", "rb", buffering=0) as shown:
        first = shown.read(50_000)
        box.kill("hostfs")
        assert (first or b"") + shown.read() == (folder / "long").read_bytes()


def test_an_open_file_goes_on_when_fs_dies(box: Box, files: Files, folder: Path) -> None:
    (folder / "long").write_bytes(os.urandom(100_000))
    with files.open(f"/host{folder}/long", "rb", buffering=0) as shown:
        first = shown.read(50_000)
        box.recovered("fs", box.kill("fs"))
        assert (first or b"") + shown.read() == (folder / "long").read_bytes()


def hops(box: Box, act: Callable[[], object]) -> int:
    """How many calls of hostfs something takes."""
    before = box.ask("statistics", service="hostfs")["totals"]["calls"]
    act()
    return int(box.ask("statistics", service="hostfs")["totals"]["calls"] - before)


@pytest.mark.parametrize("size", [0, 1, 30_000, 128 << 10])
def test_a_small_file_is_opened_read_and_closed_with_one_call_of_hostfs(
    box: Box, files: Files, folder: Path, size: int
) -> None:
    content = os.urandom(size)
    (folder / "small").write_bytes(content)

    def reads() -> None:
        number = files.open_descriptor(f"/host{folder}/small", os.O_RDONLY)
        half = files.read(number, size // 2 + 1)
        assert half + files.read(number, 1 << 20) == content
        assert files.read(number, 10) == b"" and files.pread(number, 10, 5) == content[5:15]
        files.close(number)

    # A stack's first larger answer makes its buffer, and is asked for again; and a while may pass between two steps.
    until(lambda: hops(box, reads) == 1, "one call is enough")


def test_few_operations_on_files_of_the_host_take_more_than_one_call_of_hostfs(
    box: Box, files: Files, folder: Path
) -> None:
    (folder / "small").write_bytes(b"0123456789")
    (folder / "directory").mkdir()
    directory = files.open_descriptor(f"/host{folder}", os.O_RDONLY | os.O_DIRECTORY)
    number = files.open_descriptor("small", os.O_RDONLY, dir_fd=directory)
    costs: list[tuple[int, Callable[[], object]]] = [
        (1, lambda: files.stat(f"/host{folder}/small")),
        (1, lambda: files.stat("small", dir_fd=directory)),
        (1, lambda: files.stat(directory)),
        (0, lambda: files.lseek(number, 5, os.SEEK_SET)),
        (0, lambda: files.lseek(number, -5, os.SEEK_CUR)),
        (1, lambda: files.lseek(number, 0, os.SEEK_END)),
        (2, lambda: files.listdir(f"/host{folder}/directory")),
    ]
    for most, act in costs:
        until(lambda most=most, act=act: hops(box, act) == most, f"{most} calls are enough")  # type: ignore[misc]
    for name in (".", "./directory/.."):
        assert files.stat(name, dir_fd=directory).st_mtime_ns == os.stat(folder).st_mtime_ns
        assert refused(lambda name=name: files.open_descriptor(name, os.O_RDWR, dir_fd=directory)) == "EISDIR"  # type: ignore[misc]
    assert refused(lambda: files.stat("x", dir_fd=number)) == "ENOTDIR"
    files.close(number)
    files.close(directory)


def test_a_larger_file_is_read_in_parts(box: Box, files: Files, folder: Path) -> None:
    content = os.urandom((128 << 10) + 1)
    (folder / "larger").write_bytes(content)
    number = files.open_descriptor(f"/host{folder}/larger", os.O_RDONLY)
    assert files.read(number, 100) + files.read(number, 1 << 20) + files.read(number, 10) == content
    files.close(number)


def test_what_is_read_is_at_most_a_tenth_of_a_second_old(files: Files, folder: Path) -> None:
    path = folder / "aging"
    path.write_bytes(b"as it was when it was opened")
    number = files.open_descriptor(f"/host{folder}/aging", os.O_RDONLY)
    opened = time.monotonic_ns()
    path.write_bytes(b"new")
    assert files.pread(number, 100, 0) in (b"as it was when it was opened", b"new")
    time.sleep(max(0, opened + 100_000_000 - time.monotonic_ns()) / 1e9)
    assert files.pread(number, 100, 0) == b"new"
    path.write_bytes(b"newer")
    assert files.read(number, 100) == b"newer"
    files.close(number)


# ---- /proc


def test_proc_tells_of_processes_and_their_open_files(box: Box, files: Files) -> None:
    with files.open("/tmp/opened", "w+"):
        mine = f"/proc/{box.attached[0].pid}"
        numbers = files.listdir(f"{mine}/fd")[:-1]  # the last is the listing itself
        links = {files.readlink(f"{mine}/fd/{name}") for name in numbers}
        assert "/tmp/opened" in links
    lines = dict(line.split(":\t") for line in files.path("/proc/self/status").read_text().splitlines())
    assert lines["Pid"] == str(box.attached[0].pid) and lines["State"].startswith("R")
    assert {name for name in files.listdir("/proc") if name.isdigit()} >= {str(box.attached[0].pid)}
    assert "hostfs" in files.path("/proc/mounts").read_text()
    assert "procmgr" in files.path("/proc/services").read_text()
    assert float(files.path("/proc/uptime").read_text().split()[0]) > 0
    assert "DeviceFree" in files.path("/proc/meminfo").read_text()
    assert refused(lambda: files.open("/proc/99999/status")) == "ENOENT"
    assert refused(lambda: files.open("/proc/self/status", "w")) == "EROFS"
    files.unlink("/tmp/opened")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can attach as somebody else")
def test_open_files_of_another_user_are_not_shown(box: Box, files: Files) -> None:
    def look(system: shim.System, tell: Tell) -> str:
        return refused(lambda: system.files.listdir(f"/proc/{victim}/fd"))

    victim = box.attached[0].pid
    client = box.child(lambda tell: _as_nobody(lambda: look(shim.attach(box.name, 10), tell)))
    assert client.result() == "EACCES"


def _as_nobody(body: Callable[[], str]) -> str:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    return body()


# ---- devices


def test_devices_are_the_device_manager_s(files: Files) -> None:
    assert files.open("/dev/zero", "rb", buffering=0).read(5) == bytes(5)
    with files.open("/dev/null", "r+b", buffering=0) as null:
        assert null.write(b"x" * 100_000) == 100_000 and null.read() == b""
    with files.open("/dev/full", "wb", buffering=0) as full:
        assert refused(lambda: full.write(b"x")) == "ENOSPC"
    assert len(set(files.open("/dev/urandom", "rb", buffering=0).read(64))) > 8
    seen = files.stat("/dev/null")
    assert stat.S_ISCHR(seen.st_mode) and seen.st_rdev == os.stat("/dev/null").st_rdev
    files.mknod("/tmp/another", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert files.open("/tmp/another", "rb", buffering=0).read(3) == bytes(3)
    files.unlink("/tmp/another")
    files.mknod("/tmp/none", stat.S_IFCHR | 0o666, os.makedev(99, 1))
    assert refused(lambda: files.open_descriptor("/tmp/none", os.O_RDONLY)) == "ENXIO"
    files.unlink("/tmp/none")


def test_a_device_s_descriptor_means_no_file_to_fs(box: Box, files: Files) -> None:
    number = files.open_descriptor("/dev/zero", os.O_RDWR)
    raw = box.attached[0].client("fs")
    acts = [
        lambda: raw.write(1, number, 0, b"x"),
        lambda: raw.read(1, number, 0, 10),
        lambda: raw.truncate(1, number, 5, b""),
        lambda: raw.sync(number, False),
    ]
    assert {refused(act) for act in acts} == {"EINVAL"}
    assert refused(lambda: raw.seek(1, number, 0, 0)) == "ESPIPE"
    assert stat.S_ISCHR(files.fstat(number).st_mode)


def test_an_open_device_survives_the_deaths_of_its_services(box: Box, files: Files) -> None:
    with files.open("/dev/zero", "rb", buffering=0) as zero:
        for service in ("devmgr", "fs"):
            box.recovered(service, box.kill(service))
            assert zero.read(4) == bytes(4)


# ---- mounting


def test_the_owner_mounts_and_unmounts(files: Files) -> None:
    files.mkdir("/tmp/again")
    files.mount("proc", "/tmp/again")
    assert "uptime" in files.listdir("/tmp/again")
    assert refused(lambda: files.mount("proc", "/tmp/again")) == "EBUSY"
    with files.open("/tmp/again/uptime"):
        assert refused(lambda: files.unmount("/tmp/again")) == "EBUSY"
    files.unmount("/tmp/again")
    assert files.listdir("/tmp/again") == []
    assert refused(lambda: files.mount("nothing", "/tmp/again")) == "ENODEV"
    assert refused(lambda: files.unmount("/tmp")) == "EINVAL"
    files.rmdir("/tmp/again")
