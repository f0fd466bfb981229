"""kill -9 of every process there is: nothing is left, and what can go on goes on.

That nothing is left (processes, sockets, shared memory, mounts) is checked after every test by `residue.py`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import pytest

import shim
from corekernel import boot, composition
from corekernel.attachment import Detached
from corekernel.boot import BootError
from corekernel.channel import Channel, close_all
from corekernel.dispatcher import ABI_VERSION
from corekernel.errors import CallError, ServiceDied
from tests.processes import Child, Tell, alive, children_of, stat_of, until
from tests.systems import Boots, Box, raw_connection, system_name

COMPOSITIONS = ("default", "bench", "isolated", "monolith")


def family_of(box: Box) -> list[int]:
    """Every process of a system: keeper, core, zygotes, services, programs."""
    core = int(box.status()["core_pid"])
    return [box.running.pid, core, *children_of(core)]


def gone(pids: list[int]) -> None:
    """Return once none of these processes lives."""
    until(lambda: not any(map(alive, pids)), f"all of {pids} are gone")


def nameless(name: str) -> None:
    """Return once nothing of that name is up, and it can be launched anew."""

    def refused() -> bool:
        try:
            boot.connect(name).close()
        except BootError:
            return True
        return False

    until(refused, f"{name} is gone")


def blocked_caller(box: Box) -> Child:
    """A client that waits for ever in a call; it returns what the call ended with."""

    def body(system: shim.System, tell: Tell) -> str:
        client = system.client("echo")
        client.null()
        tell("ready")
        try:
            client.block()
        except CallError as error:
            return type(error).__name__
        return "a reply"

    child = box.client(body, timeout=None)
    assert child.hear() == "ready"
    child.waits()
    return child


# ---- the parts that hold everything else


@pytest.mark.parametrize("base", COMPOSITIONS)
def test_with_the_core_everything_goes(system: Boots, base: str) -> None:
    box = system(base)
    family = family_of(box)
    os.kill(box.status()["core_pid"], signal.SIGKILL)
    gone(family)
    nameless(box.name)


@pytest.mark.parametrize("base", COMPOSITIONS)
def test_with_the_keeper_everything_goes(system: Boots, base: str) -> None:
    box = system(base)
    family = family_of(box)
    os.kill(box.running.pid, signal.SIGKILL)
    gone(family)
    nameless(box.name)


def test_with_the_launcher_everything_goes() -> None:
    name = system_name()

    def launcher(tell: Tell) -> None:
        boot.launch(name, composition.load("bench"))
        tell("up")
        tell.pause()

    child = Child(launcher)
    assert child.hear() == "up"
    with shim.attach(name) as system:
        status = system.ask("status")
    family = [child.pid, status["core_pid"], *children_of(status["core_pid"])]
    child.close()
    gone(family)
    nameless(name)


def test_a_launcher_killed_while_it_boots_leaves_nothing() -> None:
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.15):
        name = system_name()
        child = Child(lambda tell, name=name: boot.launch(name, composition.load("bench")))  # type: ignore[misc]
        time.sleep(delay)  # wherever in the boot that falls: each moment must do
        child.close()
        nameless(name)


def test_a_detached_system_outlives_its_launcher_until_it_is_taken_down() -> None:
    name = system_name()
    child = Child(lambda tell: boot.launch(name, composition.load("default"), detached=True).pid)
    child.result()
    try:
        with shim.attach(name) as system:
            assert system.procmgr.getpid() == system.pid
            core = system.ask("status")["core_pid"]
            system.ask("down")
    finally:
        child.close()
    gone([core])
    nameless(name)


def test_a_name_is_free_again_as_soon_as_its_system_was_killed() -> None:
    name = system_name()
    for _ in range(5):
        running = boot.launch(name, composition.load("default"))
        with shim.attach(name) as system:
            assert system.procmgr.getpid() == system.pid
        running.kill()
        os.close(running.pidfd)


def test_killing_a_dead_system_again_is_harmless(system: Boots) -> None:
    box = system("default")
    box.running.kill()
    box.running.kill()
    assert box.running.wait(1.0)


@pytest.mark.parametrize("victim", ["core", "keeper"])
def test_a_client_of_a_killed_system_gets_an_error_and_does_not_hang(system: Boots, victim: str) -> None:
    box = system()
    blocked, mine = blocked_caller(box), box.attach(None)
    echo = mine.client("echo")
    echo.null()
    os.kill(box.status()["core_pid"] if victim == "core" else box.running.pid, signal.SIGKILL)
    assert blocked.result() in ("ServiceDied", "Detached")
    with pytest.raises((Detached, ServiceDied)):
        echo.work(0)
    with pytest.raises((Detached, ServiceDied)):
        echo.null()
    with pytest.raises((Detached, ServiceDied)):
        mine.client("cecho").null()
    with pytest.raises(Detached):
        mine.ask("status")


def test_down_ends_calls_and_leaves_nothing(system: Boots) -> None:
    box = system()
    blocked, family = blocked_caller(box), family_of(box)
    with contextlib.suppress(Detached):
        box.ask("down")
    assert box.running.wait(10.0)
    assert blocked.result() in ("ServiceDied", "Detached", "NoSuchService")
    gone(family)
    nameless(box.name)


# ---- zygotes


def test_there_are_zygotes_to_kill(echoes: Box) -> None:
    until(lambda: len(echoes.zygotes()) == 3, "there are an active, a reserve and a spare zygote")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_zygote_less_and_services_still_come_back(echoes: Box, which: int) -> None:
    zygotes = sorted(until(lambda: found if len(found := echoes.zygotes()) == 3 else [], "three zygotes"))
    system = echoes.attach()
    os.kill(zygotes[which], signal.SIGKILL)
    for _ in range(3):
        echoes.recovered("echo", echoes.kill("echo"))
        assert system.client("echo").echo(b"x") == b"x"
    assert system.procmgr.wait(system.spawn(["/bin/true"])) == 0
    until(lambda: len(echoes.zygotes()) == 3, "the zygotes are complete again")


def test_zygotes_killed_one_after_the_other_are_replaced_each_time(echoes: Box) -> None:
    for _ in range(4):
        zygotes = sorted(until(lambda: found if len(found := echoes.zygotes()) == 3 else [], "three zygotes"))
        os.kill(zygotes[0], signal.SIGKILL)
        until(lambda dead=zygotes[0]: dead not in echoes.zygotes(), "it is gone")  # type: ignore[misc]
        echoes.recovered("echo", echoes.kill("echo"))
    assert echoes.attach().client("echo").echo(b"x") == b"x"


def test_without_any_zygote_what_runs_runs_on(bench: Box) -> None:
    system = bench.attach()

    def none_left() -> bool:
        for pid in bench.zygotes():  # one may just be making another
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not bench.zygotes()

    until(none_left, "all zygotes are gone")
    assert system.client("echo").echo(b"x") == b"x"
    assert bench.attach().client("chain_a").chain(3) == 3
    with pytest.raises(OSError, match="zygote"):
        system.spawn(["/bin/true"])
    assert system.client("echo").echo(b"x") == b"x"


# ---- clients and programs


def test_a_killed_client_leaves_everybody_else_alone(echoes: Box) -> None:
    victim, other = blocked_caller(echoes), blocked_caller(echoes)
    victim.kill()
    until(lambda: echoes.bound("echo") == 1, "its stack comes back")
    echoes.attach().client("echo").release()
    assert other.result() == "a reply"


def test_programs_die_with_their_system(system: Boots) -> None:
    box = system("default")
    client = box.attach()
    pids = [client.spawn(["/bin/sleep", "1000"]) for _ in range(3)]
    hosts = [record.host_pid for record in client.processes() if record.pid in pids]
    assert len(hosts) == 3 and all(map(alive, hosts))
    os.kill(box.running.pid, signal.SIGKILL)
    gone(hosts)


def test_orphans_of_programs_are_collected_when_they_end(system: Boots) -> None:
    box = system("default")
    client = box.attach()
    core = box.status()["core_pid"]
    pid = client.spawn(["/bin/sh", "-c", "(sleep 0.05; exit 3) & (sleep 0.05) & exit 5"])
    assert client.procmgr.wait(pid) == 5

    def zombies() -> list[int]:
        table = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return [p for p in table if (fields := stat_of(p)) and fields[0] == "Z" and int(fields[1]) == core]

    until(lambda: len(children_of(core)) == len(box.status()["processes"]) - 1 + 3, "the orphans have ended")
    until(lambda: not zombies(), "no zombie stays")


def test_a_storm_of_dying_clients_gives_every_stack_back(echoes: Box) -> None:
    def many(tell: Tell) -> None:
        systems = [shim.attach(echoes.name) for _ in range(250)]
        for system in systems:
            system.client("echo").null()
        tell("ready")
        tell.pause()

    child = echoes.child(many)
    assert child.hear(60.0) == "ready"
    assert echoes.bound("echo") == 250
    assert echoes.status()["clients_total"] >= 250
    child.kill()
    until(lambda: echoes.bound("echo") == 0, "all stacks are back")
    until(lambda: echoes.status()["clients"] == [], "no client is left")


def test_more_deaths_than_a_busy_service_can_hear_of_at_once_give_every_stack_back(echoes: Box) -> None:
    def ask(channel: Channel, request: dict[str, Any]) -> None:
        channel.send(request)
        reply, fds = channel.recv(10)
        close_all(fds)
        assert "error" not in reply, reply

    def many(tell: Tell) -> None:
        channels = [raw_connection(echoes.name) for _ in range(500)]
        for channel in channels:
            ask(channel, {"do": "attach", "abi": ABI_VERSION, "name": "one of many"})
            ask(channel, {"do": "open", "service": "cecho"})
            ask(channel, {"do": "bind", "services": {"cecho": {"generation": 1, "slots": [0]}}})
        tell("ready")
        tell.pause()

    child = echoes.child(many)
    assert child.hear(60.0) == "ready"
    assert echoes.bound("cecho") == 500
    with echoes.frozen("cecho"):
        child.kill()
        until(lambda: echoes.status()["clients"] == [], "no client is left")
    until(lambda: echoes.bound("cecho") == 0, "all stacks are back")
    assert echoes.attach().client("cecho").echo(b"x") == b"x"


def test_more_clients_than_the_process_table_holds_come_and_go(system: Boots) -> None:
    box = system("default")
    for _ in range(1100):
        with shim.attach(box.name):
            pass
    with shim.attach(box.name) as system_:
        assert system_.procmgr.getpid() == system_.pid
