"""Real client processes for tests, hostile and well-behaved, and the systems they meet in.

A `ClientProcess` is a fork of the test that drops everything it inherited, takes a user id of the range that the core
gives to programs (so no service and no other client shares it), attaches like any client and runs one function. It
*says* JSON objects over a pipe, the last one being its result; the test tells it to stop by closing the other pipe.
Leaving the `with` block kills it.

The `Frames` of a session are plain memory to their holder: `Forger` writes whatever it likes into them.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import random
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import shim
from corekernel import boot, composition
from corekernel._dispatcher import ffi, lib
from corekernel.attachment import Session
from corekernel.dispatcher import Link
from shim.client import System

T = TypeVar("T")
Facts = dict[str, Any]

PATIENCE = 20.0
FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE = 0, 1, 3
_FUTEX = 202
_uids = itertools.count(62_500)
_systems = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


# ---- systems


@contextlib.contextmanager
def booted(directory: Path, text: str = "", base: str = "bench") -> Iterator[System]:
    """A system of composition `base` with `text` laid over it, attached to; it ends with the block."""
    path = directory / "composition.toml"
    path.write_text(f'inherit = "{base}"\n{text}')
    running = boot.launch(f"test-{os.getpid()}-attack-{next(_systems)}", composition.load(path))
    try:
        with shim.attach(running.name) as system:
            yield system
    finally:
        running.kill()
        os.close(running.pidfd)


def process_of(system: System, service: str) -> Facts:
    """What `status` says of the process that a service lives in."""
    processes: list[Facts] = system.ask("status")["processes"]
    return next(p for p in processes if any(s["name"] == service for s in p["services"]))


def facts_of(system: System, service: str) -> Facts:
    """What `status` says of a service: generation, pool, totals."""
    services: list[Facts] = process_of(system, service)["services"]
    return next(s for s in services if s["name"] == service)


def pool_of(system: System, service: str) -> dict[str, int]:
    """The pool of a service: bound, free, reserved, created, reclaimed, peak, limit."""
    pool: dict[str, int] = facts_of(system, service)["pool"]
    return pool


def eventually(check: Callable[[], T], patience: float = PATIENCE) -> T:
    """Return what `check` returns once that is true; fail when it has not become so in time."""
    give_up = time.monotonic() + patience
    while not (value := check()):
        assert time.monotonic() < give_up, f"never came true, last {value!r}"
        time.sleep(0.005)
    return value


# ---- client processes


class Talk:
    """A client process's side of the conversation with its test."""

    def __init__(self, speaking: int, orders: int) -> None:
        self._speaking = speaking
        self._orders = orders

    def say(self, **facts: Any) -> None:
        """Tell the test something."""
        os.write(self._speaking, json.dumps(facts).encode() + b"\n")

    def stopped(self) -> bool:
        """Whether the test wants the process to come to its end."""
        return bool(select.select([self._orders], [], [], 0)[0])

    def wait(self) -> None:
        """Do nothing until the test says stop."""
        select.select([self._orders], [], [])


Body = Callable[[System, Talk], Any]


class ClientProcess:
    """A client of a system, as a process of its own."""

    def __init__(self, system: System | str, body: Body) -> None:
        name = system if isinstance(system, str) else _name_of(system)
        hearing, speaking = os.pipe()
        orders, self._stop = os.pipe()
        self.uid = next(_uids)
        self.pid = os.fork()
        if self.pid == 0:
            _live(name, self.uid, body, speaking, orders)
        os.close(speaking)
        os.close(orders)
        self._hearing = open(hearing, "rb", buffering=0)
        self._alive = True

    def __enter__(self) -> ClientProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._hearing.close()
        self.stop()

    def hear(self, patience: float = PATIENCE) -> Facts:
        """The next thing the process says; fails when it says nothing in time, or has failed itself."""
        line = bytearray()
        give_up = time.monotonic() + patience
        while not line.endswith(b"\n"):
            left = max(0.0, give_up - time.monotonic())
            assert select.select([self._hearing], [], [], left)[0], "the client process says nothing"
            byte = self._hearing.read(1)
            assert byte, "the client process has died"
            line += byte
        facts: Facts = json.loads(line)
        assert "error" not in facts, facts["error"]
        return facts

    def stop(self) -> None:
        """Tell it to come to its end."""
        if self._stop >= 0:
            os.close(self._stop)
            self._stop = -1

    def finish(self, patience: float = PATIENCE) -> Any:
        """Tell it to stop; its result."""
        self.stop()
        while "result" not in (facts := self.hear(patience)):
            pass
        return facts["result"]

    def kill(self) -> None:
        """End it, now, whatever it is doing."""
        if self._alive:
            self._alive = False
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _name_of(system: System) -> str:
    return str(system.ask("status")["name"])


def _live(name: str, uid: int, body: Body, speaking: int, orders: int) -> None:
    """The whole life of a client process."""
    try:
        kept = sorted([0, 1, 2, speaking, orders])
        for low, high in itertools.pairwise([*kept, 1 << 16]):
            os.closerange(low + 1, high)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        talk = Talk(speaking, orders)
        talk.say(result=body(shim.attach(name), talk))
    except BaseException:
        os.write(speaking, json.dumps({"error": traceback.format_exc()}).encode() + b"\n")
    os._exit(0)


# ---- well-behaved


def echo_verified(services: tuple[str, ...]) -> Body:
    """A client that calls `echo` with payloads of all sizes and checks each reply; its result is how many."""

    def body(system: System, talk: Talk) -> int:
        chance = random.Random(7)
        clients = [system.client(service) for service in services]
        calls = 0
        talk.say(ready=True)
        while not talk.stopped():
            for client in clients:
                data = chance.randbytes(chance.choice((0, 1, 100, 3584, 3585, 60_000)))
                assert client.echo(data) == data
                calls += 1
        return calls

    return body


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
