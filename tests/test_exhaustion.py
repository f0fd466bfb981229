"""Clients that take all they can get: the core and the services go on answering others, and get everything back."""

from __future__ import annotations

import json
import os
import time

import pytest

from corekernel import boot
from corekernel.channel import Channel, ChannelError
from corekernel.dispatcher import ABI_VERSION
from corekernel.errors import CallError, TooBig
from shim.client import System
from tests.attacker import Body, bound_links, result_of, stranger, unharmed
from tests.processes import Facts, Tell, until
from tests.systems import Box, Keeps

SLOTS = 4000  # a little less than a pool has stacks


@pytest.fixture
def box(kept: Keeps) -> Box:
    """A system to attack."""
    return kept()


# ---- exhausting


def binds_everything(system: System, tell: Tell) -> None:
    """Opens every service, binds every slot of one, and takes buffers to the limit."""
    for service in system.services:
        system.attachment.session(service)
    _, links = bound_links(system, "cecho", SLOTS)
    session = system.attachment.session("cecho")
    taken = 0
    try:
        for link in links:
            system.attachment.buffer(session, link, 16 << 20)
            taken += 1
    except TooBig:
        pass
    tell({"slots": len(links), "buffers": taken})
    tell.pause()


def answers_in_time(box: Box, seconds: float = 10.0) -> None:
    """The core and its services answer somebody else, each call by a deadline."""
    give_up = time.monotonic() + seconds
    assert stranger(box, one_of_everything, 5.0).result(seconds) == "all right"
    assert box.ask("status")["name"] == box.name
    assert time.monotonic() < give_up


def buffers(box: Box) -> Facts:
    """What the core holds in buffers."""
    found: Facts = box.ask("status")["objects"].get("buffer", {"count": 0, "bytes": 0})
    return found


def one_of_everything(system: System, tell: Tell) -> str:
    echo = system.client("echo")
    assert echo.echo(b"small") == b"small" and echo.echo(b"large" * 9000) == b"large" * 9000
    assert system.pid in json.loads(system.procmgr.list())
    assert system.pid in {record.pid for record in system.processes()}
    return "all right"


def test_a_client_that_takes_all_it_can_get_keeps_nobody_waiting(box: Box) -> None:
    with unharmed(box, ("cecho",)):
        before = buffers(box)["bytes"]
        attacker = stranger(box, binds_everything, 60.0)
        assert attacker.hear(60.0) == {"slots": SLOTS, "buffers": 16}
        answers_in_time(box)
        attacker.kill()
        until(lambda: buffers(box)["bytes"] == before, "the buffers are freed")


def asks_for_many_small_buffers(system: System, tell: Tell) -> int:
    session, links = bound_links(system, "echo", 64)
    taken = 0
    request = {"do": "buffer", "service": "echo", "generation": session.generation, "size": 64 << 10}
    try:
        for number in range(70_000):
            _, fds = system.attachment.ask({**request, "slot": links[number % 64].index})
            os.close(fds[0])
            taken += 1
    except CallError:
        pass
    tell(taken)
    tell.pause()
    return taken


def test_small_buffers_do_not_use_up_the_descriptors_of_the_core(box: Box) -> None:
    with unharmed(box, ("echo",)):
        attacker = stranger(box, asks_for_many_small_buffers)
        assert attacker.hear(50.0) >= 64
        answers_in_time(box)
        attacker.kill()


def floods(system: System, tell: Tell) -> str:
    """Thousands of requests at once, and never reads an answer."""
    channel = system.attachment.channel
    tell("flooding")
    try:
        for serial in range(20_000):
            channel.send({"do": "open", "service": "echo", "after": -1, "serial": serial})
    except ChannelError:
        return "cut off"
    return "let go on"


def test_a_client_that_never_reads_its_answers_is_cut_off(box: Box) -> None:
    with unharmed(box, ("echo",)):
        attacker = stranger(box, floods)
        attacker.hear()
        answers_in_time(box)
        assert attacker.result() == "cut off"


def opens_again_and_again(system: System, tell: Tell) -> int:
    for _ in range(2000):
        _, fds = system.attachment.ask({"do": "open", "service": "echo", "after": -1})
        os.close(fds[0])
    tell("opened")
    tell.pause()
    return 2000


def test_repeated_grants_of_one_object_are_recorded_once(box: Box) -> None:
    attacker = stranger(box, opens_again_and_again)
    attacker.hear()
    frames = box.ask("status")["objects"]["frames"]
    assert frames["grants"] <= 2 * frames["count"]


def asks_for_generations_to_come(system: System, tell: Tell) -> str:
    """The core remembers nobody who asks too early: it says so at once."""
    for _ in range(2000):
        reply, fds = system.attachment.ask({"do": "open", "service": "echo", "after": 1 << 40})
        assert reply["again"] and not fds
    return "all answered"


def test_a_request_for_a_generation_to_come_is_answered_at_once(box: Box) -> None:
    assert result_of(box, asks_for_generations_to_come) == "all answered"
    answers_in_time(box)


def connects(name: str, count: int) -> Body:
    """Attaches as often as it is let, under names of its choice."""

    def body(system: System, tell: Tell) -> int:
        channels: list[Channel] = []
        for _ in range(count):
            try:
                channel = boot.connect(name)
                channel.send({"do": "attach", "abi": ABI_VERSION, "name": "\U0001f600" * 32})
                reply, _ = channel.recv(10.0)
            except (ChannelError, boot.BootError):
                break
            if "error" in reply:
                break
            channels.append(channel)
        tell(len(channels))
        tell.pause()
        return len(channels)

    return body


def test_one_user_cannot_take_all_the_places_for_clients(box: Box) -> None:
    before = box.ask("status")["clients_total"]
    attacker = stranger(box, connects(box.name, 1200))
    assert 1 < attacker.hear(50.0) < 1000
    answers_in_time(box)
    attacker.kill()
    until(lambda: box.ask("status")["clients_total"] == before, "the core forgets them all")


def test_status_stays_within_a_message_whatever_clients_call_themselves(box: Box) -> None:
    for _ in range(4):
        stranger(box, connects(box.name, 60)).hear(50.0)
    assert box.ask("status")["clients_total"] > 100
