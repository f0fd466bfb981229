"""Calls that fail: handlers that go wrong fail alone, and what may not be called is refused by name."""

from __future__ import annotations

import os

import pytest

from corekernel.boot import BootError
from corekernel.errors import (
    BadOperation,
    CallError,
    Denied,
    HandlerFault,
    NoSuchService,
    ServiceDied,
    TooBig,
)
from tests.callers import MEGABYTE, SERVICES, caller, is_reached
from tests.systems import FAULTY, Boots, Box

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
    box = system("bench", "[service.chain_b]\nclients = false\n[service.echo]\nclients = [4711]\n")
    client = box.attach()
    for service in ("chain_b", "echo"):
        assert service not in client.services
        with pytest.raises(NoSuchService, match=service):
            client.client(service)
        with pytest.raises(Denied):
            client.ask("open", service=service)
        results = client.ask("bind", services={service: {"generation": 1, "slots": [0]}})["services"]
        assert results[service]["error"] == "denied"
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
