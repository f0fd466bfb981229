"""The device manager: which devices there are, who has them open, and who drives them.

The composition says which devices this service has. Memory devices are answered on the spot (`memory.py`); the serial
one is a terminal (`console.py`, `tty.py`). Open handles and the terminal stand in objects that the core holds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import threading
from dataclasses import dataclass

from corekernel.errors import HmkError, NoSuchService, ServiceError
from corekernel.port import MAX_BULK_BYTES, Caller
from corekernel.service import DeviceKind, Environment
from services.devmgr import console, memory
from services.devmgr.console import Console
from services.devmgr.handles import OBJECT_BYTES, Handle, Handles
from services.devmgr.journal import JOURNAL_BYTES, LANES_BYTES
from services.devmgr.memory import MemoryDevice
from services.stubs.core import CoreClient
from services.stubs.devmgr import ControlResult, DevmgrServer
from services.stubs.procmgr import ProcmgrClient

STATE = {"handles": OBJECT_BYTES, "terminal": JOURNAL_BYTES, "lanes": LANES_BYTES}
TERMINALS = {"tty": os.makedev(5, 0), "console": os.makedev(5, 1)}
KNOWN = {**{os.makedev(memory.MAJOR, d.minor): name for name, d in memory.DEVICES.items()},
         **{rdev: name for name, rdev in TERMINALS.items()}}  # fmt: skip
FIRST_PROCESS = 100
"""Clients of lower numbers are services, which stand in no process table."""


@dataclass(frozen=True, slots=True)
class Driven:
    """A device and its driver: a memory device, or (None) the console."""

    name: str
    rdev: int
    memory: MemoryDevice | None


class Service(DevmgrServer):
    """Operations of the interface `devmgr`."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._opener = str(environment.options.get("opener", "fs"))
        self._changed = environment.condition()
        self._handles = Handles(environment.object("handles"))
        self._procmgr: ProcmgrClient | None = None
        with contextlib.suppress(NoSuchService):
            self._procmgr = ProcmgrClient(environment.port("procmgr"))
        kinds = {device.kind for device in environment.devices.values()}
        self._console = self._make_console() if DeviceKind.SERIAL in kinds else None
        self._devices = {device.rdev: device for device in self._driven()}
        threading.Thread(target=self._forget_the_dead, name="forget", daemon=True).start()

    def _make_console(self) -> Console:
        core = CoreClient(self._environment.port("core"))
        objects = self._environment.object("terminal"), self._environment.object("lanes")
        made = Console(core, self._kill, self._changed, *objects)
        made.start()
        return made

    def _driven(self) -> list[Driven]:
        found = []
        for name, device in self._environment.devices.items():
            if device.kind is DeviceKind.MEMORY:
                driver = memory.DEVICES[name]
                found.append(Driven(name, os.makedev(memory.MAJOR, driver.minor), driver))
        if self._console is not None:
            found += [Driven(name, rdev, None) for name, rdev in TERMINALS.items()]
        return found

    # ---- clients and processes

    def _forget_the_dead(self) -> None:
        """Close what clients left that went while this service was down: nobody told it."""
        before = {*self._handles.clients(), *(self._console.clients() if self._console else ())}
        if self._procmgr is None or not before:
            return
        with contextlib.suppress(HmkError):
            living = set(json.loads(bytes(self._procmgr.list())))
            for client in before - living:
                if client >= FIRST_PROCESS:
                    self.client_gone(client)

    def client_gone(self, client: int) -> None:
        """Host hook: a client's handles go with it."""
        self._handles.forget(client)
        if self._console is not None:
            self._console.client_gone(client)

    def _kill(self, process: int, number: int) -> None:
        if self._procmgr is not None:
            self._procmgr.kill(process, number)

    def _only_opener(self, caller: Caller) -> None:
        if caller.client != self._environment.callers.get(self._opener):
            raise ServiceError(errno.EPERM, f"only {self._opener} may ask for this")

    # ---- opening

    def open(self, caller: Caller, client: int, rdev: int, flags: int) -> int:
        """See the interface."""
        self._only_opener(caller)
        if rdev not in KNOWN:
            raise ServiceError(errno.ENXIO, f"no device {rdev:#x}")
        if rdev not in self._devices:
            raise ServiceError(errno.ENODEV, f"this system has no {KNOWN[rdev]}")
        if flags & os.O_ACCMODE == os.O_ACCMODE:
            raise ServiceError(errno.EINVAL)
        return self._handles.open(client, rdev, flags & (os.O_ACCMODE | os.O_NONBLOCK))

    def release(self, caller: Caller, handle: int) -> None:
        """See the interface."""
        self._only_opener(caller)
        self._handles.release(handle)

    def set_flags(self, caller: Caller, handle: int, flags: int) -> None:
        """See the interface."""
        self._only_opener(caller)
        self._handles.set_flags(handle, os.O_NONBLOCK, flags)

    def _opened(self, caller: Caller, handle: int, but: int = os.O_ACCMODE) -> tuple[Handle, Driven]:
        """The handle and its device; EBADF if it is open for `but` (O_RDONLY, O_WRONLY) only."""
        found = self._handles.get(handle, caller.client)
        if found.flags & os.O_ACCMODE == but:
            raise ServiceError(errno.EBADF)
        return found, self._devices[found.rdev]

    # ---- use

    def read(self, caller: Caller, request: int, handle: int, size: int) -> bytes:
        """See the interface."""
        found, device = self._opened(caller, handle, os.O_WRONLY)
        size = min(size, MAX_BULK_BYTES)
        if device.memory is not None:
            return device.memory.read(size)
        return self._terminal.read(caller, request, size, not found.flags & os.O_NONBLOCK)

    def write(self, caller: Caller, request: int, handle: int, data: memoryview) -> int:
        """See the interface."""
        found, device = self._opened(caller, handle, os.O_RDONLY)
        if device.memory is not None:
            return device.memory.write(len(data))
        return self._terminal.write(caller, request, data, not found.flags & os.O_NONBLOCK)

    def control(self, caller: Caller, request: int, handle: int, command: int, argument: bytes) -> ControlResult:
        """See the interface."""
        _, device = self._opened(caller, handle)
        if device.memory is not None:
            raise ServiceError(errno.ENOTTY)
        if command == console.TIOCSPGRP:
            self._check_foreground(caller, argument)
        return ControlResult(0, self._terminal.control(caller, request, command, argument))

    def poll(self, caller: Caller, handle: int, events: int) -> int:
        """See the interface."""
        return self._ready(self._opened(caller, handle)[1], events)

    def wait_ready(self, caller: Caller, handle: int, events: int) -> int:
        """See the interface."""
        device = self._opened(caller, handle)[1]
        return self._changed.wait_for(caller, lambda: self._ready(device, events) or None)

    def _ready(self, device: Driven, events: int) -> int:
        ready = console.POLL_IN | console.POLL_OUT if device.memory else self._terminal.ready()
        return ready & (events | console.POLL_HUP)

    @property
    def _terminal(self) -> Console:
        assert self._console is not None  # else no handle leads here
        return self._console

    def _check_foreground(self, caller: Caller, argument: bytes) -> None:
        """Refuse to let a client have signals sent to a process that it could not signal itself."""
        try:
            process = console.number(argument)
        except struct.error as error:
            raise ServiceError(errno.EINVAL, "the argument is too short") from error
        if process in (0, caller.client):
            return
        if process < 0 or self._procmgr is None:
            raise ServiceError(errno.ESRCH)
        found = json.loads(bytes(self._procmgr.info(process)))
        if found["state"] != "live":
            raise ServiceError(errno.ESRCH)
        if caller.uid not in (0, found["uid"]) and found["parent"] != caller.client:
            raise ServiceError(errno.EPERM)

    # ---- the registry

    def devices(self, caller: Caller) -> bytes:
        """See the interface."""
        opens = self._handles.opens()
        table = [
            {
                "name": device.name,
                "kind": "memory" if device.memory else "serial",
                "major": os.major(device.rdev),
                "minor": os.minor(device.rdev),
                "driver": "memory" if device.memory else "tty",
                "state": "hung up" if not device.memory and self._terminal.ended else "ready",
                "opens": opens.get(device.rdev, 0),
            }
            for device in self._devices.values()
        ]
        return json.dumps(table).encode()
