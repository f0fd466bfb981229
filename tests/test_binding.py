"""Binding: a thread's first call binds what is pre-bound at one go, and what is bound is on its client's account."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

import shim
from corekernel.channel import Message, close_all
from corekernel.dispatcher import ABI_VERSION
from tests.callers import caller, is_reached
from tests.processes import until
from tests.systems import Boots, Box, raw_connection

KIB = 1 << 10
PREBIND = '[system]\nprebind = ["memmgr", "procmgr", "cecho"]\n'
SEVEN_STACKS = "[service.echo]\npool = { limit = 8, initial = 2, low = 0, high = 8, reserve = 1 }\n"


def on_a_new_thread(body: Any, *arguments: Any) -> None:
    """Run `body` on a thread of its own; what it raises fails the test."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            body(*arguments)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    assert failures == []


# ---- pre-bound services


def test_a_thread_s_first_call_binds_all_prebound_services_with_one_request(
    system: Boots, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = system(text=PREBIND)
    mine = box.attach()
    mine.client("cecho").null()
    asked: list[str] = []
    ask = mine.attachment.ask

    def counted(request: Message, fds: Sequence[int] = ()) -> tuple[Message, list[int]]:
        asked.append(request["do"])
        return ask(request, fds)

    monkeypatch.setattr(mine.attachment, "ask", counted)

    def reach_all() -> None:
        for service in ("cecho", "memmgr", "procmgr"):
            is_reached(mine, service)
        assert asked == ["bind"]

    on_a_new_thread(reach_all)


@pytest.mark.parametrize(
    ("restart", "state"),
    [("max_per_minute = 0", "failed"), ("backoff_ms = 60000, backoff_max_ms = 60000", "backoff")],
    ids=["for good", "until its restart"],
)
def test_a_prebound_service_that_is_down_keeps_no_thread_from_the_others(
    system: Boots, restart: str, state: str
) -> None:
    box = system(text=f"{PREBIND}[service.procmgr]\nrestart = {{ {restart} }}\n")
    box.kill("procmgr")
    until(lambda: box.process("procmgr")["state"] == state, "its death is noticed")
    mine = box.attach()
    is_reached(mine, "cecho")
    assert shown(box, mine) == 2, "in cecho and memmgr"
    assert box.process("procmgr")["state"] == state, "the call has waited for the restart"


def test_a_prebound_service_that_has_died_since_is_bound_by_its_first_call(system: Boots) -> None:
    box = system(text=PREBIND)
    mine = box.attach()
    is_reached(mine, "cecho")
    box.recovered("procmgr", box.kill("procmgr"))
    before = shown(box, mine)

    def reach_all() -> None:
        is_reached(mine, "cecho")
        assert shown(box, mine) == before + 2, "in cecho and memmgr"
        is_reached(mine, "procmgr")
        assert shown(box, mine) == before + 3

    on_a_new_thread(reach_all)


def test_of_several_services_one_that_cannot_be_bound_fails_alone(bench: Box) -> None:
    with raw_connection(bench.name) as channel:

        def ask(request: Message) -> Message:
            channel.send({**request, "serial": 1})
            reply, fds = channel.recv(10)
            close_all(fds)
            return reply

        ask({"do": "attach", "abi": ABI_VERSION})
        for service in ("echo", "cecho", "chain_c"):
            ask({"do": "open", "service": service})
        right, stale = {"generation": 1, "slots": [0, 1]}, {"generation": 9, "slots": [0]}
        wanted = {"echo": right, "cecho": stale, "nobody": right, "chain_a": right, "chain_c": right}
        results = ask({"do": "bind", "services": wanted})["services"]
        ends = {service: result.get("error", "bound") for service, result in results.items()}
        assert ends == {"echo": "bound", "cecho": "died", "nobody": "no-service", "chain_a": "died", "chain_c": "bound"}
        assert [bench.bound(service) for service in ("echo", "cecho", "chain_c")] == [2, 0, 2]


# ---- the account


def shown(box: Box, client: shim.System) -> int:
    """Stacks of a client as the status shows them."""
    return int(next(c["bound"] for c in box.status()["clients"] if c["number"] == client.pid))


def test_a_stack_taken_back_is_off_its_client_s_account(system: Boots) -> None:
    box = system(text=SEVEN_STACKS)
    mine = box.attach()
    mine.client("echo").null()
    assert shown(box, mine) == 3, "in echo, memmgr and procmgr"
    used = mine.memmgr.usage(mine.pid).stacks
    others = [caller(box, "echo", "null") for _ in range(7)]
    assert box.ask("status")["reclaims"] > 0
    assert shown(box, mine) == 2
    assert mine.memmgr.usage(mine.pid).stacks == used - 48 * KIB
    assert sum(c["bound"] for c in box.status()["clients"]) == 2 + 7 * 3
    for other in others:
        other.go()
        assert other.result() == ["reply", None]


def test_a_death_wakes_a_caller_that_waits_though_its_stack_was_taken_back(system: Boots) -> None:
    box = system(text=SEVEN_STACKS)
    waiter = caller(box, "echo", "block")
    waiter.go()
    waiter.waits()
    others = [caller(box, "echo", "null") for _ in range(7)]
    (bound,) = [c["bound"] for c in box.status()["clients"] if c["pid"] == waiter.pid]
    assert bound == 2, "its stack in echo is taken back"
    for other in others:
        other.kill()
    box.recovered("echo", box.kill("echo"))
    until(lambda: box.service("echo")["totals"]["calls"] >= 1, "it has called again")
    box.attach().client("echo").release()
    assert waiter.result() == ["reply", None]
