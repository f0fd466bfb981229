"""Chains of calls: depth, priority, cycles that run on the stack already waiting, and deaths on the way."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from corekernel.errors import CallError, HandlerFault, TooDeep
from shim.client import System
from tests.relay.service import ECHO
from tests.systems import Boots, Box, Keeps

MAX_DEPTH = 8
PYTHON, C = "chain_a", "cchain_a"


@dataclass(frozen=True)
class Hop:
    """What one service on the way saw of the call."""

    name: str
    depth: int
    priority: int
    thread: int


def relays(cycle: str) -> str:
    """Services named by letters; each may call the next, and the last the first."""
    text = ""
    for name, onward in zip(cycle, cycle[1:] + cycle[0], strict=True):
        text += f'[service.{name}]\nmodule = "tests.relay"\ninterface = "bench_echo"\n'
        text += f'calls = ["{onward}"]\noptions = {{ next = "{onward}" }}\n'
    return text


def follow(system: System, script: bytes, priority: int = 1) -> list[Hop]:
    """Send a script to service `a`; the hops it took."""
    _, reply = system.port("a", priority=priority).call(ECHO, (len(script),), script, 1, 1)
    lines = bytes(reply).decode().splitlines()
    return [Hop(name, *map(int, rest)) for name, *rest in (line.split() for line in lines)]


@pytest.mark.parametrize("first", [PYTHON, C])
def test_a_chain_of_three_counts_its_hops(kept: Keeps, first: str) -> None:
    client = kept(base="bench").attach().client(first)
    assert [client.chain(depth) for depth in (0, 1, 2, 3, 4)] == [1, 1, 2, 3, 3]


def test_chains_of_many_threads_end_rightly(kept: Keeps) -> None:
    attached = kept(base="bench").attach()
    results: list[int] = []

    def body() -> None:
        for first in (PYTHON, C):
            client = attached.client(first)
            results.extend(client.chain(3) for _ in range(20))

    threads = [threading.Thread(target=body) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * (16 * 2 * 20)


def test_a_call_back_runs_on_the_stack_that_waits(kept: Keeps) -> None:
    box = kept(relays("ab"))
    attached = box.attach()
    hops = follow(attached, b"nn")
    assert [hop.name for hop in hops] == ["a", "b", "a"]
    assert hops[0].thread == hops[2].thread
    assert (box.bound("a"), box.bound("b")) == (1, 1)
    for _ in range(50):
        assert follow(attached, b"nn")[2].thread == hops[0].thread
    assert (box.bound("a"), box.bound("b")) == (1, 1)


def test_a_longer_cycle_draws_another_stack(kept: Keeps) -> None:
    box = kept(relays("abc"))
    hops = follow(box.attach(), b"nnn")
    assert [hop.name for hop in hops] == ["a", "b", "c", "a"]
    assert hops[0].thread != hops[3].thread
    assert [box.bound(name) for name in "abc"] == [2, 1, 1]


@pytest.mark.parametrize("cycle", ["ab", "abc"])
def test_a_cycle_ends_at_the_depth_bound(kept: Keeps, cycle: str) -> None:
    box = kept(relays(cycle))
    attached = box.attach()
    assert len(follow(attached, b"n" * (MAX_DEPTH - 1))) == MAX_DEPTH
    with pytest.raises((TooDeep, HandlerFault), match=r"(?i)deep"):
        follow(attached, b"n" * MAX_DEPTH)
    with pytest.raises((TooDeep, HandlerFault), match=r"(?i)deep"):
        follow(attached, b"n" * 100)
    assert len(follow(attached, b"n" * (MAX_DEPTH - 1))) == MAX_DEPTH


@pytest.mark.parametrize("priority", [0, 1, 2])
def test_depth_and_priority_travel_along(kept: Keeps, priority: int) -> None:
    hops = follow(kept(relays("abc")).attach(), b"nnnn", priority)
    assert [hop.depth for hop in hops] == [0, 1, 2, 3, 4]
    assert {hop.priority for hop in hops} == {priority}


def test_a_priority_lasts_for_its_own_call_only(kept: Keeps) -> None:
    attached = kept(relays("ab")).attach()
    seen = [{hop.priority for hop in follow(attached, b"nnn", priority)} for priority in (2, 1, 0, 1)]
    assert seen == [{2}, {1}, {0}, {1}]


def generations(box: Box) -> dict[str, int]:
    return {name: box.generation(name) for name in "ab"}


def test_a_callee_that_dies_while_it_is_called_back_fails_that_call_only(system: Boots) -> None:
    box = system(text=relays("ab"))
    before = generations(box)
    ends: list[str] = []

    def body() -> None:
        with pytest.raises(CallError) as caught:
            follow(attached, b"nns")
        ends.append(str(caught.value))

    attached = box.attach()
    caller = threading.Thread(target=body)
    caller.start()
    box.logged("sleeping")
    box.kill("b")
    caller.join()
    assert "died" in ends[0]
    box.recovered("b", before["b"])
    assert generations(box)["a"] == before["a"]
    assert len(follow(attached, b"nnn")) == 4


def test_a_service_that_dies_in_a_call_back_is_reported_and_the_chain_works_again(system: Boots) -> None:
    box = system(text=relays("ab"))
    attached = box.attach()
    before = generations(box)
    with pytest.raises(CallError, match="died"):
        follow(attached, b"nnk")
    box.recovered("a", before["a"])
    assert generations(box)["b"] == before["b"]
    assert [hop.name for hop in follow(attached, b"nn")] == ["a", "b", "a"]
