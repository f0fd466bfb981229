"""Services of isolation class IC1, booted whole: one poller on a CPU of its own serves every client.

The services are those of `bench`, with the class changed. A host with one CPU has none to dedicate: there the same
tests run, and the services run as IC2. Attackers hold what every client holds, the ready bitmap included; beside them
another client's calls are verified.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from typing import Any

import pytest

from bench.hmk.client import CClient, Task
from corekernel import dispatcher
from corekernel._dispatcher import ffi
from corekernel.cli import status
from corekernel.dispatcher import Link
from corekernel.errors import DeadlineExceeded, ServiceDied, Status
from corekernel.shared import MAX_SLOTS, SLOT_BYTES, Frames
from shim.client import System
from tests.attacker import Body, Forger, beside, bound_links, result_of, scribble, stranger, unharmed
from tests.callers import MEGABYTE, caller, in_threads
from tests.processes import Tell, status_of, until
from tests.systems import FAULTY, Boots, Box, Keeps

CPUS = os.cpu_count() or 1
POLL_CPU = CPUS - 1 if CPUS > 1 else None
SERVICES = ("echo", "cecho")
MORE_THAN_A_WORD = 70


def ic1(*services: str, more: str = "") -> str:
    """What makes services of `bench` IC1."""
    return "".join(f'[service.{name}]\nclass = "IC1"\n{more}' for name in services)


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    """An echo service, in Python or in C."""
    return str(request.param)


@pytest.fixture
def box(kept: Keeps, service: str) -> Box:
    """A system in which that service is IC1."""
    return kept(ic1(service))


@pytest.fixture
def faulty(kept: Keeps) -> Box:
    """A system whose service `faulty` is IC1."""
    return kept(FAULTY + 'class = "IC1"\n')


# ---- which CPU


def shown(box: Box, service: str) -> str:
    """The line of `status` about a service's process."""
    return next(line for line in status.tree(box.status()).splitlines() if f" {service} " in line)


def test_status_says_on_which_cpu_the_poller_is(box: Box, service: str) -> None:
    assert box.service(service)["poll_cpu"] == POLL_CPU
    assert ("IC1 as IC2" if POLL_CPU is None else f"IC1 on CPU {POLL_CPU}") in shown(box, service)
    tasks = [int(name) for name in os.listdir(f"/proc/{box.pid(service)}/task")]
    until(
        lambda: POLL_CPU is None or str(POLL_CPU) in [status_of(task)["Cpus_allowed_list"] for task in tasks],
        "a thread is bound to that CPU",
    )


def test_without_the_cpu_that_it_asks_for_it_runs_as_ic2_and_says_so(system: Boots) -> None:
    box = system(text=ic1("echo", more='placement = "poller 4000"\n'))
    box.logged("echo: no CPU to dedicate, IC1 runs as IC2")
    assert (box.service("echo")["class"], box.service("echo")["poll_cpu"]) == ("IC1", None)
    assert "IC1 as IC2" in shown(box, "echo")
    beside(box, 20, ("echo",))


# ---- calls


def echoing(service: str, threads: int, calls: int) -> Body:
    """Verified calls with payloads of all sizes, from many threads."""

    def body(system: System, tell: Tell) -> int:
        def one(number: int) -> None:
            chance = random.Random(number)
            client = system.client(service)
            for _ in range(calls):
                data = chance.randbytes(chance.choice((0, 1, 100, 3584, 3585, 60_000)))
                assert client.echo(data) == data

        in_threads(threads, one)
        return threads * calls

    return body


def test_every_thread_of_every_client_gets_its_own_replies(box: Box, service: str) -> None:
    before = int(box.service(service)["totals"]["calls"])
    clients = [box.client(echoing(service, threads=5, calls=40)) for _ in range(3)]
    made = sum(client.result() for client in clients)
    assert int(box.service(service)["totals"]["calls"]) - before >= made == 3 * 5 * 40


def test_more_threads_than_a_word_of_the_bitmap_has_bits_are_all_served(box: Box, service: str) -> None:
    assert box.client(echoing(service, MORE_THAN_A_WORD, calls=4)).result() == 4 * MORE_THAN_A_WORD


@pytest.mark.parametrize("size", [0, 64, 100_000])
def test_a_client_in_c_is_served(kept: Keeps, size: int) -> None:
    def body(attached: System, tell: Tell) -> int:
        client = CClient(attached, Task("c", "cecho", payload_bytes=size, budget_s=10.0))
        client.some_calls(10.0, 100)
        assert client._reply == client._payload
        return len(client.some_calls(10.0, 3000))

    assert kept(ic1("cecho")).client(body).result() == 3000


