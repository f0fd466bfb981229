"""The same programs against every isolation class: services apart, coalesced, and in the core's own process."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import shim
from corekernel.errors import BadOperation, DeadlineExceeded, HandlerFault, HmkError, NoSuchService, ServiceError
from tests.callers import in_threads
from tests.processes import until
from tests.systems import Boots, Box, boot_box

ECHO = """
[service.echo]
module = "bench.echo"
interface = "bench_echo"
class = "{isolation}"
"""
GATE = """
[service.gate]
module = "tests.faulty"
interface = "bench_echo"
class = "{isolation}"
"""
CASES = {
    "default": ("default", (ECHO + GATE).format(isolation="IC2")),
    "isolated": ("isolated", (ECHO + GATE).format(isolation="IC2")),
    "monolith": ("monolith", (ECHO + GATE).format(isolation="IC0")),
}
GROUPED = """
[service.one]
module = "bench.echo"
interface = "bench_echo"
group = "both"
calls = ["two"]
options = { next = "two" }

[service.two]
module = "bench.echo"
interface = "bench_echo"
group = "both"
"""


@pytest.fixture(scope="module", params=sorted(CASES))
def _case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("case"), *CASES[request.param])
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def box(_case: Box) -> Iterator[Box]:
    """A system with the services of `default` and an echo service, in each isolation."""
    yield _case
    _case.settle()
    _case.children.clear()
    _case.attached.clear()


# ---- the essentials, however the services are isolated


def test_calls_with_all_sizes_of_arguments(box: Box) -> None:
    system = box.attach()
    echo = system.client("echo")
    for size in (0, 1, 7, 8, 3583, 3584, 3585, 4096, 65_536, 65_537, 1 << 20, 3 << 20):
        data = os.urandom(min(size, 4096)) * (size // 4096 + 1)
        assert echo.echo(data[:size]) == data[:size], size
    for kind in (bytearray, memoryview):
        assert echo.echo(kind(b"any buffer will do")) == b"any buffer will do"
    assert system.example.digest(b"abc") == hashlib.sha256(b"abc").digest()


def test_the_service_knows_who_calls(box: Box) -> None:
    system = box.attach()
    who = system.client("echo").whoami()
    assert (who.client, who.uid) == (system.pid, os.getuid())


def test_errors_of_services_programs_and_transport_stay_apart(box: Box) -> None:
    system = box.attach()
    with pytest.raises(ServiceError) as refused:
        system.procmgr.kill(1 << 40, 0)
    assert refused.value.errno
    with pytest.raises(HandlerFault, match="failed on purpose"):
        system.client("echo").fail()
    with pytest.raises(HandlerFault):
        system.client("echo").recurse()
    with pytest.raises(BadOperation):
        system.call("echo", 60)
    with pytest.raises(NoSuchService):
        system.client("nobody")
    assert system.client("echo").echo(b"on") == b"on"


def test_a_wait_ends_when_somebody_makes_it_true(box: Box) -> None:
    def body(system: shim.System, tell: Any) -> str:
        tell("waiting")
        system.client("gate").block()
        return "released"

    waiting = box.client(body, timeout=None)
    assert waiting.hear() == "waiting"
    waiting.waits()
    gate = box.attach().client("gate")
    until(lambda: box.bound("gate") >= 2 or gate.null(), "both are bound")
    waiting.waits()
    gate.release()
    assert waiting.result() == "released"


def test_a_handler_that_runs_on_is_left_at_the_deadline(box: Box) -> None:
    system = box.attach()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        system.client("echo", timeout=0.05).work(500_000_000)
    assert time.monotonic() - started < 0.45
    assert system.client("echo").echo(b"while it still runs") == b"while it still runs"


def test_programs_threads_and_time(box: Box) -> None:
    system = box.attach()
    assert system.procmgr.wait(system.spawn(["/bin/sh", "-c", "exit 3"])) == 3
    assert system.procmgr.getpid() == system.pid
    tid = system.procmgr.thread_create("t")
    system.procmgr.thread_exit(tid)
    started = time.monotonic()
    system.sleep(0.02)
    assert time.monotonic() - started >= 0.02
    system.memmgr.limit_set(system.pid, 5 << 20)
    assert system.memmgr.limit_get(system.pid) == 5 << 20


def test_threads_call_at_once(box: Box) -> None:
    system, wrong = box.attach(), []

    def body(number: int) -> None:
        for turn in range(30):
            data = bytes([number, turn]) * (10 if turn % 7 else 3000)
            if system.client("echo").echo(data) != data:
                wrong.append((number, turn))

    in_threads(6, body)
    assert wrong == []


def test_a_killed_client_leaves_nothing(box: Box) -> None:
    def body(system: shim.System, tell: Any) -> None:
        system.client("echo").echo(bytes(1 << 20))
        tell("ready")
        system.client("gate").block()

    client = box.client(body, timeout=None)
    client.hear()
    client.waits()
    client.kill()
    until(lambda: box.bound("echo") == box.bound("gate") == 0, "the stack comes back")
    until(lambda: "buffer" not in box.status()["objects"], "the buffer is freed")


# ---- what differs: where the services run


def test_services_in_the_core_are_the_core(system: Boots) -> None:
    box = system("monolith", ECHO.format(isolation="IC0"))
    status = box.status()
    assert [p["name"] for p in status["processes"]] == ["core", "hostfs"]
    together = {s["name"] for s in status["processes"][0]["services"]}
    assert together == {"core", "memmgr", "procmgr", "devmgr", "fs", "example", "echo"}
    system_ = box.attach()
    core_calls = box.service("core")["totals"]["calls"]
    assert system_.procmgr.wait(system_.spawn(["/bin/true"])) == 0
    assert box.service("core")["totals"]["calls"] == core_calls, "procmgr calls the core by function calls"


def test_a_coalesced_group_is_one_process_whose_calls_are_function_calls(system: Boots) -> None:
    box = system("default", GROUPED)
    process = box.process("one")
    assert process["pid"] == box.process("two")["pid"]
    assert process["name"] == "both"
    assert [s["name"] for s in process["services"]] == ["two", "one"] or len(process["services"]) == 2
    client = box.attach()
    assert client.client("one").chain(2) == 2
    assert box.service("two")["totals"]["calls"] == 0, "no stack of the second service was used"
    assert box.service("two")["pool"]["bound"] == 0
    assert client.client("two").chain(1) == 1
    assert client.client("two").echo(bytes(50_000)) == bytes(50_000)
    assert client.client("one").echo(bytes(50_000)) == bytes(50_000)
    assert client.client("two").whoami().client == client.pid


def test_a_coalesced_group_dies_and_comes_back_as_one(system: Boots) -> None:
    box = system("default", GROUPED)
    client = box.attach()
    assert client.client("one").chain(2) == 2
    assert client.client("two").echo(b"x") == b"x"
    with pytest.raises(HmkError, match="generation 1"):
        client.client("two").crash()
    box.recovered("one", 1)
    assert box.generation("two") == 2
    assert client.client("one").chain(2) == 2
    assert client.client("two").echo(b"x") == b"x"


# ---- the shim itself


def test_a_closed_attachment_can_be_followed_by_another(shared: Box) -> None:
    numbers = set()
    for _ in range(3):
        with shim.attach(shared.name, 15.0) as system:
            assert system.client("echo").echo(b"x") == b"x"
            numbers.add(system.pid)
    assert len(numbers) == 3


def test_one_process_may_be_two_clients(shared: Box) -> None:
    first, second = shared.attach(), shared.attach()
    assert first.client("echo").whoami().client == first.pid
    assert second.client("echo").whoami().client == second.pid != first.pid
    first.close()
    assert second.client("echo").echo(b"x") == b"x"


def test_services_and_their_interfaces_are_listed(shared: Box) -> None:
    services = shared.attach().services
    assert services["echo"] == services["chain_a"] == "bench_echo"
    assert services["core"] == "core"


def test_a_raw_call_is_a_call(shared: Box) -> None:
    system = shared.attach()
    assert system.call("echo", 2, (3,), b"abc", 1) == ((3,), b"abc")
    assert system.call("echo", 0) == ((), b"")


def test_descriptors_come_back_when_attachments_close(shared: Box) -> None:
    def use() -> None:
        with shim.attach(shared.name, 15.0) as system:
            system.client("echo").echo(bytes(100_000))

    use()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        use()

    def back() -> bool:
        import gc

        gc.collect()
        return len(os.listdir("/proc/self/fd")) <= before

    until(back, "all descriptors are closed")
