"""A service for tests of WAIT: `block` waits for a turn and takes it, `release` gives one."""

from __future__ import annotations

import threading

from bench.echo.service import Service as Echo
from corekernel.port import Caller
from corekernel.service import Environment


class Service(Echo):
    """See the module."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._turns = 0
        self._guard = threading.Lock()
        self._given = environment.condition()

    def _take(self) -> bool:
        with self._guard:
            taken = self._turns > 0
            self._turns -= taken
            return taken

    def block(self, caller: Caller) -> None:
        """See the module."""
        self._given.wait_for(caller, self._take)

    def release(self, caller: Caller) -> None:
        """See the module."""
        with self._guard:
            self._turns += 1
        self._given.notify()
