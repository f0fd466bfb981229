"""A service that does, with its own authority, what a test tells it: JSON in by `echo`, JSON out.

* `{"do": "devices"}`: the devices it was given, by name: kind and size;
* `{"do": "read", "position": N, "limit": N, "known": N}` and `{"do": "console", "position": N, "text": TEXT}`: the
  serial console, if it may call the core; text stands for bytes as in PEP 383;
* `{"do": "open_device", "rdev": N, "flags": N}` for the caller or `"client": N`, `{"do": "release", "handle": N}`, and
  `{"do": "set_flags", "handle": N, "flags": N}`: devices, if it may call `devmgr`;
* `{"do": "put", "device": NAME, "at": N, "text": TEXT}` and `{"do": "get", ..., "size": N}`: the memory of a device.
"""

from __future__ import annotations

import json
from typing import Any

from bench.echo.service import Service as Echo
from corekernel.errors import HmkError
from corekernel.port import Caller
from corekernel.service import Environment
from services.stubs.core import CoreClient
from services.stubs.devmgr import DevmgrClient


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

    def _read(self, caller: Caller, position: int, limit: int, known: int) -> tuple[int, int, bool, str]:
        start, window, ended, data = CoreClient(self._environment.port("core")).serial_read(position, limit, known)
        return start, window, ended, data.decode("utf-8", "surrogateescape")

    def _console(self, caller: Caller, position: int, text: str) -> None:
        CoreClient(self._environment.port("core")).console_write(position, text.encode())

    @property
    def _devmgr(self) -> DevmgrClient:
        return DevmgrClient(self._environment.port("devmgr"))

    def _open_device(self, caller: Caller, rdev: int, flags: int, client: int = -1) -> int:
        return self._devmgr.open(caller.client if client < 0 else client, rdev, flags)

    def _release(self, caller: Caller, handle: int) -> None:
        self._devmgr.release(handle)

    def _set_flags(self, caller: Caller, handle: int, flags: int) -> None:
        self._devmgr.set_flags(handle, flags)
