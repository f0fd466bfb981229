"""Attacks from inside a confined process, each in a real process; and what it must still be able to do."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import signal
import socket
import threading
import traceback
from collections.abc import Callable
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