@pytest.mark.parametrize("first", ["chain_a", "cchain_a"])
def test_a_polled_service_calls_others_and_is_called_by_others(system: Boots, first: str) -> None:
    client = system("bench", ic1(first.replace("_a", "_b"))).attach().client(first)
    assert [client.chain(depth) for depth in (1, 2, 3)] == [1, 2, 3]


def test_a_call_that_must_wait_holds_up_nobody(faulty: Box) -> None:
    waiting = caller(faulty, "faulty", "block")
    waiting.go()
    waiting.waits()
    beside(faulty, 50, ("faulty",))
    faulty.attach().client("faulty").release()
    assert waiting.result() == ["reply", None]


def test_stacks_taken_from_one_thread_serve_the_next(system: Boots, service: str) -> None:
    threads, most = 12, 5

    def body(attached: System, tell: Tell) -> None:
        met = threading.Barrier(threads)

        def one(number: int) -> None:
            client = attached.client(service)
            for _ in range(10):
                met.wait()  # every thread keeps its slot, though not its stack, while the others call
                assert client.echo(bytes([number])) == bytes([number])

        in_threads(threads, one)

    few = f"pool = {{ limit = {most + 1}, initial = 2, reserve = 1, low = 0, high = {most} }}\n"
    box = system(text=ic1(service, more=few))
    box.client(body).result()
    assert int(box.service(service)["pool"]["reclaimed"]) >= threads - most


# ---- deadlines, cancellation


def null(link: Link) -> Any:
    """The transport's own null call, however long it takes: a nap's end is no answer."""
    reply = link.call(0, (), b"", 0)
    while reply == Status.INTERRUPTED:
        reply = link.resume(b"")
    return reply


def test_a_handler_that_outlives_the_deadline_ends_that_call_alone(faulty: Box) -> None:
    system = faulty.attach()
    with pytest.raises(DeadlineExceeded):
        system.client("faulty", timeout=0.05).work(200_000_000)
    assert system.client("faulty").echo(b"next") == b"next"


def test_calls_given_up_before_the_poller_saw_them_let_go_of_their_slots(box: Box, service: str) -> None:
    system = box.attach()
    _, links = bound_links(system, service, MORE_THAN_A_WORD)
    with box.frozen(service):
        for link in links:
            link.set_up(dispatcher.now() + system.attachment.policy.ticks(0.001), 1, special=True)
            assert link.call(0, (), b"", 0) == Status.DEADLINE
            assert not link.ready()
    until(lambda: all(link.ready() for link in links), "all slots are usable again")
    for link in links:
        link.set_up(0, 1, special=True)
        assert null(link) == ((), b"")


@pytest.mark.parametrize("operation", ["work", "block"])
def test_an_interrupted_call_is_given_up_and_the_next_one_served(faulty: Box, operation: str) -> None:
    def body(system: System, tell: Tell) -> str:
        def stop(number: int, frame: object) -> None:
            raise InterruptedError

        signal.signal(signal.SIGUSR1, stop)
        client = system.client("faulty")
        client.null()
        tell("bound")
        try:
            client.work(300_000_000) if operation == "work" else client.block()
        except InterruptedError:
            return bytes(client.echo(b"next")).decode()
        return "not interrupted"

    client = faulty.client(body)
    client.hear()
    client.waits()
    os.kill(client.pid, signal.SIGUSR1)
    assert client.result() == "next"


# ---- deaths


def test_a_client_killed_while_its_handler_runs_gives_its_stack_back(faulty: Box) -> None:
    client = caller(faulty, "faulty", "work", 300_000_000)
    client.go()
    faulty.logged("working")
    client.kill()
    until(lambda: faulty.bound("faulty") == 0, "the stack comes back when the handler returns")
    beside(faulty, 20, ("faulty",))


def test_clients_killed_at_no_matter_what_moment_harm_nobody(box: Box, service: str) -> None:
    def body(system: System, tell: Tell) -> None:
        threading.Thread(target=echoing(service, 3, 1 << 30), args=(system, tell), daemon=True).start()
        client = system.client(service)
        for _ in range(20):
            client.echo(MEGABYTE)
        tell("calling")
        while True:
            client.null()

    with unharmed(box, (service,)):
        for _ in range(5):
            client = box.client(body)
            client.hear()
            client.kill()


def test_a_killed_service_comes_back_with_a_poller_and_calls_are_issued_again(box: Box, service: str) -> None:
    client = box.attach().client(service)
    assert client.echo(b"before") == b"before"
    for _ in range(3):
        generation = box.kill(service)
        assert client.echo(b"after") == b"after"
        box.recovered(service, generation)
        assert box.service(service)["poll_cpu"] == POLL_CPU


def test_a_call_in_flight_ends_with_the_service(faulty: Box) -> None:
    client = caller(faulty, "faulty", "work", 20_000_000_000)
    client.go()
    faulty.logged("working")
    generation = faulty.kill("faulty")
    assert client.result() == ["died", "faulty", generation]
    faulty.recovered("faulty", generation)
    beside(faulty, 20, ("faulty",))


