"""What a service is given: its name, its options, its ports, its objects. A service imports this and its stubs only.

A service is a class `Service` in `services/NAME/service.py`, made with one `Environment`, deriving from its
generated server class. It may also define `client_gone(client)` and `processes_changed()`, called on
the control thread: they must not block.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from corekernel.composition_model import Device, DeviceKind
from corekernel.condition import Condition
from corekernel.errors import NoSuchService
from corekernel.port import HandlerTable, Port
from corekernel.shared import Mapping as ObjectMapping

__all__ = ["Device", "DeviceKind", "Environment", "Handlers"]


@runtime_checkable
class Handlers(Protocol):
    """The part of a service the host needs: its handler table."""

    def handlers(self) -> HandlerTable:
        """Handlers by operation number."""
        ...


class Environment:
    """What one service instance can reach: exactly what the composition grants.

    `host_paths` are the host directories that it may read, absolute; all of them were there when it was started.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, str | int | bool],
        connect: Callable[[str], Port],
        objects: Mapping[str, ObjectMapping],
        devices: Mapping[str, Device] = MappingProxyType({}),
        memory: Mapping[str, ObjectMapping] = MappingProxyType({}),
        callers: Mapping[str, int] = MappingProxyType({}),
        host_paths: tuple[str, ...] = (),
        owner: int = 0,
    ) -> None:
        self.name = name
        self.options = options
        self.devices = devices
        """The devices that this service was given, by name."""
        self.callers = callers
        """The services that may call this one, by name: each one's number, which is `caller.client` in its calls."""
        self.host_paths = host_paths
        self.owner = owner
        """Host user id of whoever launched the system."""
        self._connect = connect
        self._objects = objects
        self._memory = memory
        self._conditions: weakref.WeakSet[Condition] = weakref.WeakSet()

    def port(self, service: str) -> Port:
        """A way to a service that the composition lets this one call.

        Raises:
            NoSuchService: there is none of that name, or no right to call it.
        """
        return self._connect(service)

    def object(self, name: str) -> memoryview:
        """State of this service that the core holds, so that it outlives a restart.

        Raises:
            NoSuchService: no object of that name was granted.
        """
        if name not in self._objects:
            raise NoSuchService(f"{self.name} was granted no object {name!r}")
        return self._objects[name].memory

    def device(self, name: str) -> memoryview:
        """The memory of a RAM device of this service, readable and writable; it outlives the service.

        Raises:
            NoSuchService: this service was given no RAM device of that name.
        """
        if name not in self._memory:
            raise NoSuchService(f"{self.name} was given no memory device {name!r}")
        return self._memory[name].memory

    def condition(self) -> Condition:
        """A new condition; callers that go away are dropped from it."""
        condition = Condition()
        self._conditions.add(condition)
        return condition

    def client_gone(self, client: int) -> None:
        """Host only: forget a client's waiters."""
        for condition in list(self._conditions):
            condition.forget(client)

    def log(self, text: str) -> None:
        """One line on the system's serial console."""
        print(text, file=sys.stderr, flush=True)
