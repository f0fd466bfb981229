"""Losing cores and zygotes: every test runs a core of its own in a forked process."""

from __future__ import annotations

import errno
import os
import signal
import threading
from typing import Any

import pytest

from corekernel import namespaces
from corekernel.confine import Confinement
from corekernel.spawned import SpawnError, ZygoteDied
from corekernel.zygote import Zygote
from tests.forked import as_root, become_nobody, run_forked
from tests.zygotes import HERE, SERVICE, ask, ended, in_core, offspring, serve_echo


def be_core(writer: int, namespaced: bool, unprivileged: bool) -> None:
    """A core with services, a program and zygotes, which writes the pids and waits to be killed."""
    if unprivileged:
        become_nobody()
    if namespaced and namespaces.fork_init():
        os.close(writer)
        signal.pause()
    zygote = Zygote.start([HERE])
    plain = Confinement() if unprivileged else SERVICE
    processes = [zygote.spawn(f"{HERE}:sleep_forever", {}, [writer], plain) for _ in range(2)]
    processes.append(zygote.spawn_exec(["/bin/sleep", "1000"], {}, fds={5: writer}))
    hosts = [process.host_pid for process in processes]
    os.write(writer, f"{namespaces.host_pid()} {' '.join(map(str, hosts))}\n".encode())
    signal.pause()


def crash_core(namespaced: bool, unprivileged: bool) -> None:
    """Kill a core; every process it had must end."""
    reader, writer = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        try:
            be_core(writer, namespaced, unprivileged)
        finally:
            os._exit(1)
    os.close(writer)
    try:
        with os.fdopen(reader) as file:
            core, *hosts = map(int, file.readline().split())
            pidfds = [os.pidfd_open(pid) for pid in hosts]
            os.kill(core, signal.SIGKILL)
            assert file.read() == "", "end of file: no process holds the pipe any more"
        assert all(ended(pidfd) for pidfd in pidfds)
        for pidfd in pidfds:
            os.close(pidfd)
    finally:
        os.kill(launcher, signal.SIGKILL)
        os.waitpid(launcher, 0)


@pytest.mark.parametrize(
    ("namespaced", "unprivileged"),
    [
        (False, False),
        (False, True),
        pytest.param(True, False, marks=pytest.mark.skipif(not as_root, reason="root")),
    ],
    ids=["death signal", "death signal, nobody", "pid namespace"],
)
def test_killing_the_core_leaves_no_process(namespaced: bool, unprivileged: bool) -> None:
    crash_core(namespaced, unprivileged)


def test_services_outlive_the_zygote_and_restart_makes_another() -> None:
    def body(zygote: Zygote) -> list[Any]:
        process, channel = serve_echo(zygote)
        first, reserve = zygote.pids
        os.kill(first, signal.SIGKILL)
        noticed = ended(zygote.pidfds[0])
        with pytest.raises(ZygoteDied):
            for _ in range(2):  # the spare may have been born before, then it still serves
                serve_echo(zygote)
        zygote.restart()
        zygote.restart()
        again = [ask(serve_echo(zygote)[1], n) for n in range(3)]
        promoted = zygote.pids[0] == reserve and first not in zygote.pids
        return [noticed, ask(channel, 1), again, promoted, process.reap(block=False)]

    assert in_core(body) == [True, True, [True] * 3, True, None]


@pytest.mark.parametrize("which", [0, 1], ids=["active", "reserve"])
def test_a_core_survives_the_loss_of_one_zygote_after_another(which: int) -> None:
    def body(zygote: Zygote) -> list[bool]:
        answers = []
        for number in range(4):
            os.kill(zygote.pids[which], signal.SIGKILL)
            ended(zygote.pidfds[which])
            zygote.restart()
            answers.append(ask(serve_echo(zygote)[1], number))
        return answers

    assert in_core(body) == [True] * 4


def test_without_any_zygote_the_core_says_so() -> None:
    def body() -> str:
        zygote = Zygote.start([HERE])
        for pid, pidfd in zip(zygote.pids, zygote.pidfds, strict=True):
            os.kill(pid, signal.SIGKILL)
            ended(pidfd)
        with pytest.raises(ZygoteDied):
            zygote.restart()
        return "said"

    assert run_forked(body) == "said"


def test_a_dead_spare_zygote_is_replaced_unseen() -> None:
    def body(zygote: Zygote) -> list[bool]:
        process, channel = serve_echo(zygote)
        spares: set[int] = set()
        while not spares:  # until the twin that was ordered has been adopted
            spares = offspring(os.getpid()) - {process.pid, *zygote.pids}
        for spare in spares:
            pidfd = os.pidfd_open(spare)
            os.kill(spare, signal.SIGKILL)
            assert ended(pidfd)
            os.close(pidfd)
        return [ask(serve_echo(zygote)[1], 1), ask(channel, 2)]

    assert in_core(body) == [True, True]


def test_the_zygote_refuses_to_fork_a_process_with_threads() -> None:
    def body() -> str:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            with pytest.raises(RuntimeError, match="first thread"):
                Zygote.start()
        finally:
            stop.set()
            thread.join()
        return "refused"

    assert run_forked(body) == "refused"


def test_a_module_that_cannot_be_preloaded_fails_the_start() -> None:
    def body() -> list[Any]:
        with pytest.raises(SpawnError) as refusal:
            Zygote.start(["tests.no_such_module"])
        return [refusal.value.errno, "no_such_module" in str(refusal.value), list(offspring(os.getpid()))]

    assert run_forked(body) == [errno.ENOENT, True, []]


def test_closing_ends_the_zygotes_and_nothing_else() -> None:
    def body() -> list[Any]:
        zygote = Zygote.start([HERE])
        process, channel = serve_echo(zygote)
        zygote.close()
        return [ask(channel, 1), offspring(os.getpid()) == {process.pid}]

    assert run_forked(body) == [True, True]
