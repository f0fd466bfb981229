"""The process of a service: what runs in it beside the service's own code.

One *control thread* obeys the core over the control channel: it makes services, binds carriers to the slots of
clients, shares buffers, takes carriers back. The *carriers* (C threads, see `native/carrier.c`) run the handlers. A
service calls others through ports; a port to a service in the same process is a function call.

State, all of it the control thread's own: services by name; per service its pool, its page and its binding records;
frames objects by (service, client); carriers told to leave whose handlers still run. Each request of the core carries
a serial number and gets exactly one reply; `drop` gets none. A request that fails fails alone, with its text.

The same code runs in the core's own thread for services of class IC0 and for the core's own operations.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from corekernel import dispatcher
from corekernel.attachment import Attachment, Held, RemotePort
from corekernel.channel import Channel, ChannelClosed, ChannelError, Message
from corekernel.dispatcher import CarrierPool, Frames, Link, Mapping, PoolPage, Variant, WaitPolicy
from corekernel.errors import HmkError, NoSuchService, Status, WouldWait
from corekernel.local_port import LocalPort
from corekernel.port import Handler, HandlerTable, Payload, Port, Registers, Reply
from corekernel.service import Environment, Handlers

SWITCH_SECONDS = 50e-6
KEYS_PER_POOL = 1 << 16
LEAVE_SECONDS = 0.005
IDLE_SECONDS = 1.0
BOUND = 2


NO_BUFFER = memoryview(b"")


@dataclass(eq=False, slots=True)
class BoundCaller:
    """A binding record: this slot belongs to this client, whatever its frame says."""

    client: int
    uid: int
    pid: int
    thread: int
    slot: Any
    handlers: dict[int, Handler]
    frames: Frames | None
    wait_sequence: int = 0
    bulk: memoryview = NO_BUFFER

    def sample(self) -> int:
        """See `condition.Waiter`."""
        return dispatcher.wait_sequence(self.slot)

    def wake(self) -> None:
        """See `condition.Waiter`."""
        dispatcher.notify(self.slot)


class LocalCaller:
    """A service of this process as the caller of another; waits on a count of its own. One per thread."""

    def __init__(self, client: int) -> None:
        self.client = client
        self.uid, self.pid, self.thread = os.getuid(), client, 0
        self.wait_sequence = 0
        self._count = 0
        self._changed = threading.Condition()

    def sample(self) -> int:
        """See `condition.Waiter`."""
        return self._count

    def wake(self) -> None:
        """See `condition.Waiter`."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def pause(self) -> None:
        """Block until somebody has woken this caller since its last sample."""
        with self._changed:
            self._changed.wait_for(lambda: self._count != self.wait_sequence)


class CoalescedPort:
    """A port to a service in the same process."""

    def __init__(self, handlers: Callable[[], HandlerTable], client: int) -> None:
        self._handlers = handlers  # found at the first call: that service may yet have to be made
        self._client = client
        self._local = threading.local()

    def call(
        self,
        operation: int,
        registers: Registers = (),
        payload: Payload = b"",
        returns: int = 0,
        capacity: int = 0,
        idempotent: bool = False,
    ) -> Reply:
        """See `corekernel.port.Port.call`."""
        try:
            port, caller = self._local.pair
        except AttributeError:
            caller = LocalCaller(self._client)
            port = LocalPort(self._handlers(), caller)
            self._local.pair = port, caller
        while True:
            try:
                return port.call(operation, registers, payload, returns, capacity, idempotent)  # type: ignore[no-any-return]
            except WouldWait:
                caller.pause()


class ServicePort(RemotePort):
    """A service's way to a service in another process: hands depth and class on, and calls back into its caller."""

    def __init__(self, host: Host, local: Local, service: str, timeout: float | None = None) -> None:
        attachment = host.attachment
        if attachment is None:
            raise NoSuchService(f"{local.name} has no way to call {service}")
        super().__init__(attachment, service, timeout)
        self._special = True
        self._host = host
        self._from = local
        self._target = attachment.welcome.services[service][0]
        self._prepare = self._prepare_link

    def _prepare_link(self, link: Link) -> None:
        if self.service in self._from.callers:
            record = BoundCaller(self._target, 0, self._target, link.index, None, self._from.handlers, None)
            dispatcher.accept_nested(link, self._from.pool, self._host.new_key(), record)

    def _arrange(self, link: Link) -> Link:
        link = super()._arrange(link)
        context = dispatcher.serving()
        if context is not None:
            link.c.depth = context.depth + 1
            link.c.priority = context.priority
        return link

    def _call(
        self,
        operation: int,
        registers: Registers = (),
        payload: Payload = b"",
        returns: int = 0,
        capacity: int = 0,
        idempotent: bool = False,
    ) -> Reply:
        """See `corekernel.port.Port.call`; a call to the service that called us runs on the stack waiting there."""
        context = dispatcher.serving()
        if context is None or context.client != self._target or context.carrier >= NESTED_KEYS:
            return super()._call(operation, registers, payload, returns, capacity, idempotent)
        policy = self._from.pool.policy
        status, reply = dispatcher.call_back(context, policy, operation, registers, payload, returns)
        if status in (dispatcher.NO_BUFFER, int(Status.WAIT)):  # more than a nested leg can do
            return super()._call(operation, registers, payload, returns, capacity, idempotent)
        if status:
            raise dispatcher.failure(status, self.service, 0, bytes(reply[1]).decode("utf-8", "replace"))
        return reply


