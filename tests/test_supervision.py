"""Services that die: what their callers see, and how they come back."""

from __future__ import annotations

import os
import signal
import time

import pytest

import shim
from corekernel.errors import CallError, DeadlineExceeded, NoSuchService
from services.stubs.bench_echo import BenchEchoClient
from tests.callers import MEGABYTE, SERVICES, caller, frames_granted, is_reached
from tests.faulty.service import HOLD
from tests.processes import Tell, alive, until
from tests.systems import FAULTY, Boots, Box

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
    box = system("bench", "[service.echo]\nrestart = { backoff_ms = 60000, backoff_max_ms = 60000 }\n")
    client = box.attach()
    is_reached(client, "echo")
    box.kill("echo")
    until(lambda: box.process("echo")["state"] == "backoff", "the death is noticed")
    for service in ("memmgr", "procmgr", "example", "chain_a", "cecho", "core"):
        is_reached(client, service)
    is_reached(box.attach(), "example")


def test_every_port_of_a_thread_finds_the_new_generation(shared: Box) -> None:
    system = shared.attach()
    ports = [BenchEchoClient(system.port("echo", timeout)) for timeout in (10.0, 11.0, 12.0)]
    for _ in range(3):
        for port in ports:
            port.null()
        shared.recovered("echo", shared.kill("echo"))
        for port in ports:
            port.work(0)
            assert port.echo(b"again") == b"again"


def test_services_killed_all_at_once_all_come_back(bench: Box) -> None:
    system = bench.attach()
    before = {service: (bench.pid(service), bench.generation(service)) for service in SERVICES}
    for service in SERVICES:
        is_reached(system, service)
    for pid, _ in before.values():
        os.kill(pid, signal.SIGKILL)
    for service, (_, generation) in before.items():
        bench.recovered(service, generation)
        is_reached(system, service)
        is_reached(bench.attach(), service)


def test_a_service_killed_again_and_again_serves_in_between(bench: Box) -> None:
    system = bench.attach()
    for _ in range(5):
        generation = bench.kill("echo")
        is_reached(system, "echo")
        bench.recovered("echo", generation)


# ---- a death at each stage of a call


def test_a_call_whose_handler_dies_ends_with_the_generation_that_died(system: Boots) -> None:
    box = system(text=FAULTY)
    client = caller(box, "faulty", "work", 60_000_000_000)
    client.go()
    box.logged("working")
    generation = box.kill("faulty")
    assert client.result() == ["died", "faulty", generation]


def test_a_request_that_no_handler_has_seen_ends_likewise(shared: Box) -> None:
    client = caller(shared, "echo", "work", 0)
    with shared.frozen("echo"):
        client.go()
        client.waits()
        generation = shared.kill("echo")
    assert client.result() == ["died", "echo", generation]


def test_an_idempotent_call_is_issued_again(shared: Box) -> None:
    client = caller(shared, "echo", "echo", b"same")
    with shared.frozen("echo"):
        client.go()
        client.waits()
        shared.kill("echo")
    assert client.result() == ["reply", 4]


def test_a_call_made_after_the_death_is_not_a_call_in_flight(shared: Box) -> None:
    client = caller(shared, "echo", "work", 0)
    shared.recovered("echo", shared.kill("echo"))
    client.go()
    assert client.result() == ["reply", None]


def test_a_caller_that_waits_for_a_condition_waits_on_in_the_next_generation(shared: Box) -> None:
    client = caller(shared, "faulty", "block")
    client.go()
    client.waits()
    shared.recovered("faulty", shared.kill("faulty"))
    until(lambda: shared.bound("faulty") == 1, "the waiting client is bound again")
    client.waits()
    releaser = shared.attach().client("faulty")
    until(lambda: shared.service("faulty")["totals"]["calls"] >= 1, "it has called again")
    releaser.release()
    assert client.result() == ["reply", None]


def test_a_death_in_the_middle_of_a_bind_is_not_seen_by_the_caller(shared: Box) -> None:
    def body(system: shim.System, tell: Tell) -> str:
        system.procmgr.getpid()
        tell("ready")
        tell.pause()
        system.client("echo").work(0)
        return "served"

    client = shared.client(body, timeout=None)
    assert client.hear() == "ready"
    with shared.frozen("echo"):
        before = frames_granted(shared)
        client.go()
        until(lambda: frames_granted(shared) == before + 2, "it binds")
        shared.kill("echo")
    assert client.result() == "served"


