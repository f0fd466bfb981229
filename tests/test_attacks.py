"""Hostile clients against a live system: whatever they do, the service lives, and the others' calls are right.

Each attacker is a process of its own under its own user id, with all that a client can get: the frames of its
services, read-write, its buffers, a read-only token, its channel. Beside it a second client makes verified calls.
Afterwards the services are of the same generation, and every stack that the attacker held comes back.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import threading
import time

import pytest

from corekernel._dispatcher import ffi, lib
from corekernel.errors import HmkError, Status
from corekernel.shared import SLOT_BYTES
from shim.client import System
from tests.attacker import (
    FUTEX_REQUEUE,
    FUTEX_WAIT,
    FUTEX_WAKE,
    Body,
    Forger,
    beside,
    bound_links,
    futex,
    result_of,
    scribble,
    stranger,
    unharmed,
)
from tests.processes import Facts, Tell, stopped, until
from tests.systems import Boots, Box, Keeps

VICTIMS = ("echo", "cecho")
SLOTS = 12


@pytest.fixture
def box(kept: Keeps) -> Box:
    """A system to attack."""
    return kept()


# ---- scribbling


def scribbler(seed: int) -> Body:
    """Binds slots and buffers, calls on some of them, and writes over all of it."""

    def body(system: System, tell: Tell) -> None:
        frames = []
        for service in VICTIMS:
            session, links = bound_links(system, service, SLOTS)
            system.attachment.buffer(session, links[0], 64 << 10)
            frames.append(memoryview(session.frames.mapping.memory)[: SLOTS * SLOT_BYTES])
            bulk = links[0].bulk
            assert bulk is not None
            for forger in map(Forger, links):
                threading.Thread(target=keep_calling, args=(system, service), daemon=True).start()
                forger.request(operation=2)
        tell("scribbling")
        chance = random.Random(seed)
        while True:
            for memory in frames:
                scribble(memory, chance, 200)
            for forger in map(Forger, links):
                forger.wake()
            os.sched_yield()

    return body


def keep_calling(system: System, service: str) -> None:
    """The attacker's own calls run meanwhile; how they end is its own affair."""
    client = system.client(service, timeout=0.05)
    while True:
        with contextlib.suppress(HmkError):
            client.echo(b"mine" * 2000)


def under_scribbling(box: Box, seed: int, calls: int) -> None:
    """Let a scribbler loose until a verified client has made so many calls beside it."""
    with unharmed(box):
        attacker = stranger(box, scribbler(seed))
        attacker.hear()
        beside(box, calls)
        attacker.kill()


@pytest.mark.parametrize("seed", range(2))
def test_scribbling_over_everything_mapped_harms_only_the_scribbler(box: Box, seed: int) -> None:
    under_scribbling(box, seed, 1500)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_minute_of_scribbling_harms_only_the_scribblers(box: Box) -> None:
    give_up = time.monotonic() + 60.0
    seed = 100
    while time.monotonic() < give_up:
        under_scribbling(box, seed, 4000)
        seed += 1


# ---- forged frames

FORGED_FIELDS: list[tuple[str, Facts, Status]] = [
    ("sequence not moved on", {"skip": 0}, Status.BAD_FRAME),
    ("sequence moved back", {"skip": -1}, Status.BAD_FRAME),
    ("sequence moved too far", {"skip": 2}, Status.BAD_FRAME),
    ("nine registers", {"registers": 9}, Status.BAD_FRAME),
    ("255 registers", {"registers": 255}, Status.BAD_FRAME),
    ("payload beyond the frame", {"length": 3585}, Status.BAD_FRAME),
    ("payload of 4 GiB", {"length": 2**32 - 1}, Status.BAD_FRAME),
    ("a buffer that there is not", {"flags": 1, "length": 1}, Status.BAD_FRAME),
    ("depth at its bound", {"depth": 8}, Status.TOO_DEEP),
    ("depth 255", {"depth": 255}, Status.TOO_DEEP),
]
UNKNOWN_OPERATIONS = [63, 64, 255, 256, 65535]


def forging(fields: Facts) -> Body:
    """One forged request on each victim; the result is the statuses of the replies."""

    def body(system: System, tell: Tell) -> list[int | None]:
        answers = []
        for service in VICTIMS:
            forger = Forger(bound_links(system, service, 1)[1][0])
            forger.request(**fields)
            answers.append(forger.answer())
        return answers

    return body


def forged(box: Box) -> int:
    return sum(int(box.service(service)["totals"]["forged"]) for service in VICTIMS)


@pytest.mark.parametrize(("fields", "status"), [case[1:] for case in FORGED_FIELDS], ids=[c[0] for c in FORGED_FIELDS])
def test_a_malformed_or_replayed_frame_is_refused_and_counted(box: Box, fields: Facts, status: Status) -> None:
    before = forged(box)
    with unharmed(box):
        assert result_of(box, forging(fields)) == [status, status]
    assert forged(box) == before + len(VICTIMS)


