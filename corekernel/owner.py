"""What the owner of a system may ask the core: status, logs, programs, observation, the end.

"Owner" is the user that launched it, or root. Everything else gets an error; the requests are documented on
their functions.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from corekernel import confine
from corekernel.channel import Message
from corekernel.errors import Denied, NoSuchService
from corekernel.sched import read_times

if TYPE_CHECKING:
    from corekernel.clients import Client
    from corekernel.kernel import Kernel
    from corekernel.supervisor import Instance, ServiceProcess

Request = Callable[["Client", Message, list[int]], None]
LOG_CHUNK = 10 << 10  # each byte may take six in the message
SHOWN_CLIENTS = 200


class Owner:
    """Serves the owner's requests."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def requests(self) -> dict[str, Request]:
        """By name."""
        handlers: dict[str, Request] = {
            "status": self._status,
            "statistics": self._statistics,
            "trace": self._trace,
            "observe": self._observe,
            "logs": self._logs,
            "input": self._input,
            "run": self._run,
            "result": self._result,
            "down": self._down,
        }
        return {name: self._guarded(handler) for name, handler in handlers.items()}

    def _guarded(self, handler: Request) -> Request:
        def guarded(client: Client, message: Message, fds: list[int]) -> None:
            if not client.trusted:
                raise Denied("only the owner of the system may ask for this")
            handler(client, message, fds)

        return guarded

    # ---- looking

    def _status(self, client: Client, message: Message, fds: list[int]) -> None:
        """Everything at a glance: processes, services with their pools, clients, objects, weaknesses."""
        kernel = self._kernel
        stacks = sum((held for _, held in kernel.pools.held()), Counter[int]())
        ordinary = [c for c in kernel.clients.by_number.values() if c.service is None and c.greeted]
        reply = {
            "name": kernel.name,
            "composition": kernel.composition.name,
            "core_pid": kernel.core_pid,
            "keeper_pid": kernel.keeper_pid,
            "owner": kernel.owner,
            "uptime_s": (time.monotonic_ns() - kernel.started_ns) / 1e9,
            "boot_s": (kernel.ready_ns - kernel.started_ns) / 1e9,
            "tick_khz": kernel.tick_khz,
            "reclaims": kernel.pools.reclaims,
            "processes": [self._process(p) for p in kernel.supervisor.processes.values()],
            "clients": [self._client(c, stacks[c.number]) for c in ordinary[:SHOWN_CLIENTS]],
            "clients_total": len(ordinary),
            "objects": kernel.objects.summary(),
            "weaknesses": [*confine.weaknesses(), *kernel.groups.weaknesses()],
        }
        kernel.clients.answer(client, message, reply)

    def _process(self, process: ServiceProcess) -> Message:
        in_core = process.name == "core"
        spawned = process.spawned
        return {
            "name": process.name,
            "state": process.state.value,
            "pid": self._kernel.core_pid if in_core else spawned.host_pid if spawned else 0,
            "uid": os.getuid() if in_core or process.uid is None else process.uid,
            "deaths": process.total_deaths,
            "services": [self._service(m) for m in process.members],
        }

    def _service(self, instance: Instance) -> Message:
        spec = instance.spec
        page = instance.page
        return {
            "name": spec.name,
            "number": instance.number,
            "interface": spec.interface,
            "class": spec.isolation.value,
            "placement": str(spec.placement),
            "poll_cpu": instance.poll_cpu if instance.polled else None,
            "priority": spec.priority.name.lower(),
            "generation": instance.generation,
            "pool": {**page.counters(), "limit": spec.pool.limit} if page else {},
            "totals": page.totals() if page else {},
        }

    def _client(self, client: Client, bound: int) -> Message:
        return {
            "number": client.number,
            "name": client.name,
            "pid": client.host_pid,
            "uid": client.uid,
            "unconfined": client.uid in (0, os.getuid()),
            "charged_ms": self._kernel.policy.seconds(self._charged(client)) * 1000,
            "bound": bound,
        }

    def _charged(self, client: Client) -> int:
        pages = [i.page for i in self._kernel.supervisor.instances.values() if i.page is not None]
        return sum(page.charged(client.number) for page in pages)

    def _statistics(self, client: Client, message: Message, fds: list[int]) -> None:
        """Per-operation counts and histograms of one service, and its carriers' totals."""
        kernel = self._kernel
        page = self._instance(message).page
        operations = page.operations() if page else {}
        reply = {
            "totals": page.totals() if page else {},
            "operations": {str(number): list(record) for number, record in operations.items()},
            "cpu": {str(cpu): times for cpu, times in read_times().items()},
        }
        kernel.clients.answer(client, message, reply)

    def _trace(self, client: Client, message: Message, fds: list[int]) -> None:
        """Events of one service's trace ring after a time stamp, `skip` of them left out, as many as fit."""
        kernel = self._kernel
        instance = self._instance(message)
        events = list(instance.page.trace()) if instance.page else []
        newer = [e for e in events if e["at"] > int(message.get("after", 0))][max(0, int(message.get("skip", 0))) :]
        kernel.clients.answer(client, message, {"events": newer[: min(200, int(message.get("limit", 200)))]})

    def _instance(self, message: Message) -> Instance:
        """The service that is asked about; its owner may look at it even where no client may call it."""
        instance = self._kernel.supervisor.instances.get(str(message["service"]))
        if instance is None:
            raise NoSuchService(f"no service {message['service']!r} in {self._kernel.composition.name}")
        return instance

    def _observe(self, client: Client, message: Message, fds: list[int]) -> None:
        """Switch per-operation statistics and the trace ring on or off."""
        kernel = self._kernel
        kernel.observing = bool(message.get("operations", kernel.observing))
        kernel.tracing = bool(message.get("trace", kernel.tracing))
        for instance in kernel.supervisor.instances.values():
            if instance.page is not None:
                instance.page.observe(kernel.observing, kernel.tracing)
        kernel.clients.answer(client, message, {"ok": True})

    # ---- console

    def _logs(self, client: Client, message: Message, fds: list[int]) -> None:
        """Console output after a position."""
        position, data = self._kernel.serial.tail(int(message.get("after", 0)))
        part = data[:LOG_CHUNK]
        text = part.decode("utf-8", "replace")
        self._kernel.clients.answer(client, message, {"text": text, "position": position - len(data) + len(part)})

    def _input(self, client: Client, message: Message, fds: list[int]) -> None:
        """Type at the console: `text` is bytes, those that are no UTF-8 as lone surrogates (PEP 383).

        `window`, if given, is the size of the window there: rows and columns. Answers with how many bytes were taken.
        """
        if "window" in message:
            rows, columns = (min(max(0, int(size)), 0xFFFF) for size in message["window"])
            self._kernel.serial.resize(rows, columns)
        data = str(message["text"]).encode("utf-8", "surrogateescape")
        taken = self._kernel.serial.feed(data, bool(message.get("end", False)))
        self._kernel.clients.answer(client, message, {"taken": taken})

    # ---- doing

    def _run(self, client: Client, message: Message, fds: list[int]) -> None:
        """Start a program on the three descriptors given; answers with its number when it runs."""
        kernel = self._kernel
        argv = [str(word) for word in message["argv"]]
        env = {str(k): str(v) for k, v in message["env"].items()}
        if not argv or len(fds) != 3:
            raise ValueError("a program and three descriptors")
        stdio = (os.dup(fds[0]), os.dup(fds[1]), os.dup(fds[2]))

        def started(made: Client | None, error: Exception | None) -> None:
            for fd in stdio:
                os.close(fd)
            if made is None:
                kernel.clients.answer(client, message, {"error": "failed", "text": str(error)})
            else:
                kernel.clients.answer(client, message, {"number": made.number, "pid": made.host_pid})

        kernel.programs.start(argv, env, str(message["cwd"]), stdio, client.number, started)

    def _result(self, client: Client, message: Message, fds: list[int]) -> None:
        """How a program that `run` started ended; answers when it has."""
        number = int(message["number"])
        self._kernel.programs.when_ended(
            number, lambda status: self._kernel.clients.answer(client, message, {"status": status})
        )

    def _down(self, client: Client, message: Message, fds: list[int]) -> None:
        """End the system."""
        self._kernel.clients.answer(client, message, {"ok": True})
        self._kernel.loop.soon(self._kernel.shut_down)
