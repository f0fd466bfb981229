"""WAIT: a caller that waits for something holds no stack, loses no wake-up, and can be called off in every way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from corekernel.condition import Condition
from corekernel.errors import DeadlineExceeded, WouldWait
from shim.client import System
from tests.processes import Tell, until
from tests.systems import Boots, Box

TURNS = """
[service.echo]
module = "tests.turns"
"""


class Waiter:
    """A caller in memory only."""

    uid = gid = pid = thread = 0

    def __init__(self, client: int) -> None:
        self.client = client
        self.wait_sequence = -1
        self.count = 0
        self.on_sample: Callable[[], object] = lambda: None

    def sample(self) -> int:
        """The count; then whatever the test has happen at that moment."""
        count = self.count
        self.on_sample()
        return count

    def wake(self) -> None:
        """One more."""
        self.count += 1


# ---- the condition by itself


def test_what_holds_already_is_returned_and_nobody_waits() -> None:
    condition = Condition()
    assert condition.wait_for(Waiter(1), lambda: "there") == "there"
    assert condition.wait_for(Waiter(1), lambda: 0) == 0
    assert len(condition) == 0


@pytest.mark.parametrize("answer", [None, False])
def test_what_does_not_hold_makes_the_caller_wait(answer: object) -> None:
    condition, waiter = Condition(), Waiter(1)
    waiter.count = 7
    with pytest.raises(WouldWait):
        condition.wait_for(waiter, lambda: answer)
    assert (waiter.wait_sequence, len(condition)) == (7, 1)
    condition.notify()
    assert (waiter.count, len(condition)) == (8, 0)


@pytest.mark.parametrize("moment", ["while the count is read", "while the condition is tested"])
def test_a_notification_in_between_is_not_lost(moment: str) -> None:
    condition, waiter = Condition(), Waiter(1)
    other = Waiter(2)
    with pytest.raises(WouldWait):
        condition.wait_for(other, lambda: None)
    if moment == "while the count is read":
        waiter.on_sample = condition.notify
        ready = lambda: other.count > 0  # noqa: E731
        assert condition.wait_for(waiter, ready)
    else:
        with pytest.raises(WouldWait):
            condition.wait_for(waiter, condition.notify)
        assert waiter.count != waiter.wait_sequence, "it would sleep, though it was notified"


def test_a_caller_that_asks_twice_waits_once() -> None:
    condition, waiter = Condition(), Waiter(1)
    for _ in range(3):
        with pytest.raises(WouldWait):
            condition.wait_for(waiter, lambda: None)
    assert len(condition) == 1


def test_a_client_that_is_gone_is_forgotten_and_the_others_are_not() -> None:
    condition = Condition()
    waiters = [Waiter(client) for client in (1, 1, 2)]
    for waiter in waiters:
        with pytest.raises(WouldWait):
            condition.wait_for(waiter, lambda: None)
    condition.forget(1)
    condition.notify()
    assert [waiter.count for waiter in waiters] == [0, 0, 1]


# ---- through a service


def waiting(box: Box, service: str, calls: int) -> None:
    """Return once so many calls have been answered with WAIT, and nothing runs."""
    until(lambda: box.service(service)["totals"]["calls"] >= calls, "the call arrives")


@pytest.fixture
def box(system: Boots) -> Box:
    """A system with a service in which one can wait."""
    return system()


def blocked(system: System, tell: Tell) -> str:
    system.client("echo", timeout=30.0).block()
    return "released"


def test_waiting_callers_hold_no_running_handler_and_all_return(box: Box) -> None:
    children = [box.client(blocked) for _ in range(6)]
    waiting(box, "echo", 6)
    for child in children:
        child.waits()
    box.attach().client("echo").release()
    assert [child.result() for child in children] == ["released"] * 6


def test_stacks_of_waiting_callers_serve_others(system: Boots) -> None:
    box = system(text="[service.echo]\npool = { limit = 8, initial = 2, low = 0, high = 8, reserve = 1 }\n")
    attached = box.attach()
    ends: list[str] = []

    def body() -> None:
        attached.client("echo", timeout=30.0).block()
        ends.append("released")

    threads = [threading.Thread(target=body) for _ in range(30)]
    for thread in threads:
        thread.start()
    waiting(box, "echo", 30)
    assert attached.client("echo").echo(b"no stack is held") == b"no stack is held"
    attached.client("echo").release()
    for thread in threads:
        thread.join()
    assert ends == ["released"] * 30
    assert box.service("echo")["pool"]["peak"] <= 8


@pytest.mark.parametrize("turns", [1, 3])
def test_a_hammer_of_waits_and_notifications_loses_none(system: Boots, turns: int) -> None:
    """Threads hand a few turns round: were one wake-up lost, all would come to stand."""
    attached = system(text=TURNS).attach(timeout=20.0)
    ends: list[bool] = []

    def body() -> None:
        client = attached.client("echo")
        for _ in range(100):
            client.block()
            client.release()
        ends.append(True)

    team = [threading.Thread(target=body) for _ in range(10)]
    for thread in team:
        thread.start()
    for _ in range(turns):
        attached.client("echo").release()
    for thread in team:
        thread.join()
    assert ends == [True] * 10


def test_a_deadline_ends_a_wait_and_the_caller_can_call_again(box: Box) -> None:
    attached = box.attach()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        attached.client("echo", timeout=0.05).block()
    assert time.monotonic() - started >= 0.05
    assert attached.client("echo").echo(b"again") == b"again"
    attached.client("echo").release()
    attached.client("echo", timeout=5.0).block()


def test_deadlines_that_pass_at_once_cost_no_stack(box: Box) -> None:
    attached = box.attach()
    client = attached.client("echo", timeout=1e-6)
    for _ in range(200):
        with pytest.raises(DeadlineExceeded):
            client.block()
    assert attached.client("echo").echo(b"again") == b"again"
    assert box.bound("echo") < 20


class Stop(Exception):
    """Raised by the signal handler of a test."""


def interrupted(handler: Callable[..., object]) -> Callable[[System, Tell], str]:
    """A client that waits, with a handler for SIGUSR1, and says how the wait ended."""

    def body(system: System, tell: Tell) -> str:
        signal.signal(signal.SIGUSR1, lambda *_: handler(tell))
        tell("ready")
        try:
            system.client("echo", timeout=30.0).block()
        except Stop:
            assert system.client("echo").echo(b"still") == b"still"
            return "stopped"
        return "released"

    return body


def stop(tell: Tell) -> None:
    raise Stop


def note(tell: Tell) -> None:
    tell("handled")


def test_a_signal_whose_handler_raises_cancels_the_wait(box: Box) -> None:
    child = box.client(interrupted(stop))
    child.hear()
    child.waits()
    os.kill(child.pid, signal.SIGUSR1)
    assert child.result() == "stopped"


def test_a_signal_whose_handler_returns_does_not_end_the_wait(box: Box) -> None:
    child = box.client(interrupted(note))
    child.hear()
    for _ in range(5):
        child.waits()
        os.kill(child.pid, signal.SIGUSR1)
        assert child.hear() == "handled"
    child.waits()
    box.attach().client("echo").release()
    assert child.result() == "released"


def test_a_wait_goes_on_across_restarts_of_the_service(box: Box) -> None:
    child = box.client(blocked)
    for _ in range(3):
        waiting(box, "echo", 1)
        child.waits()
        box.recovered("echo", box.kill("echo"))
    waiting(box, "echo", 1)
    box.attach().client("echo").release()
    assert child.result() == "released"


def test_a_waiting_client_that_dies_is_forgotten(box: Box) -> None:
    child = box.client(blocked)
    waiting(box, "echo", 1)
    child.waits()
    before = box.bound("echo")
    child.kill()
    until(lambda: box.bound("echo") == before - 1, "its stack comes back")
    box.attach().client("echo").release()
    assert box.generation("echo") == 1


def test_a_timer_wakes_its_sleepers_in_order(box: Box) -> None:
    attached = box.attach()
    ends: list[float] = []

    def body(seconds: float) -> None:
        attached.sleep(seconds)
        ends.append(seconds)

    threads = [threading.Thread(target=body, args=(0.05 * n,)) for n in (3, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == sorted(ends)
