"""Clients that die, are interrupted, fork, or come with many threads, at each stage of a call.

That no stack stays bound to a client that has gone is checked after every test (`Box.settle`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import shim
from corekernel.errors import DeadlineExceeded
from tests.conftest import FAULTY, Boots, Box, Child, Tell, children_of, in_futex, process_table, until
from tests.test_supervision import MEGABYTE, caller

SERVICES_LEFT_ALONE = ("faulty", "echo", "cecho", "chain_a", "chain_b", "chain_c", "procmgr", "memmgr", "example")


@pytest.fixture
def unharmed(shared: Box) -> Any:
    """The shared system; afterwards every service is the process it was before, and serves."""
    before = {name: shared.pid(name) for name in SERVICES_LEFT_ALONE}
    yield shared
    assert {name: shared.pid(name) for name in SERVICES_LEFT_ALONE} == before
    system = shared.attach()
    assert system.client("chain_a").chain(3) == 3
    assert system.client("echo").echo(MEGABYTE) == MEGABYTE


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
        tell.pause()
        system.client("echo").null()

    client = unharmed.client(body)
    with unharmed.frozen("echo"):
        client.go()
        until(lambda: any(c["pid"] == client.pid and c["bound"] == 3 for c in unharmed.status()["clients"]), "it binds")
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


# ---- interrupted


def test_ctrl_c_ends_a_call_that_waits_for_a_condition(unharmed: Box) -> None:
    assert interrupted(unharmed, "faulty", "block") == "KeyboardInterrupt"


def test_ctrl_c_ends_a_call_whose_handler_runs_on(system: Boots) -> None:
    box = system(text=FAULTY)
    started = time.monotonic()
    assert interrupted(box, "faulty", "work", 2_000_000_000) == "KeyboardInterrupt"
    assert time.monotonic() - started < 1.9


def interrupted(box: Box, service: str, call: str, *arguments: Any) -> str:
    """SIGINT to a process that waits in a call: what the call ended with; the thread must be able to call on."""

    def body(system: shim.System, tell: Tell) -> str:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        client = system.client(service)
        client.null()
        tell("ready")
        try:
            getattr(client, call)(*arguments)
        except KeyboardInterrupt:
            assert client.echo(b"and on") == b"and on"
            return "KeyboardInterrupt"
        return "a reply"

    child = box.client(body, timeout=None)
    assert child.hear() == "ready"
    child.waits()
    os.kill(child.pid, signal.SIGINT)
    return str(child.result())


def test_a_signal_whose_handler_returns_does_not_end_a_call(unharmed: Box) -> None:
    def body(system: shim.System, tell: Tell) -> int:
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        client = system.client("faulty")
        client.null()
        tell("ready")
        client.block()
        return len(seen)

    child = unharmed.client(body, timeout=None)
    assert child.hear() == "ready"
    for _ in range(5):
        child.waits()
        os.kill(child.pid, signal.SIGUSR1)
        until(lambda: not Path(f"/proc/{child.pid}/status").read_text().count("SigPnd:\t0000000000000200"), "delivered")
    child.waits()
    unharmed.attach().client("faulty").release()
    assert 1 <= child.result() <= 5


@pytest.mark.parametrize(("call", "arguments"), [("block", ()), ("work", (1_000_000_000,))])
def test_a_signal_just_before_a_call_sleeps_is_not_lost(unharmed: Box, call: str, arguments: tuple[int, ...]) -> None:
    def body(system: shim.System, tell: Tell) -> list[float]:
        class Alarm(Exception):
            pass

        def handler(*_: object) -> None:
            raise Alarm

        signal.signal(signal.SIGALRM, handler)
        operation = getattr(system.client("faulty", timeout=2.0), call)
        late: list[float] = []
        for attempt in range(40):
            started = time.monotonic()
            with contextlib.suppress(Alarm, DeadlineExceeded):
                signal.setitimer(signal.ITIMER_REAL, 0.000_010 + attempt * 0.000_005)
                operation(*arguments)
            if time.monotonic() - started > 0.8:
                late.append(attempt)
        return late

    assert unharmed.client(body, timeout=None).result(60.0) == []
    until(lambda: unharmed.bound("faulty") == 0, "all handlers have returned")


def test_a_signal_while_a_caller_spins_is_noticed_before_it_sleeps_for_good(unharmed: Box) -> None:
    def body(system: shim.System, tell: Tell) -> float:
        policy = system.attachment.policy
        client = system.client("faulty")
        client.null()
        policy.pointer.spin, policy.pointer.spin_same = policy.ticks(0.1), 1
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        started = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.03)
            client.work(3_000_000_000)
        return time.monotonic() - started

    assert unharmed.client(body, timeout=None).result() < 2.0


def test_a_signal_handler_may_call_while_a_call_is_in_progress(unharmed: Box) -> None:
    def body(system: shim.System, tell: Tell) -> list[Any]:
        client, replies = system.client("faulty"), []
        signal.signal(signal.SIGUSR1, lambda *_: replies.append(len(client.echo(bytes(5000)))))
        client.null()
        tell("ready")
        client.block()
        return replies

    child = unharmed.client(body, timeout=None)
    assert child.hear() == "ready"
    child.waits()
    os.kill(child.pid, signal.SIGUSR1)
    until(lambda: unharmed.bound("faulty") == 2, "the handler calls on a stack of its own")
    child.waits()
    unharmed.attach().client("faulty").release()
    assert child.result() == [5000]


# ---- deadlines


def test_a_deadline_ends_a_wait_for_a_condition(unharmed: Box) -> None:
    system = unharmed.attach()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        system.client("faulty", timeout=0.05).block()
    assert 0.04 < time.monotonic() - started < 5.0
    system.client("faulty").null()


def test_a_deadline_is_the_ports_whatever_was_called_in_between(unharmed: Box) -> None:
    system = unharmed.attach(None)
    plain, timed, other = (system.client("faulty", timeout=seconds) for seconds in (None, 0.05, 0.1))
    for _ in range(3):
        plain.null()
        for client, least in ((timed, 0.04), (other, 0.09), (timed, 0.04)):
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                client.block()
            assert least < time.monotonic() - started < 5.0
            plain.work(120_000_000)


def test_calls_left_at_their_deadline_keep_no_stack_for_ever(system: Boots) -> None:
    box = system(text=FAULTY)
    mine = box.attach()

    def leave() -> None:
        with contextlib.suppress(DeadlineExceeded):
            mine.client("faulty", timeout=0.01).work(60_000_000)

    for _ in range(10):
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
    box.logged("working", 10)
    until(lambda: box.service("faulty")["totals"]["calls"] >= 10, "all handlers have returned")
    for _ in range(10):
        thread = threading.Thread(target=lambda: mine.client("faulty").null())
        thread.start()
        thread.join()
    assert box.bound("faulty") <= 10, "threads take up what abandoned calls have given back"


# ---- threads


def test_each_thread_has_stacks_of_its_own_and_gives_them_back(unharmed: Box) -> None:
    mine = unharmed.attach()
    together, leave, failures = threading.Barrier(9), threading.Event(), []

    def body() -> None:
        try:
            mine.client("echo").null()
            together.wait(15)
            leave.wait(15)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=body) for _ in range(8)]
    for thread in threads:
        thread.start()
    together.wait(15)
    assert unharmed.bound("echo") == 8
    leave.set()
    for thread in threads:
        thread.join()
    assert not failures
    for _ in range(20):
        thread = threading.Thread(target=mine.client("echo").null)
        thread.start()
        thread.join()
    assert unharmed.bound("echo") == 8


def test_short_lived_threads_take_no_more_stacks_than_run_at_once(unharmed: Box) -> None:
    mine = unharmed.attach()
    at_once, done = threading.Semaphore(4), []

    def body() -> None:
        with at_once:
            done.append(mine.client("echo").echo(b"short"))

    for _ in range(200):
        at_once.acquire()
        at_once.release()
        thread = threading.Thread(target=body)
        thread.start()
        if threading.active_count() > 6:
            thread.join()
    until(lambda: len(done) == 200, "all threads have called")
    assert unharmed.bound("echo") <= 12


def test_a_thread_that_waits_for_a_condition_stops_no_other_thread(unharmed: Box) -> None:
    mine = unharmed.attach()
    waiting, quick = mine.client("faulty", timeout=3.0), mine.client("faulty")
    turns, stop = threading.Semaphore(0), threading.Event()

    def release() -> None:
        while turns.acquire(timeout=10) and not stop.is_set():
            while not done.wait(0.001):  # the waiting thread has the interpreter to itself
                quick.release()

    releasing = threading.Thread(target=release)
    releasing.start()
    try:
        for _ in range(1500):
            done = threading.Event()
            turns.release()
            waiting.block()
            done.set()
    finally:
        done.set()
        stop.set()
        turns.release()
        releasing.join()


def test_many_threads_calling_at_once_all_get_their_own_answers(unharmed: Box) -> None:
    mine, wrong = unharmed.attach(), []

    def body(number: int) -> None:
        client = mine.client("echo")
        for turn in range(50):
            data = f"{number}-{turn}".encode() * (1 if turn % 10 else 1000)
            if client.echo(data) != data:
                wrong.append((number, turn))

    threads = [threading.Thread(target=body, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- forks


def test_a_forked_child_attaches_as_a_client_of_its_own(unharmed: Box) -> None:
    mine = unharmed.attach()
    me = mine.client("echo").whoami().client
    child = unharmed.child(lambda tell: [mine.client("echo").whoami().client, mine.procmgr.getpid(), mine.pid])
    numbers = child.result()
    assert numbers[0] == numbers[1] == numbers[2] != me
    assert mine.client("echo").whoami().client == me == mine.pid


def test_a_forked_child_may_ask_the_core_before_it_calls_anything(unharmed: Box) -> None:
    mine = unharmed.attach()
    mine.client("echo").null()
    child = unharmed.child(lambda tell: [mine.ask("status")["name"], len(mine.processes()) > 0])
    assert child.result() == [unharmed.name, True]


def test_a_fork_from_a_threaded_process_while_another_thread_is_in_a_call(unharmed: Box) -> None:
    def body(tell: Tell) -> list[str]:
        mine = shim.attach(unharmed.name)
        stop = threading.Event()

        def hammer() -> None:
            while not stop.is_set():
                mine.client("echo").echo(bytes(5000))

        def wait() -> None:
            mine.client("faulty").block()

        threads = [threading.Thread(target=hammer, daemon=True) for _ in range(2)]
        threads.append(threading.Thread(target=wait, daemon=True))
        for thread in threads:
            thread.start()
        mine.client("echo").null()
        answers = [Child(lambda tell: mine.client("echo").echo(b"child").decode()).result() for _ in range(10)]
        stop.set()
        for thread in threads[:2]:
            thread.join()
        while threads[2].is_alive():
            mine.client("faulty").release()
            threads[2].join(0.01)
        return answers

    assert unharmed.child(body).result(60.0) == ["child"] * 10


def test_a_grandchild_works_too(unharmed: Box) -> None:
    mine = unharmed.attach()

    def child(tell: Tell) -> Any:
        mine.client("echo").null()
        return Child(lambda tell: mine.client("echo").whoami().client).result()

    assert unharmed.child(child).result() != mine.client("echo").whoami().client


def test_a_forked_child_that_never_calls_takes_nothing_from_its_parent(unharmed: Box) -> None:
    mine = unharmed.attach()
    echo = mine.client("echo")
    echo.echo(MEGABYTE)
    unharmed.child(lambda tell: None).result()
    assert echo.echo(MEGABYTE) == MEGABYTE
    assert [c["number"] for c in unharmed.status()["clients"]] == [mine.pid]


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
