"""Stack pools: made ahead, grown on demand, kept between their marks, taken back under pressure, never in the way."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from corekernel._dispatcher import lib
from corekernel.dispatcher import Link
from shim.client import System
from tests.callers import in_threads
from tests.processes import Facts, Tell, until
from tests.systems import Boots, Box

INITIAL, RESERVE, HIGH, LOW = 4, 2, 16, 2
PAGE = 4096
RECLAIM = 4  # operation of memmgr
FEW = "[service.{}]\npool = {{ limit = 8, initial = 2, low = 0, high = 8, reserve = {} }}\n"


def pool(box: Box, service: str = "echo") -> dict[str, int]:
    found: dict[str, int] = box.service(service)["pool"]
    return found


def stacks_at_most(box: Box, service: str, what: str, most: int) -> bool:
    return pool(box, service)[what] <= most


def together(count: int) -> threading.Barrier:
    return threading.Barrier(count, timeout=20.0)


def holders(count: int) -> Callable[[System, Tell], None]:
    """A client with so many threads, each of which has called `echo` and `cecho` once; it stays."""

    def body(system: System, tell: Tell) -> None:
        meeting = together(count + 1)

        def call(number: int) -> None:
            for service in ("echo", "cecho"):
                assert system.client(service).echo(b"x") == b"x"
            meeting.wait()
            threading.Event().wait()

        for number in range(count):
            threading.Thread(target=call, args=(number,), daemon=True).start()
        meeting.wait()
        tell("holding")
        tell.pause()

    return body


# ---- size


def test_a_pool_is_made_ahead_with_its_reserve(system: Boots) -> None:
    found = pool(system())
    expected = {"bound": 0, "free": INITIAL, "reserved": RESERVE, "created": INITIAL + RESERVE, "peak": 0}
    assert {name: found[name] for name in expected} == expected


def test_a_thread_s_first_call_binds_it_in_all_prebound_services(system: Boots) -> None:
    box = system()
    until(lambda: box.bound("memmgr") == 1, "the core has bound its own")
    box.attach().client("echo").null()
    assert {name: box.bound(name) for name in ("memmgr", "procmgr", "example")} == {
        "memmgr": 2,
        "procmgr": 1,
        "example": 0,
    }


def test_a_pool_grows_on_demand_and_refills_in_the_background(system: Boots) -> None:
    box = system()
    box.client(holders(30)).hear()
    assert pool(box)["bound"] == 30
    until(lambda: pool(box)["free"] >= LOW, "the pool refills to its low mark")
    found = pool(box)
    assert found["created"] == found["bound"] + found["free"] + found["reserved"]
    assert found["reserved"] == RESERVE, "the reserve is not for clients"


def test_an_idle_pool_shrinks_to_its_high_mark_and_gives_memory_back(system: Boots) -> None:
    box = system()
    child = box.client(holders(60))
    child.hear()
    grown = stacks(box)["resident"]
    child.kill()
    for service in ("echo", "cecho"):
        until(partial(stacks_at_most, box, service, "bound", 0), "stacks come back")
        until(partial(stacks_at_most, box, service, "free", HIGH), "the pool shrinks")
        found = pool(box, service)
        ended = found["created"] - found["free"] - found["reserved"]
        assert found["free"] == HIGH and ended == 60 + LOW - HIGH
    assert stacks(box)["resident"] < grown - 2 * 30 * PAGE


def stacks(box: Box) -> Facts:
    found: Facts = box.ask("status")["objects"]["stacks"]
    return found


def test_every_carrier_of_the_pool_is_a_thread_and_none_is_more(system: Boots) -> None:
    box = system()
    pid = box.pid("echo")
    others = len(os.listdir(f"/proc/{pid}/task")) - INITIAL - RESERVE
    child = box.client(holders(20))
    child.hear()
    child.kill()
    until(lambda: pool(box)["bound"] == 0, "stacks come back")
    found = pool(box)
    assert len(os.listdir(f"/proc/{pid}/task")) == found["free"] + found["reserved"] + others


def test_the_stack_of_a_thread_that_ends_serves_the_next_one(system: Boots) -> None:
    box = system()
    attached = box.attach()
    for _ in range(50):
        in_threads(1, lambda number: attached.client("echo").null())
    assert pool(box)["peak"] <= 3


# ---- machine stacks


def test_each_stack_lies_in_the_service_s_object_above_a_guard_page(system: Boots) -> None:
    box = system()
    for service, kib in (("echo", 4096), ("cecho", 64)):
        regions = re.findall(
            rf"^(\w+)-(\w+) (\S+) .*hmk:{service}\.stacks", Path(f"/proc/{box.pid(service)}/maps").read_text(), re.M
        )
        guards = [int(low, 16) for low, high, rights in regions if rights == "---s"]
        assert len(guards) == INITIAL + RESERVE
        assert all(int(high, 16) - int(low, 16) == PAGE for low, high, rights in regions if rights == "---s")
        start = min(int(low, 16) for low, _, _ in regions)
        assert [(guard - start) % (kib << 10) for guard in guards] == [0] * len(guards)


def test_carriers_run_on_those_stacks(system: Boots) -> None:
    box = system()
    for service in ("echo", "cecho"):
        maps = Path(f"/proc/{box.pid(service)}/maps").read_text()
        regions = re.findall(rf"^(\w+)-(\w+) rw-s .*hmk:{service}\.stacks", maps, re.M)
        pointers = [stack_pointer(path) for path in Path(f"/proc/{box.pid(service)}/task").iterdir()]
        within = [p for p in pointers if any(int(low, 16) <= p < int(high, 16) for low, high in regions)]
        assert len(within) == INITIAL + RESERVE


def stack_pointer(task: Path) -> int:
    """Of a thread that sleeps in a host call."""
    return int(until(lambda: task.joinpath("syscall").read_text().split()[7:8], "the thread sleeps")[0], 16)


# ---- pressure


def test_the_least_recently_used_stack_is_taken_first(system: Boots) -> None:
    box = system(text=FEW.format("echo", 1))
    attached = box.attach()
    held: dict[int, Link] = {}
    go = [threading.Event() for _ in range(8)]
    done = threading.Event()

    def body(number: int) -> None:
        go[number].wait(20.0)
        attached.client("echo").null()
        (held[number],) = attached.attachment.held("echo").links
        go[(number + 1) % 8].set()
        done.wait(20.0)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    go[0].set()
    until(lambda: len(held) == 8, "the eighth of seven stacks is bound")
    lost = [number for number, link in held.items() if link.c.slot.leg[0].state & lib.HMK_UNBOUND]
    done.set()
    for thread in threads:
        thread.join()
    assert lost == [0]
    assert pool(box)["reserved"] == 1


@pytest.mark.parametrize("size", [200, 8000])  # inline, and by a buffer that goes with the stack
@pytest.mark.parametrize("service", ["echo", "cecho"])
def test_many_threads_share_few_stacks_and_every_call_completes(system: Boots, service: str, size: int) -> None:
    box = system(text=FEW.format(service, 2))
    attached = box.attach()
    meeting = together(32)

    def body(number: int) -> None:
        for turn in range(6):
            meeting.wait()
            data = bytes([number, turn]) * (size // 2)
            assert attached.client(service).echo(data) == data

    in_threads(32, body)
    found = pool(box, service)
    assert found["peak"] <= 8 and found["reclaimed"] > 0
    assert box.status()["reclaims"] > 0


def test_callers_wait_for_long_handlers_when_every_stack_is_busy(system: Boots) -> None:
    box = system(text=FEW.format("faulty", 1) + 'module = "tests.faulty"\ninterface = "bench_echo"\n')
    attached = box.attach()
    ends: list[int] = []

    def body(number: int) -> None:
        attached.client("faulty").work(200_000_000)
        ends.append(number)

    in_threads(24, body)
    assert sorted(ends) == list(range(24))
    assert pool(box, "faulty")["peak"] <= 8


def test_a_service_whose_callee_is_full_of_idle_stacks_gets_one(system: Boots) -> None:
    box = system("bench", FEW.format("chain_b", 1))
    attached = box.attach()
    meeting = together(8)

    def body(number: int) -> None:
        attached.client("chain_b").null()
        meeting.wait()
        attached.client("chain_a").chain(2)
        meeting.wait()

    in_threads(8, body)
    assert pool(box, "chain_b")["peak"] <= 8


SCARCE = "[system]\nstack_memory_mib = 8\n"  # about 170 stacks; the services have made 70 of them beforehand


def call_three(attached: System, meeting: threading.Barrier) -> Callable[[int], None]:
    def body(number: int) -> None:
        meeting.wait()
        for service in ("echo", "cecho", "chain_c"):
            assert attached.client(service).echo(b"x" * number) == b"x" * number

    return body


def test_memory_for_stacks_is_shared_by_all_services_as_the_memory_manager_says(system: Boots) -> None:
    box = system("bench", SCARCE)
    box.ask("observe", operations=True)
    in_threads(120, call_three(box.attach(), together(120)))
    live = [sum(s["pool"][k] for k in ("bound", "free", "reserved")) for s in services(box)]
    assert sum(live) * 32 < 8 << 10
    assert box.status()["reclaims"] > 0
    assert box.ask("statistics", service="memmgr")["operations"][str(RECLAIM)][0] > 0


def test_reclaim_goes_on_when_the_memory_manager_dies(system: Boots) -> None:
    box = system("bench", SCARCE)
    meeting = together(121)
    attached = box.attach()

    def deaths() -> None:
        meeting.wait()
        for _ in range(3):
            box.recovered("memmgr", box.kill("memmgr"))

    killer = threading.Thread(target=deaths)
    killer.start()
    in_threads(120, call_three(attached, meeting))
    killer.join()
    assert box.generation("memmgr") == 4
    assert box.status()["reclaims"] > 0


def services(box: Box) -> list[Facts]:
    return [s for p in box.status()["processes"] for s in p["services"]]


def test_two_hundred_threads_call_three_services(system: Boots) -> None:
    box = system("bench")
    attached = box.attach()
    meeting = together(200)

    def body(number: int) -> None:
        meeting.wait()
        data = number.to_bytes(4, "little") * 20
        for service in ("echo", "cecho", "chain_c"):
            assert attached.client(service).echo(data) == data
        meeting.wait()

    in_threads(200, body)
    assert pool(box)["peak"] == 200 and pool(box, "cecho")["peak"] == 200
