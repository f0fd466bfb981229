"""Attacks from inside a confined process, each in a real process; and what it must still be able to do."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import shutil
import signal
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corekernel import confine, namespaces
from corekernel.channel import Channel
from corekernel.confine import Confinement
from tests.forbidden import attacks, attempt_all, fork_and_report
from tests.forked import UID, as_root, become_nobody, outcome, run_forked

MIB = 1 << 20


def confined(wanted: Confinement, body: Callable[[], Any], unprivileged: bool = False) -> Any:
    def child() -> Any:
        if unprivileged:
            become_nobody()
        confine.preload([])
        confine.apply(wanted)
        return body()

    return run_forked(child)


@pytest.fixture(params=["root", "nobody"])
def privilege(request: pytest.FixtureRequest) -> tuple[Confinement, bool]:
    """A confinement as the core may apply it with privilege, and without."""
    if request.param == "root" and as_root:
        return Confinement(uid=UID), False
    return Confinement(), True


@pytest.mark.parametrize("landlock", [True, False], ids=["with Landlock", "filter alone"])
def test_every_attack_is_refused(privilege: tuple[Confinement, bool], landlock: bool) -> None:
    wanted, unprivileged = privilege
    victim = os.fork()
    if victim == 0:
        signal.pause()
        os._exit(0)
    page = os.memfd_create("page")
    os.ftruncate(page, 4096)
    try:
        wanted = Confinement(uid=wanted.uid, landlock=landlock)
        core = os.getpid()
        results = confined(wanted, lambda: attempt_all(core, victim, page), unprivileged)
        assert len(results) > 45
        # execvp and friends try nothing else; EPERM is the filter's answer, so no attempt reached the host.
        assert {name: result for name, result in results.items() if result != "EPERM"} == {}
        assert os.waitpid(victim, os.WNOHANG) == (0, 0), "the victim was hurt"
    finally:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        os.close(page)


@pytest.fixture
def exported() -> Iterator[Path]:
    """A directory that a confined process may read, beside one that it may not."""
    base = Path(tempfile.mkdtemp(prefix="hmk-exported-"))  # not pytest's own: that is closed to other user ids
    base.chmod(0o755)
    for name in ("open", "secret"):
        (base / name).mkdir()
        (base / name / "file").write_text(name)
    (base / "open/out").symlink_to(base / "secret/file")
    (base / "open/outside").symlink_to(base / "secret")
    (base / "open/program").write_text("#!/bin/true\n")
    (base / "open/program").chmod(0o777)
    (base / "open").chmod(0o777)
    (base / "open/file").chmod(0o666)
    yield base / "open"
    shutil.rmtree(base)


def test_a_process_that_reads_host_directories_gains_nothing_but_a_look(
    privilege: tuple[Confinement, bool], exported: Path
) -> None:
    wanted, unprivileged = privilege
    wanted = Confinement(uid=wanted.uid, host_paths=(str(exported),))
    page = os.memfd_create("page")
    os.ftruncate(page, 4096)
    core = os.getpid()
    try:
        results = confined(wanted, lambda: attempt_all(core, core, page), unprivileged)
    finally:
        os.close(page)
    # Landlock does not keep it from looking at what it may not open: docs/isolation.md.
    assert {name: result for name, result in results.items() if result != "EPERM"} == {"stat": "allowed"}


def opens(path: Path | str, flags: int = 0, directory: int | None = None) -> str:
    """What becomes of opening a path with flags that the filter can let pass."""
    return outcome(lambda: os.close(os.open(path, flags | os.O_NOFOLLOW, dir_fd=directory)))


def reads(exported: Path) -> dict[str, str]:
    held = os.open(exported, os.O_PATH | os.O_NOFOLLOW)
    return {
        "open": opens(exported / "file"),
        "list": outcome(lambda: os.listdir(os.open(exported, os.O_RDONLY | os.O_NOFOLLOW))),
        "open held": opens("file", directory=held),
        "link": outcome(lambda: os.readlink("out", dir_fd=held)),
    }


def trespasses(exported: Path, core: int) -> dict[str, str]:
    """Attempts to get at what is not exported, by flags and calls that the filter lets pass."""
    held = os.open(exported, os.O_PATH | os.O_NOFOLLOW)
    outside = exported.parent / "secret"
    return {
        "beside": opens(outside / "file"),
        "list beside": opens(outside, os.O_DIRECTORY),
        "up": opens("../secret/file", directory=held),
        "above": opens("..", os.O_DIRECTORY, held),
        "by a link of a directory": opens(exported / "outside/file"),
        "by a link, held": opens("outside/file", directory=held),
        "root": opens("/", os.O_DIRECTORY),
        "passwords": opens("/etc/passwd"),
        "own maps": opens("/proc/self/maps"),
        "own memory": opens("/proc/self/mem"),
        "processes": opens("/proc", os.O_DIRECTORY),
        "of the core": opens(f"/proc/{core}/environ"),
        "own descriptors": opens("/proc/self/fd", os.O_DIRECTORY),
        "devices": opens("/dev/null"),
        "kernel": opens("/sys", os.O_DIRECTORY),
    }


def writes(exported: Path) -> dict[str, str]:
    """Attempts to change what is exported, though the host's permissions allow it."""
    file = exported / "file"
    held = os.open(exported, os.O_PATH | os.O_NOFOLLOW)
    return {
        **{
            f"flags {flags:#o}": opens(file, flags)
            for flags in (os.O_WRONLY, os.O_RDWR, 3, os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_SYNC, os.O_NOATIME)
        },
        "create": opens(exported / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        "nameless": opens(exported, os.O_TMPFILE | os.O_RDWR),
        "follow": outcome(lambda: os.open(exported / "out", os.O_RDONLY)),
        "truncate": outcome(lambda: os.truncate(file, 0)),
        "unlink": outcome(lambda: os.unlink("file", dir_fd=held)),
        "rename": outcome(lambda: os.rename("file", "other", src_dir_fd=held, dst_dir_fd=held)),
        "link": outcome(lambda: os.link("file", "other", src_dir_fd=held, dst_dir_fd=held)),
        "symlink": outcome(lambda: os.symlink("file", "other", dir_fd=held)),
        "mkdir": outcome(lambda: os.mkdir("other", dir_fd=held)),
        "mknod": outcome(lambda: os.mknod("other", dir_fd=held)),
        "chmod": outcome(lambda: os.chmod(file, 0o777)),
        "times": outcome(lambda: os.utime(file)),
        "attribute": outcome(lambda: os.setxattr(file, "user.x", b"")),
        "change directory": outcome(lambda: os.fchdir(held)),
        "execute": outcome(lambda: os.execv(exported / "program", ["program"])),
        "watch": outcome(lambda: namespaces.syscall(253)),
        "openat2": outcome(lambda: namespaces.syscall(437, held, 0, 0, 24)),
        "handle": outcome(lambda: namespaces.syscall(304, held, 0, 0)),
    }


def test_host_directories_can_be_read_and_nothing_beside_them(
    privilege: tuple[Confinement, bool], exported: Path
) -> None:
    wanted, unprivileged = privilege
    wanted = Confinement(uid=wanted.uid, host_paths=(str(exported), "/no/such/directory"))
    core = os.getpid()
    found = confined(wanted, lambda: [reads(exported), trespasses(exported, core), writes(exported)], unprivileged)
    assert set(found[0].values()) == {"allowed"}
    if confine.landlock_abi():
        assert set(found[1].values()) == {"EACCES"}
    assert {name: result for name, result in found[2].items() if result != "EPERM"} == {}
    assert (exported / "file").read_text() == "open"


def test_landlock_alone_lets_exported_files_be_read_but_not_written_or_executed(exported: Path) -> None:
    if not confine.landlock_abi():
        return

    def body() -> list[str]:
        file, program = exported / "file", exported / "program"
        return [
            outcome(lambda: os.close(os.open(file, os.O_RDONLY))),
            outcome(lambda: os.open(file, os.O_WRONLY)),
            outcome(lambda: os.open(exported / "new", os.O_CREAT | os.O_WRONLY)),
            outcome(lambda: os.open(exported / "out", os.O_RDONLY)),
            outcome(lambda: os.unlink(file)),
            outcome(lambda: os.execv(program, ["program"])),
        ]

    wanted = Confinement(uid=UID if as_root else None, seccomp="none", host_paths=(str(exported),))
    assert confined(wanted, body) == ["allowed"] + ["EACCES"] * 5


def test_the_attacks_do_succeed_without_confinement() -> None:
    """Guards the attack list itself: an attempt that fails anyway would prove nothing."""
    names = ["open", "stat", "list", "socket", "fork", "kill with signal 0", "pidfd", "memfd_create"]
    names += ["map executable", "socketpair", "read memory of the core", "memory of the core", "tgkill"]

    def body() -> dict[str, str]:
        page = os.memfd_create("page")
        victim = os.fork()
        if victim == 0:
            signal.pause()
        attempts = attacks(os.getpid(), victim, page)
        results = {name: outcome(attempts[name]) for name in names}
        os.waitpid(victim, 0)
        return results

    assert run_forked(body) == dict.fromkeys(names, "allowed")


def work_as_a_service_does(channel: Channel) -> dict[str, Any]:
    """Receive a memfd, map it, and answer from several threads; then raise, format and log an error."""
    message, (fd,) = channel.recv()
    window = mmap.mmap(fd, 4096)
    os.close(fd)

    def write(index: int) -> None:
        window[index] = index + 1

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.sched_yield()
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    try:
        raise RuntimeError("of the service")
    except RuntimeError:
        text = traceback.format_exc()
    channel.send({"ready": poll.poll(0) == [], "asked": message})
    return {"window": list(window[:4]), "trace": text, "idna": "é.example".encode("idna").decode()}


def test_threads_mappings_and_received_descriptors_work(privilege: tuple[Confinement, bool]) -> None:
    wanted, unprivileged = privilege
    ours, theirs = Channel.pair()
    with ours, theirs:
        page = os.memfd_create("page")
        os.ftruncate(page, 4096)
        os.fchmod(page, 0o600)
        ours.send({"map": "this"}, [page])
        result = confined(wanted, lambda: work_as_a_service_does(theirs), unprivileged)
        assert result["window"] == [1, 2, 3, 4]
        assert os.pread(page, 4, 0) == bytes([1, 2, 3, 4])
        assert "RuntimeError: of the service" in result["trace"]
        assert result["idna"] == "xn--9ca.example"
        assert ours.recv()[0] == {"ready": True, "asked": {"map": "this"}}
        os.close(page)


def test_a_traceback_of_a_preloaded_module_shows_its_source() -> None:
    def body() -> str:
        confine.preload(["corekernel.namespaces"])
        confine.apply(Confinement(uid=UID if as_root else None))
        try:
            namespaces.syscall(41, 1, 1, 0)
        except OSError:
            return traceback.format_exc()
        return "allowed"

    assert "return _checked(_libc.syscall(" in run_forked(body)


def test_too_much_memory_is_a_memory_error_not_a_death() -> None:
    def body() -> list[str]:
        found = []
        for size in (16 * MIB, 512 * MIB):
            try:
                found.append(f"{len(bytearray(size)) // MIB}")
            except MemoryError:
                found.append("MemoryError")
        return found

    wanted = Confinement(uid=UID if as_root else None, memory_bytes=256 * MIB)
    assert confined(wanted, body) == ["16", "MemoryError"]


def test_descriptors_are_limited() -> None:
    def body() -> str:
        channel, _ = pair
        with contextlib.suppress(OSError):
            while True:
                os.dup(channel.fileno())
        return outcome(lambda: os.dup(channel.fileno()))

    pair = Channel.pair()
    try:
        assert confined(Confinement(uid=UID if as_root else None, nofile=64), body) == "EMFILE"
    finally:
        for end in pair:
            end.close()


def status_fields() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(not as_root, reason="needs root to change user id")
def test_a_client_loses_user_id_groups_capabilities_and_new_privileges_only() -> None:
    def body() -> dict[str, Any]:
        fields = status_fields()
        return {
            "ids": [fields["Uid"].split(), fields["Gid"].split(), fields["Groups"]],
            "capabilities": int(fields["CapPrm"], 16) | int(fields["CapEff"], 16),
            "no_new_privs": fields["NoNewPrivs"],
            "filters": fields["Seccomp"],
            "fork": outcome(fork_and_report),
            "open": outcome(lambda: os.close(os.open("/etc/passwd", os.O_RDONLY))),
            "core": outcome(lambda: os.kill(parent, 0)),
        }

    parent = os.getpid()
    found = confined(Confinement.client(UID), body)
    assert found["ids"] == [[str(UID)] * 4, [str(UID)] * 4, ""]
    assert found["capabilities"] == 0
    assert (found["no_new_privs"], found["filters"]) == ("1", "0")
    assert (found["fork"], found["open"], found["core"]) == ("allowed", "allowed", "EPERM")


@pytest.mark.skipif(not as_root, reason="needs root to change user id")
def test_the_number_of_processes_of_a_client_is_limited() -> None:
    def body() -> str:
        children: list[int] = []
        try:
            while len(children) < 20:
                child = os.fork()
                if child == 0:
                    signal.pause()
                    os._exit(0)
                children.append(child)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        return "allowed"

    assert confined(Confinement.client(UID + 1, processes=5), body) == "EAGAIN"


@pytest.mark.skipif(not as_root, reason="needs root to make a network namespace")
def test_without_network_there_is_no_interface_but_an_idle_loopback() -> None:
    def names() -> list[str]:
        return [name for _, name in socket.if_nameindex()]

    assert confined(Confinement(uid=UID, landlock=False, seccomp="none"), names) == ["lo"]


def test_landlock_alone_denies_every_path_and_signals() -> None:
    if confine.landlock_abi() < 6:
        assert any("Landlock" in text for text in confine.weaknesses())
        return

    def body() -> list[str]:
        return [
            outcome(lambda: os.open("/etc/passwd", os.O_RDONLY)),
            outcome(lambda: os.listdir("/")),
            outcome(lambda: os.execv("/bin/true", ["true"])),
            outcome(lambda: os.kill(outside, 0)),
        ]

    outside = os.getpid()
    assert confined(Confinement(seccomp="none"), body) == ["EACCES", "EACCES", "EACCES", "EPERM"]


def test_wrong_confinements_are_refused() -> None:
    with pytest.raises(ValueError, match="profile"):
        Confinement(seccomp="sometimes")
    with pytest.raises(ValueError, match="root"):
        Confinement(uid=0)


def test_preload_of_a_missing_module_fails_at_once() -> None:
    with pytest.raises(ImportError):
        confine.preload(["corekernel.no_such_module"])
