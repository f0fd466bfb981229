"""Stack pools: who gets a stack when, and what happens when there is none.

Binding asks the service's host for stacks. The core says how many more it may make: up to the pool's own limit and to
the system's memory for stacks. When that is not enough, a client waits while stacks are taken back:
the memory manager is asked, on a stack of its reserve, which idle stacks to reclaim (`memmgr.reclaim`, synchronous as
in Microkernel Goes General, OSDI '24, section 4.1), and the binding is tried again until it succeeds. So a call never
fails for want of a stack. A service calling a service may use the reserve of the callee at once, and, were that empty,
one stack beyond the limit: it holds a stack itself, and must not wait behind its own callers.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corekernel.channel import Message
from corekernel.clients import STACK_KIB
from corekernel.composition import Priority
from corekernel.errors import HmkError
from corekernel.objects import Rights
from corekernel.supervisor import BUSY, Instance, State
from services.stubs.memmgr import MemmgrClient

if TYPE_CHECKING:
    from corekernel.clients import Client
    from corekernel.kernel import Kernel
    from corekernel.requests import Opened

RETRY_SECONDS = 0.002
RECLAIM_SECONDS = 0.5

Then = Callable[[Message], None]


@dataclass(eq=False)
class Attempt:
    """A binding in progress: the slots that still lack a stack."""

    client: Client
    opened: Opened
    slots: list[int]
    then: Then
    beyond: int = 0


class Pools:
    """Binding policy. Runs on the core's loop; only `_decide` runs on a thread of its own."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._decider = ThreadPoolExecutor(1, thread_name_prefix="reclaim")
        self._memmgr: MemmgrClient | None = None
        self.reclaims = 0

    def prepare(self) -> None:
        """Bind the stack on which the memory manager will be asked, before it is needed."""
        if "memmgr" in self._kernel.supervisor.instances:
            self._decider.submit(self._connect)

    def _connect(self) -> MemmgrClient:
        if self._memmgr is None:
            self._memmgr = MemmgrClient(self._kernel.port_of_core("memmgr", RECLAIM_SECONDS))
            self._memmgr.info()
        return self._memmgr

    def close(self) -> None:
        """Give the thread up."""
        self._decider.shutdown(wait=False, cancel_futures=True)

    # ---- binding

    def bind(self, client: Client, opened: Opened, slots: list[int], then: Then) -> None:
        """Have stacks bound to slots; `then` gets the client's answer once all are."""
        self._try(Attempt(client, opened, slots, then))

    def _try(self, attempt: Attempt) -> None:
        kernel, opened = self._kernel, attempt.opened
        process = kernel.supervisor.process_of(opened.instance.name)
        if kernel.clients.by_number.get(attempt.client.number) is not attempt.client:
            return
        if process.state is not State.UP or opened.instance.generation != opened.generation:
            attempt.then({"error": "died", "text": f"{opened.instance.name} died"})
            return
        message = {
            "do": "bind",
            "service": opened.instance.name,
            "client": attempt.client.number,
            "uid": attempt.client.uid,
            "gid": attempt.client.gid,
            "pid": attempt.client.number,
            "slots": attempt.slots,
            "may_grow": max(self.room(opened.instance), attempt.beyond),
            "reserve": attempt.client.service is not None,
            "priority": _highest_class(attempt.client),
        }
        fds = []
        first = not opened.sent
        if first:
            fds.append(kernel.objects.grant(opened.made, opened.instance.number, Rights.WRITE))
            opened.sent = True
        opened.slots.update(attempt.slots)
        process.request(message, lambda reply: self._tried(attempt, reply, first), fds)
        for fd in fds:
            os.close(fd)

    def _tried(self, attempt: Attempt, reply: Message, first: bool) -> None:
        why = str(reply.get("error", ""))
        if why == BUSY:
            attempt.opened.sent &= not first
            self._kernel.loop.later(RETRY_SECONDS, lambda: self._try(attempt))
            return
        if why:
            attempt.then({"error": why if why == "died" else "failed", "text": why})
            return
        missing = reply["missing"]
        attempt.slots = [slot for slot in attempt.slots if slot in missing]
        if not attempt.slots:
            attempt.then({"ok": True})
        elif attempt.client.service is not None and not attempt.beyond:
            attempt.beyond = len(attempt.slots)
            self._try(attempt)
        else:
            self._reclaim(attempt)

    def room(self, instance: Instance) -> int:
        """How many more stacks a service may make."""
        own = instance.spec.pool.limit - _live(instance)
        used = sum(_live(i) * STACK_KIB[i.spec.language.value] for i in self._instances())
        memory = (self._kernel.composition.limits.stack_memory_mib << 10) - used
        return max(0, min(own, memory // STACK_KIB[instance.spec.language.value]))

    def _instances(self) -> list[Instance]:
        return [i for i in self._kernel.supervisor.instances.values() if i.page is not None]

    # ---- reclaim

    def _reclaim(self, attempt: Attempt) -> None:
        self.reclaims += 1
        wanted, name = len(attempt.slots), attempt.opened.instance.name
        number = self._kernel.supervisor.instances[name].number

        def body() -> None:
            plan = self._decide(name, number, wanted)
            self._kernel.loop.soon(lambda: self._carry_out(plan, attempt))

        self._decider.submit(body)

    def _decide(self, name: str, number: int, wanted: int) -> list[tuple[str, int]]:
        """Ask the memory manager; take from the service itself without it, or when its own limit is what it lacks."""
        fallback = [(name, wanted)]
        instance = self._kernel.supervisor.instances[name]
        full = _live(instance) >= instance.spec.pool.limit
        if "memmgr" not in self._kernel.supervisor.instances or name == "memmgr" or full:
            return fallback
        try:
            plan = json.loads(self._connect().reclaim(number, wanted))
            return [(str(entry["service"]), int(entry["count"])) for entry in plan] or fallback
        except (HmkError, ValueError, KeyError, TypeError):
            return fallback

    def _carry_out(self, plan: list[tuple[str, int]], attempt: Attempt) -> None:
        left = len(plan)
        freed = 0

        def done(reply: Message) -> None:
            nonlocal left, freed
            left -= 1
            freed += int(reply.get("freed", 0))
            if left == 0:
                if freed:
                    self._try(attempt)
                else:  # every stack is in use: some handler must return first
                    self._kernel.loop.later(RETRY_SECONDS, lambda: self._try(attempt))

        for name, count in plan:
            self.unbind(name, count, name != attempt.opened.instance.name, done)

    def unbind(self, service: str, count: int, shrink: bool, then: Then) -> None:
        """Take idle stacks of a service back; with `shrink`, their memory too."""
        supervisor = self._kernel.supervisor
        if service not in supervisor.instances:
            then({"freed": 0})
            return
        message = {"do": "unbind", "service": service, "count": count, "shrink": shrink}
        supervisor.process_of(service).request(message, then)

    def held(self) -> list[tuple[Instance, Counter[int]]]:
        """How many stacks of each service each client has now, by client number."""
        return [(i, i.page.held()) for i in self._instances() if i.page is not None]

    def state(self) -> dict[str, dict[str, int]]:
        """Each pool: bound, free, reserved, created, reclaimed, peak, promoted, limit."""
        return {
            i.name: {**i.page.counters(), "limit": i.spec.pool.limit, "number": i.number}
            for i in self._instances()
            if i.page is not None
        }


def _highest_class(client: Client) -> int:
    """Services pass on what they were called with; of the others only the owner may claim the high class."""
    return int(Priority.HIGH if client.service is not None or client.trusted else Priority.NORMAL)


def _live(instance: Instance) -> int:
    if instance.page is None:
        return 0
    counters = instance.page.counters()
    return counters["bound"] + counters["free"] + counters["reserved"]