@pytest.mark.parametrize("operation", UNKNOWN_OPERATIONS)
def test_an_operation_that_is_not_there_is_refused(box: Box, operation: int) -> None:
    with unharmed(box):
        assert result_of(box, forging({"operation": operation})) == [Status.BAD_OPERATION] * 2


def test_a_payload_shorter_or_longer_than_its_registers_say_is_refused(box: Box) -> None:
    with unharmed(box, ("echo",)):
        for length in (0, 1, 9, 11, 3584):
            fields = {"operation": 2, "registers": 1, "length": length}
            assert result_of(box, forging_argument(fields, 10)) == Status.BAD_FRAME


def forging_argument(fields: Facts, argument: int) -> Body:
    def body(system: System, tell: Tell) -> int | None:
        forger = Forger(bound_links(system, "echo", 1)[1][0])
        forger.leg.args[0] = argument
        forger.request(**fields)
        return forger.answer()

    return body


def phases_forged(system: System, tell: Tell) -> list[int]:
    """Every phase that is not the client's to write, while idle and while a handler runs; then a right call."""
    ends = []
    for service in VICTIMS:
        for phase in [p for p in range(16) if p != lib.HMK_PHASE_REQUEST]:
            for bits in (0, lib.HMK_SLEEP, lib.HMK_UNBOUND):
                _, links = bound_links(system, service, 2)
                idle, running = map(Forger, links)
                idle.request(phase=phase | bits)
                running.leg.args[0] = 3_000_000
                running.request(operation=4, registers=1)
                running.request(operation=4, phase=phase | bits, skip=0)
                idle.request()
                ends.append(idle.answer() is not None)
    return [ends.count(False)]


def test_phases_forged_while_idle_and_while_a_handler_runs_are_survived(box: Box) -> None:
    with unharmed(box):
        assert result_of(box, phases_forged) == [0]


def test_a_slot_with_a_forged_phase_can_still_be_taken_back_for_others(system: Boots) -> None:
    box = system(text="[service.echo]\npool = { limit = 8, initial = 2, reserve = 1, low = 0, high = 8 }\n")
    attacker = stranger(box, holds_slots_forged)
    attacker.hear()
    beside(box, 1, ("echo",))


def holds_slots_forged(system: System, tell: Tell) -> None:
    """Binds all the stacks there are, and has every slot look as if it were in use."""
    forgers = [Forger(link) for link in bound_links(system, "echo", 7)[1]]
    phases = (2, 3, 4, 5, 6, 7, 15)
    for forger, phase in zip(forgers, phases, strict=True):
        forger.request(phase=phase)
    tell("held")
    tell.pause()


# ---- futexes


def requeuer(system: System, tell: Tell) -> None:
    """Moves every carrier that sleeps on its slots to a page of its own, and storms all words it maps."""
    own = mmap.mmap(-1, mmap.PAGESIZE)
    aside = int(ffi.cast("uintptr_t", ffi.from_buffer(own)))
    forgers = [Forger(link) for service in VICTIMS for link in bound_links(system, service, SLOTS)[1]]
    for forger in forgers:
        threading.Thread(target=storm, args=(forger.address,), daemon=True).start()
    moved = 0
    while moved < len(forgers):
        moved += sum(max(0, futex(f.address, FUTEX_REQUEUE, 0, 1 << 20, aside)) for f in forgers)
    tell(moved)
    while True:
        for forger in forgers:
            futex(forger.address, FUTEX_REQUEUE, 0, 1 << 20, aside)


def storm(address: int) -> None:
    word = ffi.cast("uint32_t *", address)
    while True:
        futex(address, FUTEX_WAKE, 1 << 30)
        futex(address + 4, FUTEX_WAIT, word[1] + 1)


def test_carriers_requeued_to_a_private_page_come_back_when_their_client_dies(box: Box) -> None:
    with unharmed(box):
        attacker = stranger(box, requeuer)
        assert attacker.hear() >= 2 * SLOTS
        beside(box, 50)
        attacker.kill()


def test_an_attacker_stopped_in_the_middle_of_a_call_stalls_nobody(box: Box) -> None:
    with unharmed(box):
        attacker = stranger(box, stops_while_calling)
        attacker.hear()
        until(lambda: stopped(attacker.pid), "the attacker stops")
        beside(box, 50)
        attacker.kill()


def stops_while_calling(system: System, tell: Tell) -> None:
    forgers = [Forger(link) for service in VICTIMS for link in bound_links(system, service, SLOTS)[1]]
    for forger in forgers:
        forger.request(operation=2)
    tell("stopping")
    os.kill(os.getpid(), signal.SIGSTOP)
