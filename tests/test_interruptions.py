"""Calls that a signal interrupts or a deadline ends, and what the caller can do afterwards.

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
from tests.processes import Tell, until
from tests.systems import FAULTY, Boots, Box

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
