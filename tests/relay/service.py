"""A service for tests of chains: `echo` follows a script, one letter for each service on the way.

    n   call `echo` of the service that option `next` names, with the rest of the script
    s   say "sleeping" on the console, then sleep for a second
    k   die
    (none) return

Each adds a line "name depth priority thread" to what it returns: what it saw of the call, and where it ran.
Calls are handed on as if they were not idempotent, so that a death on the way is seen.
"""

from __future__ import annotations

import os
import threading
import time

from bench.echo.service import Service as Echo
from corekernel import dispatcher
from corekernel.port import Caller
from corekernel.service import Environment

ECHO = 2


class Service(Echo):
    """See the module."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._environment = environment
        self._onward = environment.port(str(environment.options["next"]))

    def echo(self, caller: Caller, data: memoryview) -> memoryview:
        """See the module."""
        script = bytes(data)
        context = dispatcher.serving()
        assert context is not None
        seen = f"{self._environment.name} {context.depth} {context.priority} {threading.get_native_id()}\n"
        if script[:1] == b"n":
            _, below = self._onward.call(ECHO, (len(script) - 1,), script[1:], 1, 1)
            seen += bytes(below).decode()
        elif script[:1] == b"s":
            self._environment.log("sleeping")
            time.sleep(1.0)
        elif script[:1] == b"k":
            os.abort()
        return memoryview(seen.encode())
