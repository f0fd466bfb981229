"""Services that die, hang and misbehave: what their callers see, and how they come back."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import shim
from corekernel import boot
from corekernel.boot import BootError
from corekernel.errors import (
    BadOperation,
    CallError,
    DeadlineExceeded,
    Denied,
    HandlerFault,
    NoSuchService,
    ServiceDied,
    TooBig,
)
from services.stubs.bench_echo import BenchEchoClient
from tests.conftest import Boots, Box, Tell, alive, in_futex, status_of, until

FAULTY = """
[service.faulty]
module = "tests.faulty"
interface = "bench_echo"
calls = ["core"]
"""
SERVICES = ("memmgr", "procmgr", "example", "echo", "cecho", "chain_a", "chain_b", "chain_c")
ONE_DEATH = "restart = { max_per_minute = 1, backoff_ms = 1, backoff_max_ms = 2 }\n"


def is_reached(system: shim.System, service: str) -> None:
    """One call that only a working service answers."""
    interface = system.services[service]
    client = system.client(service)
    match interface:
        case "memmgr":
            assert client.limit_get(system.pid) > 0
        case "procmgr":
            assert client.getpid() == system.pid
        case "example":
            assert len(client.digest(b"x")) == 32
        case "bench_echo":
            assert client.echo(b"x" * 100) == b"x" * 100
        case "core":
            client.sleep_until(0)


def death_of_call(system: shim.System, tell: Tell, ns: int = 60_000_000_000) -> list[Any]:
    """Body of a client: a call that is not idempotent, and the service death it ends with."""
    client = system.client("faulty")
    client.null()
    tell("ready")
    try:
        client.work(ns)
    except ServiceDied as error:
        return [error.service, error.generation, error.delivered]
    return ["it returned"]


# ---- recovery


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_in_a_new_generation(shared: Box, service: str) -> None:
    system = shared.attach()
    is_reached(system, service)
    pid, deaths = shared.pid(service), shared.process(service)["deaths"]
    generation = shared.kill(service)
    shared.recovered(service, generation)
    is_reached(system, service)
    assert shared.generation(service) == generation + 1
    assert shared.process(service)["deaths"] == deaths + 1
    assert shared.pid(service) != pid
    assert not alive(pid)
    shared.logged(f"{service} died (signal 9), generation {generation}")


def test_the_others_go_on_while_a_service_is_dead(system: Boots) -> None:
    box = system(text="[service.echo]\nrestart = { backoff_ms = 60000, backoff_max_ms = 60000 }\n")
    client = box.attach()
    is_reached(client, "echo")
    box.kill("echo")
    until(lambda: box.process("echo")["state"] == "backoff", "the death is noticed")
    for service in ("memmgr", "procmgr", "example", "chain_a", "cecho", "core"):
        is_reached(client, service)
    is_reached(box.attach(), "example")


def test_every_thread_and_every_port_finds_the_new_generation(shared: Box) -> None:
    system = shared.attach()
    ports = [BenchEchoClient(system.port("echo", timeout)) for timeout in (None, 10.0, 11.0)]
    for _ in range(3):
        for port in ports:
            port.null()
        shared.recovered("echo", shared.kill("echo"))
        for port in ports:
            assert port.work(0) is None  # type: ignore[func-returns-value]
            assert port.echo(b"again") == b"again"


def test_all_services_at_once_come_back(bench: Box) -> None:
    system = bench.attach()
    for service in SERVICES:
        is_reached(system, service)
    pids = {service: bench.pid(service) for service in SERVICES}
    generations = {service: bench.generation(service) for service in SERVICES}
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    for service in SERVICES:
        bench.recovered(service, generations[service])
        is_reached(system, service)
        is_reached(bench.attach(), service)


# ---- a death at each stage of a call


def test_a_call_whose_handler_dies_ends_with_the_generation_that_died(system: Boots) -> None:
    box = system(text=FAULTY)
    client = box.client(death_of_call, timeout=None)
    box.logged("working")
    generation = box.kill("faulty")
    assert client.result() == ["faulty", generation, True]


def test_a_call_that_no_handler_has_seen_yet_ends_likewise(system: Boots) -> None:
    box = system(text=FAULTY)
    client = box.client(death_of_call, timeout=None)
    with box.frozen("faulty"):
        assert client.hear() == "ready"
    box2 = box.client(lambda s, tell: held_back(s, tell), timeout=None)
    assert box2.hear() == "bound"
    box.logged("working")
    with box.frozen("faulty"):
        box2_waits(box2)
        generation = box.kill_frozen("faulty")
    assert box2.result() == ["faulty", generation, True]
    client.kill()
