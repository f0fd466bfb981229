"""Services that die, hang and misbehave: what their callers see, and how they come back."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import shim
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
from tests.conftest import FAULTY, Boots, Box, Child, Tell, alive, until
from tests.faulty.service import HOLD

SERVICES = ("memmgr", "procmgr", "example", "echo", "cecho", "chain_a", "chain_b", "chain_c")
MEGABYTE = b"m" * (1 << 20)


def is_reached(system: shim.System, service: str) -> None:
    """One call that only a working service answers."""
    client = system.client(service)
    match system.services[service]:
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


def caller(box: Box, service: str, call: str, *arguments: Any) -> Child:
    """A process that binds a service, pauses, and makes one call; it returns the reply or what the call ended with."""

    def body(system: shim.System, tell: Tell) -> list[Any]:
        client = system.client(service)
        client.null()
        tell("bound")
        tell.pause()
        try:
            reply = getattr(client, call)(*arguments)
        except ServiceDied as error:
            return ["died", error.service, error.generation]
        return ["reply", len(reply) if isinstance(reply, bytes) else reply]

    child = box.client(body, timeout=None)
    assert child.hear() == "bound"
    return child


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
        tell.pause()
        system.client("echo").work(0)
        return "served"

    client = shared.client(body, timeout=None)
    with shared.frozen("echo"):
        client.go()
        until(lambda: any(c["pid"] == client.pid and c["bound"] == 3 for c in shared.status()["clients"]), "it binds")
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
    box = system(text='[service.chain_c]\nmodule = "tests.faulty"\n')
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


# ---- handlers that go wrong


def test_a_handler_that_raises_fails_its_call_alone(shared: Box) -> None:
    client, pid = shared.attach().client("echo"), shared.pid("echo")
    with pytest.raises(HandlerFault, match="RuntimeError: failed on purpose"):
        client.fail()
    assert client.echo(b"next") == b"next"
    assert shared.pid("echo") == pid
    shared.logged("RuntimeError: failed on purpose")


def test_a_handler_that_recurses_without_end_fails_its_call_alone(shared: Box) -> None:
    client, pid = shared.attach().client("echo"), shared.pid("echo")
    with pytest.raises(HandlerFault, match="RecursionError"):
        client.recurse()
    assert client.echo(b"next") == b"next"
    assert shared.pid("echo") == pid


def test_a_handler_that_exhausts_memory_fails_its_call_alone(shared: Box) -> None:
    client, pid = shared.attach().client("echo"), shared.pid("echo")
    with pytest.raises(HandlerFault, match="MemoryError"):
        client.hog(1 << 40)
    with pytest.raises(HandlerFault, match="MemoryError"):
        client.hog(300 << 20)
    assert client.echo(b"next") == b"next"
    assert shared.pid("echo") == pid


def test_a_handler_that_crashes_takes_its_own_process_along_and_nothing_else(shared: Box) -> None:
    system = shared.attach()
    others = {name: shared.pid(name) for name in SERVICES if name != "echo"}
    generation = shared.generation("echo")
    with pytest.raises(ServiceDied) as caught:
        system.client("echo").crash()
    assert caught.value.generation == generation
    shared.recovered("echo", generation)
    assert {name: shared.pid(name) for name in others} == others
    shared.logged("echo died (signal 6)")


def test_a_handler_that_hangs_is_left_at_the_deadline(shared: Box) -> None:
    system = shared.attach()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        system.client("echo", timeout=0.05).work(400_000_000)
    assert time.monotonic() - started < 0.35
    assert system.client("echo").echo(b"while it still runs") == b"while it still runs"


def test_a_service_with_a_hung_handler_is_restarted_at_its_limit(system: Boots) -> None:
    box = system(text=FAULTY + "handler_limit_ms = 300\n")
    client = caller(box, "faulty", "work", 60_000_000_000)
    client.go()
    box.logged("working")
    generation = box.generation("faulty")
    assert client.result() == ["died", "faulty", generation]
    box.recovered("faulty", generation)
    box.logged("faulty: a handler ran for")
    is_reached(box.attach(), "faulty")


def test_blocked_readers_hold_no_stacks_so_writers_still_get_some(system: Boots) -> None:
    box = system(text="[service.echo]\npool = { initial = 2, low = 1, high = 2, limit = 6, reserve = 1 }\n")
    readers = [caller(box, "echo", "block") for _ in range(8)]
    for reader in readers:
        reader.go()
        reader.waits()
    assert box.service("echo")["pool"]["bound"] <= 6
    writer = box.attach().client("echo")
    assert writer.echo(b"a writer") == b"a writer"
    assert writer.echo(MEGABYTE) == MEGABYTE
    writer.release()
    assert [reader.result() for reader in readers] == [["reply", None]] * 8


# ---- calls that are refused


def test_an_unknown_operation_is_refused(shared: Box) -> None:
    system = shared.attach()
    for service in ("echo", "cecho", "procmgr", "core"):
        for operation in (63, 200, 65535):
            with pytest.raises(BadOperation):
                system.call(service, operation)
        is_reached(system, service)


def test_a_payload_beyond_the_interface_or_the_transport_is_refused(shared: Box) -> None:
    system = shared.attach()
    with pytest.raises((TooBig, ValueError)):
        system.client("echo").echo(bytes((16 << 20) + 1))
    with pytest.raises(TooBig):
        system.call("echo", 2, ((16 << 20) + 1,), bytes((16 << 20) + 1), 1)
    largest = os.urandom(1 << 20) * 16
    assert system.client("echo").echo(largest) == largest


def test_a_malformed_request_is_refused_and_the_stack_goes_on(shared: Box) -> None:
    system = shared.attach()
    for registers, payload in (((), b""), ((5,), b"four"), ((1 << 63,), b"x"), ((1, 2, 3), b"x")):
        with pytest.raises(CallError):
            system.call("echo", 2, registers, payload, 1)
    is_reached(system, "echo")


def test_a_service_that_does_not_exist_is_named(shared: Box) -> None:
    system = shared.attach()
    with pytest.raises(NoSuchService, match="nobody"):
        system.client("nobody")
    with pytest.raises(NoSuchService, match="nobody"):
        system.port("nobody")
    with pytest.raises(NoSuchService, match="nobody"):
        system.attachment.ask({"do": "open", "service": "nobody"})


def test_a_service_closed_to_clients_is_closed_whatever_they_say(system: Boots) -> None:
    box = system(text="[service.chain_b]\nclients = false\n[service.echo]\nclients = [4711]\n")
    client = box.attach()
    for service in ("chain_b", "echo"):
        assert service not in client.services
        with pytest.raises(NoSuchService, match=service):
            client.client(service)
        with pytest.raises(Denied):
            client.ask("open", service=service)
        with pytest.raises(Denied):
            client.ask("bind", service=service, generation=1, slots=[0])
        with pytest.raises(Denied):
            client.ask("buffer", service=service, generation=1, slot=0, size=4096)
    assert client.client("chain_a").chain(3) == 3
    assert box.bound("echo") == 0


def test_a_service_reaches_only_what_its_calls_list(system: Boots) -> None:
    box = system(text=FAULTY + 'options = { reach = "procmgr" }\n')
    box.attach().client("faulty").fail()
    box.logged("refused: Denied: faulty may not call procmgr")
    assert "allowed" not in box.log()


def test_a_service_that_asks_for_what_it_may_not_call_stops_the_boot(system: Boots) -> None:
    with pytest.raises(BootError, match="faulty may not call echo"):
        system(text=FAULTY + 'options = { reach_at_start = "echo" }\n')


def test_a_service_that_cannot_be_made_stops_the_boot_with_its_reason(system: Boots) -> None:
    with pytest.raises(BootError, match="this service does not want to"):
        system(text=FAULTY + "options = { refuse_to_start = true }\n")


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
