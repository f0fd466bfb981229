"""A service that does, with its own authority, what a test tells it: JSON in by `echo`, JSON out.

* `{"do": "devices"}`: the devices it was given, by name: kind and size;
* `{"do": "put", "device": NAME, "at": N, "text": TEXT}` and `{"do": "get", ..., "size": N}`: the memory of a device.
"""

from __future__ import annotations

import json
from typing import Any

from bench.echo.service import Service as Echo
from corekernel.errors import HmkError
from corekernel.port import Caller
from corekernel.service import Environment


class Service(Echo):
    """See the module."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._environment = environment

    def echo(self, caller: Caller, data: memoryview) -> memoryview:
        """See the module."""
        wanted = json.loads(bytes(data))
        try:
            result = getattr(self, f"_{wanted.pop('do')}")(caller, **wanted)
        except HmkError as error:
            result = {"error": type(error).__name__, "errno": getattr(error, "errno", None)}
        return memoryview(json.dumps(result).encode())

    def _devices(self, caller: Caller) -> dict[str, Any]:
        return {name: [device.kind.value, device.size] for name, device in self._environment.devices.items()}

    def _put(self, caller: Caller, device: str, at: int, text: str) -> None:
        raw = text.encode()
        self._environment.device(device)[at : at + len(raw)] = raw

    def _get(self, caller: Caller, device: str, at: int, size: int) -> str:
        return bytes(self._environment.device(device)[at : at + size]).decode()
