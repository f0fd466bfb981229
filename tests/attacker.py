"""Clients that mean harm, and one that does not: real processes under user ids of their own.

A `stranger` is a fork of the test that drops everything it inherited, takes a user id of the range that the core gives
to programs (so no service and no other client shares it), attaches like any client and runs one function, which talks
with the test as a `Child` does. `Forger` and `scribble` write what they like into the frames of a session: to their
holder those are plain memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import shim
from corekernel._dispatcher import ffi, lib
from corekernel.dispatcher import Link
from corekernel.session import Session
from shim.client import System
from tests.processes import Child, Tell, until
from tests.systems import CALL_SECONDS, Box

FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE = 0, 1, 3
_FUTEX = 202
_uids = itertools.count(62_500)
_libc = ctypes.CDLL(None, use_errno=True)

Body = Callable[[System, Tell], Any]


def stranger(box: Box, body: Body, timeout: float | None = CALL_SECONDS) -> Child:
    """A client process under a user id of its own that runs `body(system, tell)`; its calls have a deadline."""
    uid = next(_uids)

    def live(tell: Tell) -> Any:
        drop_everything(uid, tell)
        return body(shim.attach(box.name, timeout), tell)

    return box.child(live)


def drop_everything(uid: int, tell: Tell) -> None:
    """Keep no descriptor, no group and no privilege of the test."""
    kept = sorted([0, 1, 2, tell._writing, tell._reading])
    for low, high in itertools.pairwise([*kept, 1 << 16]):
        os.closerange(low + 1, high)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def let_go(tell: Tell) -> bool:
    """Whether the test has called `Child.go`."""
    return bool(select.select([tell._reading], [], [], 0)[0])


# ---- well-behaved


def echo_verified(services: tuple[str, ...]) -> Body:
    """Calls `echo` with payloads of all sizes and checks each reply, until let go; the result is how many."""

    def body(system: System, tell: Tell) -> int:
        chance = random.Random(7)
        clients = [system.client(service) for service in services]
        calls = 0
        while not let_go(tell):
            for client in clients:
                data = chance.randbytes(chance.choice((0, 1, 100, 3584, 3585, 60_000)))
                assert client.echo(data) == data
                calls += 1
            if calls == 10 * len(services):
                tell("well")
        return calls

    return body


@contextlib.contextmanager
def unharmed(box: Box, services: tuple[str, ...] = ("echo", "cecho")) -> Iterator[None]:
    """What the block does costs these services no life, no stack and no memory, and the others no right answer."""
    generations = {name: box.generation(name) for name in services}
    others = {name: threads_besides_carriers(box, name) for name in services}
    good = stranger(box, echo_verified(services))
    good.hear()
    bound = {name: box.bound(name) for name in services}
    yield
    for name in services:
        until(lambda name=name: box.bound(name) <= bound[name], f"{name} gets its stacks back")  # type: ignore[misc]
    good.go()
    assert good.result() > 0
    for name in services:
        assert box.generation(name) == generations[name]
        assert threads_besides_carriers(box, name) == others[name]
        until(lambda name=name: not frames_of_the_dead(box, name), f"{name} unmaps dead clients' frames")  # type: ignore[misc]


def threads_besides_carriers(box: Box, service: str) -> int:
    """Threads of a service that its pool does not know of."""

    def count() -> int:
        shown = box.service(service)
        polled = shown["poll_cpu"] is not None  # its carriers have no threads
        carriers = 0 if polled else sum(int(shown["pool"][state]) for state in ("bound", "free", "reserved"))
        return len(os.listdir(f"/proc/{box.pid(service)}/task")) - carriers

    return until(lambda: (before := count()) == count() and before, "the pool comes to rest")


def frames_of_the_dead(box: Box, service: str) -> set[int]:
    """Clients that are gone, and whose frames a service still maps."""
    maps = Path(f"/proc/{box.pid(service)}/maps").read_text().splitlines()
    mapped = {int(line.split(":frames.")[1].split(".")[0]) for line in maps if ":frames." in line}
    living = {client["number"] for client in box.ask("status")["clients"]}
    return {number for number in mapped - living if number >= 100}


def beside(box: Box, calls: int, services: tuple[str, ...] = ("echo", "cecho")) -> None:
    """So many verified calls to each service, from this process."""
    with box.attach() as system:
        clients = [system.client(service) for service in services]
        for number in range(calls):
            data = number.to_bytes(8, "little") * (1 + number % 600)
            for client in clients:
                assert client.echo(data) == data


def result_of(box: Box, body: Body) -> Any:
    """Run a stranger to its end."""
    return stranger(box, body).result()


# ---- hostile


def futex(address: int, operation: int, value: int, timeout: int = 0, other: int = 0) -> int:
    """A raw futex call on shared memory; its result (-1 on error)."""
    return int(
        _libc.syscall(
            _FUTEX,
            ctypes.c_void_p(address),
            operation,
            ctypes.c_int(value),
            ctypes.c_long(timeout),
            ctypes.c_void_p(other),
            0,
        )
    )


def bound_links(system: System, service: str, count: int) -> tuple[Session, list[Link]]:
    """`count` slots of the calling process, bound in one service."""
    attachment = system.attachment
    session = attachment.session(service)
    links = [session.take(attachment.policy)[0] for _ in range(count)]
    attachment.bind(session, links)
    return session, links


class Forger:
    """Writes frames by hand, past the client half of the dispatcher."""

    def __init__(self, link: Link) -> None:
        self.leg = link.c.slot.leg[0]
        self.address = int(ffi.cast("uintptr_t", ffi.addressof(self.leg, "state")))

    @property
    def phase(self) -> int:
        """The phase in the state word."""
        return int(self.leg.state & lib.HMK_PHASE_MASK)

    def request(self, operation: int = 1, skip: int = 1, phase: int | None = None, **fields: int) -> None:
        """Fill the frame and move the state word on by `skip` sequence numbers, whatever it holds."""
        leg = self.leg
        leg.operation, leg.registers, leg.flags, leg.length, leg.depth = operation, 0, 0, 0, 0
        for name, value in fields.items():
            setattr(leg, name, value)
        sequence = ((leg.state >> 8) + skip) & 0xFFFFFF
        leg.state = sequence << 8 | (lib.HMK_PHASE_REQUEST if phase is None else phase)
        self.wake()

    def wake(self) -> int:
        """Wake whoever sleeps on the state word."""
        return futex(self.address, FUTEX_WAKE, 1 << 30)

    def answer(self, patience: float = 5.0) -> int | None:
        """Status of the reply; None when none has come in time."""
        give_up = time.monotonic() + patience
        while self.phase != lib.HMK_PHASE_REPLY:
            if time.monotonic() > give_up:
                return None
            time.sleep(0.0005)
        return int(self.leg.status)


HARMLESS = (0, 1, 2, 2, 2, 6, 11, 12, 63, 64, 65, 255, 65535)
_OPERATION_WORD = 12


def scribble(memory: memoryview, chance: random.Random, writes: int) -> None:
    """Random aligned words at random places of frames; operations that do harm by definition are left out.

    `memory` is any number of slots. What `work`, `crash` or `hog` do when they are asked to is no attack.
    """
    pages = len(memory) // 4096
    for _ in range(writes):
        page = chance.randrange(pages) * 4096
        at = chance.randrange(0, 256, 4) if chance.random() < 0.8 else chance.randrange(0, 4096, 4)
        word = chance.getrandbits(32)
        if at == _OPERATION_WORD:
            word = word & 0xFFFF0000 | chance.choice(HARMLESS)
        if at == 0 and chance.random() < 0.5:
            state = int.from_bytes(memory[page : page + 4], "little")
            word = ((state >> 8) + 1 & 0xFFFFFF) << 8 | chance.choice((1, 1, 1, 5, 3))
        memory[page + at : page + at + 4] = word.to_bytes(4, "little")
