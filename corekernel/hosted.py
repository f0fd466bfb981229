"""One service of a host process, as the control thread keeps it: its pool, and which carrier serves whom.

A *binding record* says to whom a carrier is bound, whatever the client's frame says. Carriers that were told to leave
while their handler runs are *leaving* until they have been seen parked. Whatever is here is the control thread's own.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from corekernel import dispatcher
from corekernel.attachment import Attachment
from corekernel.channel import Message
from corekernel.dispatcher import CarrierPool
from corekernel.errors import NoSuchService
from corekernel.port import Handler
from corekernel.service import Environment, Handlers
from corekernel.session import Held
from corekernel.shared import CarrierState, Frames, Mapping, PoolPage

LEAVE_SECONDS = 0.005
KEEP_SECONDS = 0.02
SHRINK_AT_ONCE = 64
BOUND = 2
NO_BUFFER = memoryview(b"")


@dataclass(eq=False, slots=True)
class BoundCaller:
    """A binding record: this slot belongs to this client, whatever its frame says.

    `calls_before` and `kept_until` are of its carrier: see `HostedService.unbind`.
    """

    client: int
    uid: int
    gid: int
    pid: int
    thread: int
    slot: Any
    handlers: dict[int, Handler]
    frames: Frames | None
    wait_sequence: int = 0
    bulk: memoryview = NO_BUFFER
    calls_before: int = 0
    kept_until: float = 0.0

    def sample(self) -> int:
        """See `condition.Waiter`."""
        return dispatcher.wait_sequence(self.slot)

    def wake(self) -> None:
        """See `condition.Waiter`."""
        dispatcher.notify(self.slot)


@dataclass(eq=False)
class HostedService:
    """One service of this process; `spec` is what the core said of it."""

    name: str
    number: int
    spec: Message
    page: PoolPage
    pool: CarrierPool
    environment: Environment
    attachment: Attachment | None
    instance: Handlers | None = None
    handlers: dict[int, Handler] = field(default_factory=dict)
    frames: dict[int, Frames] = field(default_factory=dict)  # by client
    records: dict[int, BoundCaller] = field(default_factory=dict)  # by carrier
    by_slot: dict[tuple[int, int], int] = field(default_factory=dict)  # (client, slot) -> carrier
    buffers: dict[int, list[Mapping]] = field(default_factory=dict)  # by carrier
    chains: dict[int, Held] = field(default_factory=dict)  # by carrier; C services only
    charged: dict[tuple[int, int], int] = field(default_factory=dict)  # handler ticks of slots without a carrier
    leaving: set[int] = field(default_factory=set)  # carriers
    may_grow: int = 0  # carriers that the core still allows

    @property
    def surplus(self) -> bool:
        """Whether more stacks are free than are to be kept."""
        return bool(self.page.c.free > self.spec["pool"]["high"])

    # ---- binding

    def bind(self, message: Message, fds: list[int]) -> Message:
        """Bind carriers to slots; `missing` lists the slots for which there was no stack."""
        client = message["client"]
        if fds:
            self.frames[client] = Frames(fds[0])
        frames = self.frames[client]
        wanted = [slot for slot in message["slots"] if (client, slot) not in self.by_slot]
        self.may_grow = message["may_grow"]
        self._grow(len(wanted))
        missing = [slot for slot in wanted if not self._bind_one(frames, message, slot)]
        # A carrier that is still leaving a slot may yet look at it: two must not.
        leaving = [slot for slot in message["slots"] if self.by_slot.get((client, slot), -1) in self.leaving]
        return {"missing": missing + leaving}

    def _grow(self, wanted: int) -> None:
        """Have `wanted` stacks free, within what the core allows."""
        short = min(wanted - int(self.page.c.free), self.may_grow)
        if short > 0:
            self.may_grow -= self.pool.grow(short)

    def _bind_one(self, frames: Frames, message: Message, slot: int) -> bool:
        client = message["client"]
        carrier = self.pool.take(message["reserve"])
        if carrier < 0:
            return False
        who = (client, message["uid"], message["gid"], message["pid"], slot)
        record = BoundCaller(*who, frames.slot(slot), self.handlers, frames)
        charged = self.charged.pop((client, slot), 0)
        self.pool.bind(carrier, client, frames, slot, record, message["priority"], charged)
        self.records[carrier] = record
        self.by_slot[client, slot] = carrier
        self._keep(carrier)
        if self.spec["language"] == "c" and self.spec["options"].get("next"):
            held = self.chains[carrier] = self._chain_link(str(self.spec["options"]["next"]))
            self.pool.set_next(carrier, held.links[0])
        return True

    def _chain_link(self, service: str) -> Held:
        """For C services: a bound link to the next service of a chain, for one carrier; given back when dropped."""
        if self.attachment is None:
            raise NoSuchService(service)
        held = Held(self.attachment.session(service))
        self.attachment.another_link(held)
        return held

    def share(self, message: Message, fds: list[int]) -> Message:
        """Give the carrier of a slot the buffer it shares with its caller."""
        carrier = self.by_slot.get((message["client"], message["slot"]))
        if carrier is None:
            return {"error": "unbound"}
        mapping = Mapping(fds[0], message["size"])
        self.buffers.setdefault(carrier, []).append(mapping)
        self.records[carrier].bulk = mapping.memory.toreadonly()
        self.pool.set_bulk(carrier, mapping)
        self._keep(carrier)
        return {"ok": True}

    # ---- giving stacks back

    def _keep(self, carrier: int) -> None:
        record = self.records[carrier]
        record.calls_before = self.page.calls_of(carrier)
        record.kept_until = time.monotonic() + KEEP_SECONDS

    def _idle(self, state: CarrierState, now: float) -> bool:
        record = self.records.get(state.index)
        if record is None or state.state != BOUND:
            return False
        return state.calls != record.calls_before or now > record.kept_until

    def unbind(self, message: Message) -> Message:
        """Take back up to `count` idle stacks, the least recently used first.

        One that has not served a call since it was bound, or was given its buffer, is kept for a while: threads that
        share few stacks would otherwise take them from each other before anybody has used one.
        """
        now = time.monotonic()
        idle = sorted((state.last_used, state.index) for state in self.page.carriers() if self._idle(state, now))
        freed = 0
        for _, carrier in idle:
            if freed >= message["count"]:
                break
            if self.pool.unbind(carrier):
                self._await_parked(carrier)
                freed += 1
        if message["shrink"]:
            freed = self.pool.shrink(message["count"])
        return {"freed": freed}

    def _await_parked(self, carrier: int) -> None:
        """An idle carrier leaves within a switch; should it not, `tidy` goes on asking."""
        give_up = time.monotonic() + LEAVE_SECONDS
        while not self.pool.parked(carrier):
            if time.monotonic() > give_up:
                self.leaving.add(carrier)
                return
            os.sched_yield()
        self._left(carrier)

    def _left(self, carrier: int) -> None:
        self.leaving.discard(carrier)
        self.pool.left(carrier)
        record = self.records.pop(carrier)
        if self.by_slot.get((record.client, record.thread)) == carrier:
            del self.by_slot[record.client, record.thread]
        if record.client in self.frames:
            self.charged[record.client, record.thread] = self.page.charge_of(carrier)
        record.bulk = NO_BUFFER
        if carrier in self.chains:
            self.pool.set_next(carrier, None)  # before the link goes
            del self.chains[carrier]
        self.buffers.pop(carrier, None)  # unmapped when the last view of them goes

    def drop(self, client: int) -> None:
        """A client is gone: its carriers leave as soon as their handlers return."""
        for carrier, record in self.records.items():
            if record.client == client:
                self.pool.unbind(carrier, force=True)
                self.leaving.add(carrier)
                # A service keeps its number when it comes back: its new frames have nothing to do with the old.
                self.by_slot.pop((client, record.thread), None)
        self.frames.pop(client, None)  # a carrier's record keeps them mapped
        self.charged = {key: ticks for key, ticks in self.charged.items() if key[0] != client}
        self.environment.client_gone(client)
        gone = getattr(self.instance, "client_gone", None)
        if gone is not None:
            gone(client)

    def tidy(self) -> None:
        """Finish departures; keep the pool between its marks."""
        for carrier in list(self.leaving):
            if self.pool.parked(carrier):
                self._left(carrier)
        pool = self.spec["pool"]
        if self.surplus:
            self.pool.shrink(min(int(self.page.c.free) - pool["high"], SHRINK_AT_ONCE))
        else:
            self._grow(pool["low"])
