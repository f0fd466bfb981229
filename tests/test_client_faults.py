"""Clients that die at each stage of a call, and what is taken back from those that live.

That no stack stays bound to a client that has gone is checked after every test (`Box.settle`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import shim
from tests.callers import MEGABYTE, caller, frames_granted
from tests.processes import Tell, children_of, in_futex, process_table, until
from tests.systems import FAULTY, Boots, Box

# ---- killed at each stage of a call


def test_killed_while_its_handler_runs(system: Boots) -> None:
    box = system(text=FAULTY)
    client = caller(box, "faulty", "work", 300_000_000)
    client.go()
    box.logged("working")
    client.kill()
    until(lambda: box.bound("faulty") == 0, "the stack comes back when the handler returns")
    box.attach().client("faulty").work(0)


def test_killed_while_it_waits_for_a_condition(unharmed: Box) -> None:
    client = caller(unharmed, "faulty", "block")
    client.go()
    client.waits()
    client.kill()
    until(lambda: unharmed.bound("faulty") == 0, "the stack comes back")
    unharmed.attach().client("faulty").release()


def test_killed_with_buffers(unharmed: Box) -> None:
    def body(system: shim.System, tell: Tell) -> None:
        system.client("echo").echo(MEGABYTE)
        system.client("cecho").echo(MEGABYTE)
        tell("shared")
        tell.pause()

    client = unharmed.client(body)
    assert client.hear() == "shared"
    assert unharmed.status()["objects"]["buffer"]["count"] == 2
    client.kill()
    until(lambda: "buffer" not in unharmed.status()["objects"], "the buffers are freed")


def test_killed_in_the_middle_of_a_bind(unharmed: Box) -> None:
    def body(system: shim.System, tell: Tell) -> None:
        system.procmgr.getpid()
        tell("ready")
        tell.pause()
        system.client("echo").null()

    client = unharmed.client(body)
    assert client.hear() == "ready"
    with unharmed.frozen("echo"):
        before = frames_granted(unharmed)
        client.go()
        until(lambda: frames_granted(unharmed) == before + 2, "it binds")
        client.kill()
        until(lambda: unharmed.status()["clients"] == [], "its death is noticed")
    until(lambda: unharmed.bound("echo") == 0, "the stack comes back")


def test_killed_while_a_buffer_is_being_shared(unharmed: Box) -> None:
    client = caller(unharmed, "echo", "echo", MEGABYTE)
    with unharmed.frozen("echo"):
        client.go()
        until(lambda: "buffer" in unharmed.status()["objects"], "a buffer is made")
        client.kill()
        until(lambda: "buffer" not in unharmed.status()["objects"], "the buffer is freed")
    until(lambda: unharmed.bound("echo") == 0, "the stack comes back")


def test_killed_in_a_nested_call(unharmed: Box) -> None:
    client = caller(unharmed, "chain_a", "chain", 3)
    with unharmed.frozen("chain_c"):
        client.go()
        client.waits()
        client.kill()
        until(lambda: unharmed.status()["clients"] == [], "its death is noticed")
    until(lambda: unharmed.bound("chain_a") == 0, "the stack comes back")


@pytest.mark.parametrize("operation", ["null", "echo", "chain"])
def test_killed_at_no_matter_what_moment(unharmed: Box, operation: str) -> None:
    def body(system: shim.System, tell: Tell) -> None:
        clients = {"null": ("echo", ()), "echo": ("echo", (bytes(100_000),)), "chain": ("chain_a", (3,))}
        service, arguments = clients[operation]
        call = getattr(system.client(service), operation)
        tell("ready")
        while True:
            call(*arguments)

    for delay in (0.0, 0.001, 0.003, 0.01, 0.02, 0.03):
        client = unharmed.client(body)
        assert client.hear() == "ready"
        time.sleep(delay)  # a moment of the loop like any other
        client.kill()
    until(lambda: unharmed.bound("echo") == unharmed.bound("chain_a") == 0, "all stacks come back")


def test_after_clients_died_in_their_handlers_an_idle_system_is_idle(system: Boots) -> None:
    box = system(text=FAULTY)
    for number in range(4):
        client = caller(box, "faulty", "work", 30_000_000)
        client.go()
        box.logged("working", number + 1)
        client.kill()
        caller(box, "faulty", "work", 0).go()  # takes whatever stack is free by now
    assert box.attach().client("faulty").echo(b"x") == b"x"
    tasks = Path(f"/proc/{box.pid('faulty')}/task")

    def switches() -> int:
        lines = [line for task in tasks.iterdir() for line in (task / "status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    def quiet() -> bool:
        before = switches()
        time.sleep(0.3)  # the span that is looked at
        return switches() - before < 10

    until(quiet, "no thread of the service wakes up any more")


# ---- buffers and stacks taken back


def test_a_stack_taken_back_takes_its_buffer_along_and_the_caller_does_not_notice(system: Boots) -> None:
    box = system(text="[service.echo]\npool = { initial = 2, low = 1, high = 2, limit = 4, reserve = 1 }\n")
    mine = box.attach()
    echo = mine.client("echo")
    assert echo.echo(MEGABYTE) == MEGABYTE
    crowd = [caller(box, "echo", "null") for _ in range(6)]
    assert box.ask("status")["reclaims"] > 0
    assert echo.echo(MEGABYTE) == MEGABYTE
    assert echo.echo(b"small") == b"small"
    for client in crowd:
        client.go()
        assert client.result() == ["reply", None]


def test_a_client_takes_no_more_buffers_than_its_limit(unharmed: Box) -> None:
    def body(system: shim.System, tell: Tell) -> str:
        system.memmgr.limit_set(system.pid, 2 << 20)
        system.client("echo").echo(MEGABYTE)
        try:
            system.client("cecho").echo(bytes(2 << 20))
        except Exception as error:
            return f"{type(error).__name__}"
        return "granted"

    assert unharmed.client(body).result() == "TooBig"
    assert unharmed.attach().client("echo").echo(MEGABYTE) == MEGABYTE


def test_helpers_see_what_they_claim_to_see(unharmed: Box) -> None:
    client = caller(unharmed, "faulty", "block")
    assert not in_futex(os.getpid())
    client.go()
    client.waits()
    assert client.pid in children_of(os.getpid())
    assert process_table()[client.pid][0] == os.getpid()