def test_a_handler_that_crashes_ends_the_calls_of_all_and_the_system_goes_on(system: Boots) -> None:
    box = system(text=ic1("echo"))
    generation = box.generation("echo")
    with pytest.raises(ServiceDied):
        box.attach().client("echo").crash()
    box.recovered("echo", generation)
    beside(box, 20)


# ---- attacks on slots and bitmap


def bitmap(frames: Frames) -> memoryview:
    """The ready bitmap of a session, as its client may write it."""
    words = frames.mapping.memory[MAX_SLOTS * SLOT_BYTES :]
    return words[: MAX_SLOTS // 8].cast("Q")


def scribbler(service: str, seed: int) -> Body:
    """Binds slots and writes over them and over the whole bitmap: bits of slots bound and not, set and cleared."""

    def body(system: System, tell: Tell) -> None:
        session, links = bound_links(system, service, 12)
        system.attachment.buffer(session, links[0], 64 << 10)
        slots = memoryview(session.frames.mapping.memory)[: 12 * SLOT_BYTES]
        chance, bits = random.Random(seed), bitmap(session.frames)
        tell("scribbling")
        while True:
            scribble(slots, chance, 200)
            for _ in range(8):
                bits[chance.randrange(len(bits))] = chance.getrandbits(64)
                bits[0] = chance.choice((0, (1 << 64) - 1, chance.getrandbits(64)))
            os.sched_yield()

    return body


def others_are_served(box: Box, service: str, attack: Body) -> None:
    """Beside an attacker, others' calls go on and are right."""
    with unharmed(box, (service,)):
        attacker = stranger(box, attack)
        attacker.hear()
        beside(box, 500, (service,))
        attacker.kill()


@pytest.mark.parametrize("seed", [1, 2])
def test_scribbling_over_slots_and_bitmap_harms_only_the_scribbler(box: Box, service: str, seed: int) -> None:
    with unharmed(box, (service,)):
        attacker = stranger(box, scribbler(service, seed))
        attacker.hear()
        beside(box, 1000, (service,))
        until(lambda: int(box.service(service)["totals"]["forged"]) > 10, "forged frames are found")
        attacker.kill()


def test_all_bits_set_all_the_time_starve_nobody(box: Box, service: str) -> None:
    def body(system: System, tell: Tell) -> None:
        session, _ = bound_links(system, service, 200)
        bits = bitmap(session.frames)
        tell("setting")
        while True:
            for word in range(len(bits)):
                bits[word] = (1 << 64) - 1

    others_are_served(box, service, body)


def test_calls_on_every_slot_at_once_starve_nobody(box: Box, service: str) -> None:
    def body(system: System, tell: Tell) -> None:
        session, links = bound_links(system, service, 100)
        forgers, bits = list(map(Forger, links)), bitmap(session.frames)
        tell("calling")
        while True:
            for forger in forgers:
                forger.request(operation=1)
            bits[0] = bits[1] = (1 << 64) - 1

    others_are_served(box, service, body)


def test_a_bit_withheld_delays_its_own_call_and_is_made_good_at_any_time(box: Box, service: str) -> None:
    def body(attached: System, tell: Tell) -> list[int]:
        session, (link, other) = bound_links(attached, service, 2)
        assert null(link) == null(other)
        until(lambda: not bitmap(session.frames)[0] & 1 << link.index, "the slot cools down")
        assert null(other) == ((), b"")  # so the last look at the other slot is over
        link.c.ready = aside = ffi.new("uint64_t *")
        link.set_up(dispatcher.now() + attached.attachment.policy.ticks(0.005), 1, special=True)
        withheld = link.call(0, (), b"", 0)
        assert null(other) == ((), b"")
        given_up = link.ready()
        bitmap(session.frames)[0] |= 1 << link.index
        until(link.ready, "the poller lets go of the slot")
        assert aside[0] & 1 << link.index or POLL_CPU is None
        return [withheld == Status.DEADLINE, given_up]

    with unharmed(box, (service,)):
        withheld, ready = result_of(box, body)
    assert POLL_CPU is None or (withheld and not ready)


def test_stacks_behind_phases_that_nobody_announced_can_be_taken_back(system: Boots, service: str) -> None:
    def body(attached: System, tell: Tell) -> None:
        forgers = [Forger(link) for link in bound_links(attached, service, 7)[1]]
        for forger, phase in zip(forgers, (1, 1, 3, 4, 5, 7, 15), strict=True):
            forger.request(phase=phase)
        tell("held")
        tell.pause()

    box = system(text=ic1(service, more="pool = { limit = 8, initial = 2, reserve = 1, low = 0, high = 8 }\n"))
    attacker = stranger(box, body)
    attacker.hear()
    beside(box, 5, (service,))