def test_a_death_while_a_buffer_is_being_shared_is_not_seen_by_the_caller(shared: Box) -> None:
    client = caller(shared, "echo", "echo", MEGABYTE)
    with shared.frozen("echo"):
        client.go()
        until(lambda: "buffer" in shared.status()["objects"], "a buffer is made")
        shared.kill("echo")
    assert client.result() == ["reply", len(MEGABYTE)]


@pytest.mark.parametrize("victim", ["chain_a", "chain_b", "chain_c"])
def test_a_death_in_a_chain_ends_the_chain_and_no_other_service(system: Boots, victim: str) -> None:
    box = system("bench", '[service.chain_c]\nmodule = "tests.faulty"\n')
    client = box.client(lambda system, tell: outcome_of_chain(system), timeout=None)
    others = {name: box.pid(name) for name in ("chain_a", "chain_b", "chain_c") if name != victim}
    box.logged("holding")
    box.recovered(victim, box.kill(victim))
    assert client.result() == {
        "chain_a": "ServiceDied: service chain_a (generation 1) died during the call",
        "chain_b": "HandlerFault: chain_a: ServiceDied: service chain_b (generation 1) died during the call",
        "chain_c": "HandlerFault: chain_a: HandlerFault: chain_b: ServiceDied: service chain_c (generation 1) died "
        "during the call",
    }.get(victim)
    assert {name: box.pid(name) for name in others} == others
    assert box.attach().client("chain_a").chain(3) == 3


def outcome_of_chain(system: shim.System) -> str:
    """What a call ends with that is held in the third service of a chain."""
    try:
        system.client("chain_a").chain(HOLD + 2)
    except CallError as error:
        return f"{type(error).__name__}: {error}"
    return "a reply"


# ---- back-off and giving up


def test_a_service_that_dies_too_often_stays_down_and_says_so(system: Boots) -> None:
    box = system(text="[service.echo]\nrestart = { max_per_minute = 2, backoff_ms = 1, backoff_max_ms = 2 }\n")
    client = box.attach()
    waiting = caller(box, "echo", "block")
    waiting.go()
    waiting.waits()
    for _ in range(2):
        box.recovered("echo", box.kill("echo"))
        is_reached(client, "echo")
        until(lambda: box.service("echo")["totals"]["calls"] >= 2, "who waits has called again")
        waiting.waits()
    box.kill("echo")
    until(lambda: box.process("echo")["state"] == "failed", "it is given up")
    with pytest.raises(NoSuchService, match="echo is down"):
        client.client("echo").null()
    with pytest.raises(NoSuchService, match="echo is down"):
        box.attach().client("echo").work(0)
    with pytest.raises(AssertionError, match="NoSuchService: service echo is down"):
        waiting.result()
    is_reached(client, "procmgr")
    box.logged("echo died too often and stays down")
    assert box.process("echo")["pid"] == 0


def test_restarts_come_slower_each_time(system: Boots) -> None:
    box = system(text="[service.echo]\nrestart = { backoff_ms = 40, backoff_max_ms = 160 }\n")
    client = box.attach()
    outages = []
    for _ in range(3):
        box.kill("echo")
        started = time.monotonic()
        client.client("echo").null()
        outages.append(time.monotonic() - started)
    assert outages[0] >= 0.035
    assert outages[1] >= 0.075
    assert outages[2] >= 0.155


def test_a_service_that_may_never_be_restarted_is_not(system: Boots) -> None:
    box = system(text="[service.echo]\nrestart = { max_per_minute = 0 }\n")
    box.kill("echo")
    until(lambda: box.process("echo")["state"] == "failed", "it is given up")
    with pytest.raises(NoSuchService):
        box.attach().client("echo").null()


def test_a_pre_bound_service_that_is_down_stops_no_thread(system: Boots) -> None:
    box = system(text="[service.memmgr]\nrestart = { max_per_minute = 0 }\n")
    box.kill("memmgr")
    until(lambda: box.process("memmgr")["state"] == "failed", "it is given up")
    client = box.attach()
    is_reached(client, "echo")
    with pytest.raises(NoSuchService):
        client.memmgr.info()


def test_a_deadline_covers_the_wait_for_a_service_that_is_down(system: Boots) -> None:
    box = system(text="[service.echo]\nrestart = { backoff_ms = 60000, backoff_max_ms = 60000 }\n")
    client = box.attach().client("echo", timeout=0.3)
    client.null()
    box.kill("echo")
    until(lambda: box.process("echo")["state"] == "backoff", "the death is noticed")
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.null()
    assert 0.2 < time.monotonic() - started < 5.0
