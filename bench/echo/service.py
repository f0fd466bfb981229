"""The echo service in Python: what measurements and fault tests need, some of it harmful on purpose."""

from __future__ import annotations

import os
import threading
import time

from corekernel.port import Caller
from corekernel.service import Environment
from services.stubs.bench_echo import BenchEchoClient, BenchEchoServer, WhoamiResult


class Service(BenchEchoServer):
    """Operations of the interface `bench_echo`; option `next` names the service that continues a chain."""

    def __init__(self, environment: Environment) -> None:
        next_service = environment.options.get("next")
        self._next = BenchEchoClient(environment.port(str(next_service))) if next_service else None
        self._open = False
        self._changed = environment.condition()
        self._lock = threading.Lock()

    def null(self, caller: Caller) -> None:
        """See the interface."""

    def echo(self, caller: Caller, data: memoryview) -> memoryview:
        """See the interface."""
        return data

    def chain(self, caller: Caller, depth: int) -> int:
        """See the interface."""
        if depth <= 1 or self._next is None:
            return 1
        return 1 + self._next.chain(depth - 1)

    def work(self, caller: Caller, ns: int) -> None:
        """See the interface."""
        until = time.perf_counter_ns() + ns
        while time.perf_counter_ns() < until:
            pass

    def block(self, caller: Caller) -> None:
        """See the interface."""
        self._changed.wait_for(caller, lambda: self._open or None)

    def release(self, caller: Caller) -> None:
        """See the interface."""
        self._open = True
        self._changed.notify()

    def crash(self, caller: Caller) -> None:
        """See the interface."""
        os.abort()

    def fail(self, caller: Caller) -> None:
        """See the interface."""
        raise RuntimeError("failed on purpose")

    def recurse(self, caller: Caller) -> None:
        """See the interface."""
        _down()

    def hog(self, caller: Caller, bytes: int) -> None:
        """See the interface."""
        bytearray(bytes)

    def whoami(self, caller: Caller) -> WhoamiResult:
        """See the interface."""
        return WhoamiResult(caller.client, caller.uid)


def _down() -> int:
    """Recurse for ever, through C frames too: the greediest way to use a stack."""
    return sorted([1], key=lambda _: _down())[0]
