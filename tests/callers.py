"""Clients that make one call, and calls that only a working service answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import shim
from corekernel.errors import ServiceDied
from tests.processes import Child, Tell
from tests.systems import Box

SERVICES = ("memmgr", "procmgr", "example", "echo", "cecho", "chain_a", "chain_b", "chain_c")
MEGABYTE = b"m" * (1 << 20)


def is_reached(system: shim.System, service: str) -> None:
    """One call that only a working service answers."""
    client = system.client(service)
    match system.services[service]:
        case "memmgr":
            assert client.limit_get(system.pid) > 0
        case "procmgr":
            assert client.getpid() == system.pid
        case "example":
            assert len(client.digest(b"x")) == 32
        case "bench_echo":
            assert client.echo(b"x" * 100) == b"x" * 100
        case "core":
            client.sleep_until(0)


def in_threads(count: int, body: Callable[[int], object]) -> None:
    """Run `body(number)` on so many threads at once; what one of them raises fails the test."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            body(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def caller(box: Box, service: str, call: str, *arguments: Any) -> Child:
    """A process that binds a service, pauses, and makes one call; it returns the reply or what the call ended with."""

    def body(system: shim.System, tell: Tell) -> list[Any]:
        client = system.client(service)
        client.null()
        tell("bound")
        tell.pause()
        try:
            reply = getattr(client, call)(*arguments)
        except ServiceDied as error:
            return ["died", error.service, error.generation]
        return ["reply", len(reply) if isinstance(reply, bytes) else reply]

    child = box.client(body, timeout=None)
    assert child.hear() == "bound"
    return child


def frames_granted(box: Box) -> int:
    """Grants of frames objects: the client gets its own when it opens a service, the service at the first binding."""
    return int(box.status()["objects"]["frames"]["grants"])
