"""The process of a service: what runs in it beside the service's own code.

One *control thread* obeys the core over the control channel: it makes services, binds carriers to the slots of
clients, shares buffers, takes carriers back (`hosted.py`). The *carriers* (C threads, see `native/carrier.c`) run the
handlers. A service calls others through ports (`service_ports.py`).

Each request of the core carries a serial number and gets exactly one reply; `drop` gets none. A request that fails
fails alone, with its text.

The same code runs in the core's own thread for services of class IC0 and for the core's own operations.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Callable

from corekernel.attachment import Attachment
from corekernel.channel import Channel, ChannelClosed, ChannelError, Message
from corekernel.dispatcher import CarrierPool, Variant, WaitPolicy
from corekernel.errors import HmkError, NoSuchService
from corekernel.hosted import LEAVE_SECONDS, HostedService
from corekernel.port import Port
from corekernel.service import Device, DeviceKind, Environment, Handlers
from corekernel.service_ports import KEYS_PER_POOL, NESTED_KEYS, CoalescedPort, ServicePort
from corekernel.shared import Mapping, PoolPage

SWITCH_SECONDS = 50e-6
IDLE_SECONDS = 1.0


class Host:
    """The control thread's work."""

    def __init__(
        self,
        control: Channel,
        attachment: Attachment | None,
        policy: WaitPolicy,
        builtin: dict[str, Handlers] | None = None,
    ) -> None:
        self._control = control
        self.attachment = attachment
        self._policy = policy
        self._builtin = builtin or {}
        self._services: dict[str, HostedService] = {}
        self._keys = NESTED_KEYS
        self._key_lock = threading.Lock()
        self._commands: dict[str, Callable[[Message, list[int]], Message | None]] = {
            "service": self._make,
            "bind": self._bind,
            "buffer": self._buffer,
            "unbind": self._unbind,
            "drop": self._drop,
            "event": self._event,
        }

    def new_key(self) -> int:
        """A key for a nested binding record."""
        with self._key_lock:
            self._keys += 1
            return self._keys

    # ---- the control loop

    def run(self) -> None:
        """Obey the core until it closes the channel."""
        while True:
            try:
                message, fds = self._control.recv(self._patience())
            except TimeoutError:
                self._tidy()
                continue
            except ChannelClosed:
                return
            except ChannelError as error:  # nothing the core says is refused: start afresh rather than out of step
                print(f"the core said what cannot be understood: {error}", file=sys.stderr)
                return
            if message.get("do") == "stop":
                return
            self._serve(message, fds)
            self._tidy()

    def _patience(self) -> float | None:
        services = self._services.values()
        if any(service.leaving for service in services):
            return LEAVE_SECONDS
        return IDLE_SECONDS if any(service.surplus for service in services) else None

    def _tidy(self) -> None:
        for service in self._services.values():
            service.tidy()

    def _serve(self, message: Message, fds: list[int]) -> None:
        reply: Message | None
        try:
            reply = self._commands[message["do"]](message, fds)
        except Exception as error:
            if not isinstance(error, HmkError):
                traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        finally:
            for fd in fds:
                os.close(fd)
        if reply is not None and "serial" in message:
            self._control.send({**reply, "serial": message["serial"]})

    # ---- services

    def _make(self, message: Message, fds: list[int]) -> Message:
        """Make one service: fds are its page, its stacks, its state objects and its RAM devices as named."""
        name, pool = message["name"], message["pool"]
        limit, stack = pool["limit"], pool["stack_kib"] << 10
        page = PoolPage(Mapping(fds[0], PoolPage.size(limit, self._policy.cpus)), limit, self._policy.cpus)
        stacks = Mapping(fds[1], limit * stack)
        python = message["language"] == "python"
        base = KEYS_PER_POOL * len(self._services)
        carriers = CarrierPool(page, stacks, stack, self._policy, python, base)
        environment = Environment(
            name,
            message["options"],
            lambda callee: self._connect(service, callee),
            *_kept(message, fds[2:]),
            callers=message["callers"],
            host_paths=tuple(message["host_paths"]),
            owner=message["owner"],
        )
        service = HostedService(name, message["number"], message, page, carriers, environment, self.attachment)
        if python:
            service.instance = self._builtin.get(name) or _instantiate(message["module"], environment)
            service.handlers = dict(service.instance.handlers())
        if message["poll_cpu"] >= 0:
            carriers.poll(message["poll_cpu"])
        carriers.grow(pool["reserve"], reserved=True)
        carriers.grow(pool["initial"])
        self._services[name] = service
        return {"ok": True}

    def _connect(self, service: HostedService, callee: str) -> Port:
        if callee not in service.spec["calls"]:
            raise NoSuchService(f"{service.name} may not call {callee}: the composition does not list it in `calls`")
        return self._port(service, callee)

    def _port(self, service: HostedService, callee: str, timeout: float | None = None) -> Port:
        if callee in service.spec["members"]:
            return CoalescedPort(lambda: self._services[callee].handlers, service.number)
        return ServicePort(self, service, callee, timeout)

    def port_from(self, service: str, callee: str, timeout: float) -> Port:
        """A port of one of this process's services, with a deadline on each call."""
        return self._port(self._services[service], callee, timeout)

    # ---- what the core wants of a service

    def _bind(self, message: Message, fds: list[int]) -> Message:
        return self._services[message["service"]].bind(message, fds)

    def _buffer(self, message: Message, fds: list[int]) -> Message:
        return self._services[message["service"]].share(message, fds)

    def _unbind(self, message: Message, fds: list[int]) -> Message:
        return self._services[message["service"]].unbind(message)

    def _drop(self, message: Message, fds: list[int]) -> None:
        for service in self._services.values():
            service.drop(message["client"])

    def _event(self, message: Message, fds: list[int]) -> None:
        for service in self._services.values():
            changed = getattr(service.instance, "processes_changed", None)
            if changed is not None:
                changed()


def _kept(message: Message, fds: list[int]) -> tuple[dict[str, Mapping], dict[str, Device], dict[str, Mapping]]:
    """What outlives a service: its state objects and tokens, its devices, and the memory of those that are RAM."""
    devices = {name: Device(name, DeviceKind(kind), size) for name, kind, size in message["devices"]}
    memory = {name: device.size for name, device in devices.items() if device.kind is DeviceKind.RAM}
    left = iter(fds)

    def mapped(sizes: dict[str, int], writable: bool = True) -> dict[str, Mapping]:
        return {name: Mapping(next(left), size, writable) for name, size in sizes.items()}

    state, disks, tokens = mapped(message["objects"]), mapped(memory), mapped(message["tokens"], writable=False)
    return state | tokens, devices, disks


def _instantiate(module: str, environment: Environment) -> Handlers:
    service = importlib.import_module(f"{module}.service").Service(environment)
    if not isinstance(service, Handlers):
        raise TypeError(f"{module}.service.Service has no handlers(): derive it from its generated server class")
    return service


def main(spec: Message, fds: list[int]) -> None:
    """Entry of a service process: fds are the control channel and the channel for its own calls."""
    sys.setswitchinterval(SWITCH_SECONDS)
    control, outgoing = Channel(fds[0]), Channel(fds[1])
    variant = Variant(spec["variant"])
    policy = WaitPolicy(spec["tick_khz"], spec["cpus"], variant)
    control.send({"hello": True})
    attachment = Attachment.greet(outgoing, spec["process"])
    Host(control, attachment, policy).run()
    sys.stdout.flush()
    os._exit(0)
