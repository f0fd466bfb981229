"""A service that misbehaves as told, for tests: the echo service with handlers that can be seen and held.

* `work` says "working" on the console, then sleeps instead of burning a CPU;
* `chain` with a depth of `HOLD` or more says "holding" and goes on only after `HOLD_SECONDS`;
* `release` ends the waits in `block` that have begun, so that later ones wait again;
* `fail` tries, as a service, what the composition does not allow it (option `reach`: a service to open), and says
  on the console what became of it;
* option `refuse_to_start` raises while the service is made;
* option `reach_at_start` asks for a port that the composition does not list.
"""

from __future__ import annotations

import time

from bench.echo.service import Service as Echo
from corekernel.errors import HmkError
from corekernel.port import Caller
from corekernel.remote_port import RemotePort
from corekernel.service import Environment

HOLD, HOLD_SECONDS = 7, 20.0


class Service(Echo):
    """See the module."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._environment = environment
        self._releases = 0
        self._waiting: dict[tuple[int, int], int] = {}
        if environment.options.get("refuse_to_start"):
            raise RuntimeError("this service does not want to")
        if name := environment.options.get("reach_at_start"):
            environment.port(str(name))

    def work(self, caller: Caller, ns: int) -> None:
        """See the module."""
        self._environment.log("working")
        time.sleep(ns / 1e9)

    def block(self, caller: Caller) -> None:
        """See the module."""
        key = caller.client, caller.thread
        since = self._waiting.setdefault(key, self._releases)
        self._changed.wait_for(caller, lambda: self._releases != since)
        del self._waiting[key]

    def release(self, caller: Caller) -> None:
        """See the module."""
        self._releases += 1
        self._changed.notify()

    def chain(self, caller: Caller, depth: int) -> int:
        """See the module."""
        if depth >= HOLD:
            self._environment.log("holding")
            time.sleep(HOLD_SECONDS)
        return super().chain(caller, depth)

    def fail(self, caller: Caller) -> None:
        """See the module."""
        port = self._environment.port("core")
        assert isinstance(port, RemotePort)
        try:
            port._attachment.ask({"do": "open", "service": self._environment.options["reach"]})
        except HmkError as error:
            self._environment.log(f"refused: {type(error).__name__}: {error}")
        else:
            self._environment.log("allowed")
