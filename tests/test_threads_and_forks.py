"""Clients with many threads, and clients that fork: each thread has its stacks, each child is a client.

That no stack stays bound to a client that has gone is checked after every test (`Box.settle`).
"""

from __future__ import annotations

import threading
from typing import Any

import shim
from tests.callers import MEGABYTE, in_threads
from tests.processes import Child, Tell, until
from tests.systems import Box

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

    in_threads(8, body)
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