NESTED_KEYS = KEYS_PER_POOL * 64


@dataclass(eq=False)
class Local:
    """One service of this process."""

    name: str
    number: int
    spec: Message
    page: PoolPage
    pool: CarrierPool
    handlers: dict[int, Handler]
    callers: frozenset[str]
    environment: Environment
    instance: Handlers | None
    frames: dict[int, Frames] = field(default_factory=dict)
    records: dict[int, BoundCaller] = field(default_factory=dict)  # by carrier
    by_slot: dict[tuple[int, int], int] = field(default_factory=dict)  # (client, slot) -> carrier
    buffers: dict[int, list[Mapping]] = field(default_factory=dict)  # by carrier
    chains: dict[int, Held] = field(default_factory=dict)  # by carrier; C services only
    charged: dict[tuple[int, int], int] = field(default_factory=dict)  # handler ticks of slots without a carrier
    may_grow: int = 0  # carriers that the core still allows


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
        self._locals: dict[str, Local] = {}
        self._leaving: dict[tuple[str, int], Frames | None] = {}
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
        if self._leaving:
            return LEAVE_SECONDS
        surplus = any(local.page.c.free > local.spec["pool"]["high"] for local in self._locals.values())
        return IDLE_SECONDS if surplus else None

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
        """Make one service: fds are its page, its stacks, then its state objects in the order named."""
        name, pool = message["name"], message["pool"]
        limit, stack = pool["limit"], pool["stack_kib"] << 10
        page = PoolPage(Mapping(fds[0], PoolPage.size(limit, self._policy.cpus)), limit, self._policy.cpus)
        stacks = Mapping(fds[1], limit * stack)
        python = message["language"] == "python"
        base = KEYS_PER_POOL * len(self._locals)
        carriers = CarrierPool(page, stacks, stack, self._policy, python, base)
        objects = {key: Mapping(fd, size) for (key, size), fd in zip(message["objects"].items(), fds[2:], strict=True)}
        environment = Environment(name, message["options"], lambda service: self._connect(local, service), objects)
        local = Local(
            name,
            message["number"],
            message,
            page,
            carriers,
            {},
            frozenset(message["callers"]),
            environment,
            None,
        )
        if python:
            local.instance = self._builtin.get(name) or _instantiate(message["module"], environment)
            local.handlers = dict(local.instance.handlers())
        if message["poll_cpu"] >= 0:
            carriers.poll(message["poll_cpu"])
        carriers.grow(pool["reserve"], reserved=True)
        carriers.grow(pool["initial"])
        self._locals[name] = local
        return {"ok": True}

    def _connect(self, local: Local, service: str) -> Port:
        if service not in local.spec["calls"]:
            raise NoSuchService(f"{local.name} may not call {service}: the composition does not list it in `calls`")
        if service in local.spec["members"]:
            return CoalescedPort(lambda: self._locals[service].handlers, local.number)
        return ServicePort(self, local, service)

    def port_from(self, local: str, service: str, timeout: float) -> Port:
        """A port of one of this process's services, with a deadline on each call."""
        if service in self._locals[local].spec["members"]:
            return CoalescedPort(lambda: self._locals[service].handlers, self._locals[local].number)
        return ServicePort(self, self._locals[local], service, timeout)

    # ---- binding

    def _frames_of(self, local: Local, client: int, fds: list[int]) -> Frames:
        if fds:
            local.frames[client] = Frames(fds[0])
        return local.frames[client]

    def _bind(self, message: Message, fds: list[int]) -> Message:
        """Bind carriers to slots; `missing` lists the slots for which there was no stack."""
        local = self._locals[message["service"]]
        client = message["client"]
        frames = self._frames_of(local, client, fds)
        wanted = [slot for slot in message["slots"] if (client, slot) not in local.by_slot]
        local.may_grow = message["may_grow"]
        self._provide(local, len(wanted))
        missing = [slot for slot in wanted if not self._bind_one(local, frames, message, slot)]
        # A carrier that is still leaving a slot may yet look at it: two must not.
        leaving = [s for s in message["slots"] if (local.name, local.by_slot.get((client, s), -1)) in self._leaving]
        return {"missing": missing + leaving}

    def _provide(self, local: Local, wanted: int) -> None:
        """Grow, within what the core allows, so that `wanted` are free."""
        short = wanted - local.page.c.free
        if short > 0 and local.may_grow > 0:
            local.may_grow -= local.pool.grow(min(short, local.may_grow))

    def _bind_one(self, local: Local, frames: Frames, message: Message, slot: int) -> bool:
        client = message["client"]
        carrier = local.pool.take(message["reserve"])
        if carrier < 0:
            return False
        if (local.name, carrier) in self._leaving:  # it has left since `_tidy` looked
            del self._leaving[local.name, carrier]
            self._left(local, carrier)
        record = BoundCaller(client, message["uid"], message["pid"], slot, frames.slot(slot), local.handlers, frames)
        charged = local.charged.pop((client, slot), 0)
        local.pool.bind(carrier, client, frames, slot, record, message["priority"], charged)
        local.records[carrier] = record
        local.by_slot[client, slot] = carrier
        if local.spec["language"] == "c" and local.spec["options"].get("next"):
            held = local.chains[carrier] = self._chain_link(str(local.spec["options"]["next"]))
            local.pool.set_next(carrier, held.links[0])
        return True

    def _chain_link(self, service: str) -> Held:
        """For C services: a bound link to the next service of a chain, for one carrier; given back when dropped."""
        if self.attachment is None:
            raise NoSuchService(service)
        held = Held(self.attachment.session(service))
        self.attachment.another_link(held)
        return held

    def _buffer(self, message: Message, fds: list[int]) -> Message:
        local = self._locals[message["service"]]
        carrier = local.by_slot.get((message["client"], message["slot"]))
        if carrier is None:
            return {"error": "unbound"}
        mapping = Mapping(fds[0], message["size"])
        local.buffers.setdefault(carrier, []).append(mapping)
        local.records[carrier].bulk = mapping.memory.toreadonly()
        local.pool.set_bulk(carrier, mapping)
        return {"ok": True}

    # ---- giving stacks back

    def _unbind(self, message: Message, fds: list[int]) -> Message:
        """Take back up to `count` idle stacks, the least recently used first."""
        local = self._locals[message["service"]]
        idle = sorted(
            (state.last_used, state.index)
            for state in local.page.carriers()
            if state.state == BOUND and state.index in local.records
        )
        freed = 0
        for _, carrier in idle:
            if freed >= message["count"]:
                break
            if local.pool.unbind(carrier):
                self._await_parked(local, carrier)
                freed += 1
        if message["shrink"]:
            freed = local.pool.shrink(message["count"])
        return {"freed": freed}

    def _await_parked(self, local: Local, carrier: int) -> None:
        """An idle carrier leaves within a switch; should it not, `_tidy` goes on asking."""
        give_up = time.monotonic() + LEAVE_SECONDS
        while not local.pool.parked(carrier):
            if time.monotonic() > give_up:
                self._leaving[local.name, carrier] = None
                return
            os.sched_yield()
        self._left(local, carrier)

    def _left(self, local: Local, carrier: int) -> None:
        local.pool.left(carrier)
        record = local.records.pop(carrier, None)
        if record is not None:
            if local.by_slot.get((record.client, record.thread)) == carrier:
                del local.by_slot[record.client, record.thread]
            if record.client in local.frames:
                local.charged[record.client, record.thread] = local.page.charge_of(carrier)
            record.bulk = NO_BUFFER
        if carrier in local.chains:
            local.pool.set_next(carrier, None)  # before the link goes
            del local.chains[carrier]
        local.buffers.pop(carrier, None)  # unmapped when the last view of them goes

    def _drop(self, message: Message, fds: list[int]) -> None:
        """A client is gone: its carriers leave as soon as their handlers return."""
        client = message["client"]
        for local in self._locals.values():
            for carrier in [c for c, record in local.records.items() if record.client == client]:
                local.pool.unbind(carrier, force=True)
                self._leaving[local.name, carrier] = local.frames.get(client)
                # A service keeps its number when it comes back: its new frames have nothing to do with the old.
                local.by_slot.pop((client, local.records[carrier].thread), None)
            local.frames.pop(client, None)
            local.charged = {key: ticks for key, ticks in local.charged.items() if key[0] != client}
            local.environment.client_gone(client)
            gone = getattr(local.instance, "client_gone", None)
            if gone is not None:
                gone(client)

    def _tidy(self) -> None:
        """Finish departures; keep the pools between their marks."""
        for name, carrier in list(self._leaving):
            local = self._locals[name]
            if local.pool.parked(carrier):
                self._left(local, carrier)
                del self._leaving[name, carrier]
        for local in self._locals.values():
            pool, free = local.spec["pool"], local.page.c.free
            if free > pool["high"]:
                local.pool.shrink(min(free - pool["high"], 64))
            elif free < pool["low"] and local.may_grow > 0:
                local.may_grow -= local.pool.grow(min(pool["low"] - free, local.may_grow))

    def _event(self, message: Message, fds: list[int]) -> None:
        for local in self._locals.values():
            changed = getattr(local.instance, "processes_changed", None)
            if changed is not None:
                changed()


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
