"""Starting and watching services.

Each process of services goes through STARTING -> UP -> (died) -> BACKOFF -> STARTING ..., or ends in FAILED when it
dies more often than its composition allows. The supervisor never waits for a service: it sends requests over
the control channel and goes on when the reply comes. A death ends every call in flight (the core marks the slots), and
the next generation gets fresh frames, a fresh pool, and the same state objects.
"""

from __future__ import annotations

import enum
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corekernel import host_paths
from corekernel.channel import Channel, ChannelClosed, ChannelError, ChannelFull, Message
from corekernel.composition import Isolation, Language, PlacementKind, Service
from corekernel.confine import Confinement
from corekernel.objects import KernelObject, Kind, Rights
from corekernel.sched import ANYWHERE, FREE, NO_POLLER, PINNED, SAME_CORE, poller_cpu, restart_delay
from corekernel.shared import Mapping, PoolPage
from corekernel.spawned import Spawned

if TYPE_CHECKING:
    from corekernel.clients import Client
    from corekernel.kernel import Kernel

Reply = Callable[[Message], None]
HOST_ENTRY = "corekernel.host:main"
HANG_PERIOD = 0.5
YOUNG_SECONDS = 0.25  # who dies within this of its start is restarted more slowly each time
FLUSH_SECONDS = 0.005
BUSY = "busy"


class State(enum.Enum):
    """Life of a process of services."""

    STARTING = "starting"
    UP = "up"
    BACKOFF = "backoff"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(eq=False)
class Instance:
    """One service of the composition, across its generations."""

    spec: Service
    number: int
    generation: int = 0
    page: PoolPage | None = None
    poll_cpu: int = NO_POLLER
    objects: list[KernelObject] = field(default_factory=list)
    state_objects: dict[str, KernelObject] = field(default_factory=dict)
    tokens: dict[str, KernelObject] = field(default_factory=dict)  # to be read only
    device_objects: list[KernelObject] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name in the composition."""
        return self.spec.name

    @property
    def polled(self) -> bool:
        """Whether a poller serves it, on `poll_cpu`."""
        return self.poll_cpu != NO_POLLER


@dataclass(eq=False)
class ServiceProcess:
    """A host process with one service, or several coalesced ones; `core` is the core's own."""

    name: str
    number: int
    members: list[Instance]
    state: State = State.STARTING
    spawned: Spawned | None = None
    control: Channel | None = None
    client: Client | None = None
    uid: int | None = None
    host_paths: tuple[str, ...] = ()
    started: float = 0.0
    deaths: list[float] = field(default_factory=list)
    total_deaths: int = 0
    young_deaths: int = 0  # in a row
    up_at: float = 0.0
    pending: dict[int, Reply] = field(default_factory=dict)
    backlog: deque[Message] = field(default_factory=deque)
    serial: int = 0

    def request(self, message: Message, then: Reply, fds: list[int] | None = None) -> None:
        """Send one request; `then` gets the reply, or {"error": ...} when the service dies first."""
        if self.control is None:
            then({"error": "died"})
            return
        if self.backlog:  # what stands there comes first: a client may have come back under its number
            then({"error": BUSY})
            return
        self.serial += 1
        self.pending[self.serial] = then
        try:
            self.control.send_nowait({**message, "serial": self.serial}, fds or [])
        except ChannelError as error:
            self.pending.pop(self.serial)({"error": "died" if isinstance(error, ChannelClosed) else BUSY})

    def flush(self) -> bool:
        """Send as much of the backlog as the service takes; whether that was all."""
        while self.backlog and self.control is not None:
            try:
                self.control.send_nowait(self.backlog[0])
            except ChannelFull:
                return False
            except ChannelClosed:
                break
            self.backlog.popleft()
        self.backlog.clear()
        return True


class Supervisor:
    """Starts the services of a composition in order, and again when they die."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.processes: dict[str, ServiceProcess] = {}
        self.instances: dict[str, Instance] = {}

    def plan(self, services: tuple[Service, ...]) -> None:
        """Lay out processes and numbers; service numbers start at 1, a process has its first member's."""
        for number, spec in enumerate(services, 1):
            instance = Instance(spec, number)
            self.instances[spec.name] = instance
            process = self.processes.get(spec.process)
            if process is None:
                first = 0 if spec.process == "core" else number
                process = self.processes[spec.process] = ServiceProcess(spec.process, first, [])
            process.members.append(instance)

    def process_of(self, service: str) -> ServiceProcess:
        """The process a service lives in."""
        return next(p for p in self.processes.values() if any(m.name == service for m in p.members))

    # ---- starting

    def start(self, process: ServiceProcess, then: Callable[[bool], None]) -> None:
        """Start a process and make its services in it; `then(whether it is up)`."""
        process.state = State.STARTING
        process.started = time.monotonic()
        control, theirs = Channel.pair()
        client, outgoing = self._kernel.clients.of_service(process)
        process.control = control
        kernel = self._kernel
        kernel.loop.watch(control, lambda: self._receive(process, control))
        if process.name == "core":
            kernel.host_here(theirs, outgoing)
            self._make_members(process, then)
            return
        spec = {**kernel.timing(), "process": process.name}

        def spawned(result: Spawned | None, error: Exception | None) -> None:
            theirs.close()
            outgoing.close()
            if result is None:
                kernel.serial.line("core", f"{process.name} did not start: {error}")
                self._lost(process, control)
                then(False)
                return
            process.spawned = result
            client.host_pid = result.host_pid
            kernel.loop.watch(result.pidfd, lambda: self._died(process, result))
            self._make_members(process, then)

        kernel.loop.aside(lambda: self._spawn(process, spec, [theirs.fileno(), outgoing.fileno()]), spawned)

    def _spawn(self, process: ServiceProcess, spec: Message, fds: list[int]) -> Spawned:
        kernel = self._kernel
        process.host_paths = host_paths.present(
            (path for member in process.members for path in member.spec.host_paths),
            lambda text: kernel.serial.line("core", f"{process.name}: {text}"),
        )
        output = kernel.output_of(process.name)
        try:
            memory = sum(m.spec.memory_mib for m in process.members) << 20
            confinement = Confinement(process.uid, None, memory, nofile=4096, host_paths=process.host_paths)
            return kernel.spawn_service(HOST_ENTRY, spec, fds, confinement, output)
        finally:
            os.close(output)

    def _make_members(self, process: ServiceProcess, then: Callable[[bool], None]) -> None:
        waiting = list(process.members)

        def made(reply: Message) -> None:
            if "error" in reply:
                self._kernel.serial.line("core", f"{waiting[0].name}: {reply['error']}")
                self._kill(process)
                then(False)
                return
            waiting.pop(0)
            step()

        def step() -> None:
            if waiting:
                self._make(process, waiting[0], made)
                return
            process.state = State.UP
            process.up_at = time.monotonic()
            self._kernel.processes_changed()
            then(True)

        step()

    def _make(self, process: ServiceProcess, instance: Instance, then: Reply) -> None:
        """Give a service its pool, its stacks and its state, in a new generation."""
        kernel, spec = self._kernel, instance.spec
        instance.generation += 1
        cpus, limit = kernel.cpus, self._limit(instance)
        size = PoolPage.size(limit, cpus)
        pool = kernel.objects.create(Kind.POOL, f"{spec.name}.pool", size, instance.number, instance.generation)
        stack_bytes = limit * (spec.pool.stack_kib << 10)
        stacks = kernel.objects.create(
            Kind.STACKS, f"{spec.name}.stacks", stack_bytes, instance.number, instance.generation
        )
        instance.objects = [pool, stacks]
        instance.page = PoolPage(Mapping(pool.fd, size), limit, cpus)
        instance.page.observe(kernel.observing, kernel.tracing)
        self._place(instance)
        instance.poll_cpu = self._poll_cpu(instance)
        granted = [pool, stacks, *instance.state_objects.values(), *instance.device_objects]
        fds = [kernel.objects.grant(o, instance.number, Rights.WRITE) for o in granted]
        fds += [kernel.objects.grant(o, instance.number, Rights.READ) for o in instance.tokens.values()]
        message = {
            "do": "service",
            "name": spec.name,
            "number": process.number,
            "module": spec.module,
            "language": spec.language.value,
            "options": spec.options,
            "host_paths": [*process.host_paths],
            "owner": kernel.owner,
            "calls": [*spec.calls],
            "members": [m.name for m in process.members if m.spec.language is Language.PYTHON],
            "callers": {
                i.name: self.process_of(i.name).number for i in self.instances.values() if spec.name in i.spec.calls
            },
            "objects": {key: made.size for key, made in instance.state_objects.items()},
            "tokens": {key: made.size for key, made in instance.tokens.items()},
            "devices": [[d.name, d.kind.value, d.size] for d in kernel.composition.devices_of(spec)],
            "poll_cpu": instance.poll_cpu,
            "pool": {
                "initial": spec.pool.initial,
                "high": spec.pool.high,
                "low": spec.pool.low,
                "reserve": spec.pool.reserve,
                "limit": limit,
                "stack_kib": spec.pool.stack_kib,
            },
        }
        process.request(message, then, fds)
        for fd in fds:
            os.close(fd)

    def _limit(self, instance: Instance) -> int:
        return instance.spec.pool.limit

    def _poll_cpu(self, instance: Instance) -> int:
        """CPU of the dedicated poller of an IC1 service; `NO_POLLER` where it runs as IC2."""
        spec = instance.spec
        if spec.isolation is not Isolation.IC1:
            return NO_POLLER
        asked = spec.placement.cpu
        others = [other for other in self.instances.values() if other is not instance]
        polled = [other.poll_cpu for other in others if other.polled]
        placed = [other.spec.placement for other in others if other.spec.placement.cpu is not None]
        if asked is None:  # whoever asks for a CPU has it, even if started later
            polled += [place.cpu for place in placed if place.kind is PlacementKind.POLLER and place.cpu is not None]
        cpu = poller_cpu(asked, self._kernel.cpus, polled, [place.cpu for place in placed if place.cpu is not None])
        if cpu == NO_POLLER:
            self._kernel.serial.line("core", f"{spec.name}: no CPU to dedicate, IC1 runs as IC2")
        return cpu

    def _place(self, instance: Instance) -> None:
        placement = instance.spec.placement
        assert instance.page is not None
        if placement.kind is PlacementKind.SAME_CORE:
            instance.page.place(SAME_CORE, ANYWHERE)
        elif placement.kind is PlacementKind.CPU and placement.cpu is not None:
            instance.page.place(PINNED, placement.cpu)
        else:
            instance.page.place(FREE, ANYWHERE)

    def tell(self, process: ServiceProcess, message: Message) -> None:
        """Send what needs no reply: in order, and however slowly the service reads."""
        if process.control is None or (process.backlog and process.backlog[-1] == message):
            return
        process.backlog.append(message)
        if len(process.backlog) == 1:
            self._flush(process)

    def _flush(self, process: ServiceProcess) -> None:
        if not process.flush():
            self._kernel.loop.later(FLUSH_SECONDS, lambda: self._flush(process))

    # ---- watching

    def _receive(self, process: ServiceProcess, control: Channel) -> None:
        try:
            received = control.recv_nowait()
        except ChannelClosed:
            self._kernel.loop.forget(control)
            return
        if received is None:
            return
        message, fds = received
        for fd in fds:
            os.close(fd)
        then = process.pending.pop(message.get("serial", 0), None)
        if then is not None:
            then(message)

    def _kill(self, process: ServiceProcess) -> None:
        if process.spawned is not None:
            process.spawned.kill()

    def _died(self, process: ServiceProcess, spawned: Spawned) -> None:
        """The pidfd says that the process has ended."""
        kernel = self._kernel
        kernel.loop.forget(spawned.pidfd)
        status = spawned.reap(block=False)
        os.close(spawned.pidfd)
        kernel.leave_group(process.name, spawned)
        control = process.control
        process.spawned = None
        if process.state is not State.STOPPED:
            cause = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
            kernel.serial.line("core", f"{process.name} died ({cause}), generation {process.members[0].generation}")
        if control is not None:
            self._lost(process, control)

    def _lost(self, process: ServiceProcess, control: Channel) -> None:
        """Clean up after a generation and arrange the next."""
        kernel = self._kernel
        kernel.loop.forget(control)
        control.close()
        process.control = None
        process.backlog.clear()
        stopped = process.state is State.STOPPED
        process.state = State.STOPPED if stopped else State.BACKOFF
        now = time.monotonic()
        process.deaths = [at for at in process.deaths if now - at < 60.0] + [now]
        process.total_deaths += 1
        process.young_deaths = process.young_deaths + 1 if now - process.up_at < YOUNG_SECONDS else 0
        kernel.service_died(process)
        pending, process.pending = process.pending, {}
        for then in pending.values():
            then({"error": "died"})
        for instance in process.members:
            for made in instance.objects:
                kernel.objects.release(made)
            instance.objects = []
            instance.page = None  # its counters died with it
        if not stopped:
            self._restart_later(process, now)

    def _restart_later(self, process: ServiceProcess, now: float) -> None:
        delay = restart_delay(process.members[0].spec.restart, process.deaths, process.young_deaths, now)
        if delay is None:
            process.state = State.FAILED
            self._kernel.serial.line("core", f"{process.name} died too often and stays down")
            return
        self._kernel.loop.later(delay, lambda: self._again(process))

    def _again(self, process: ServiceProcess) -> None:
        if process.state is State.BACKOFF and not self._kernel.stopping:
            self.start(process, lambda up: None)

    def watch_hangs(self) -> None:
        """Kill a service with a handler that runs longer than its limit; look again later."""
        for process in self.processes.values():
            if process.spawned is not None and process.state is State.UP:
                for instance in process.members:
                    self._check_hang(process, instance)

    def _check_hang(self, process: ServiceProcess, instance: Instance) -> None:
        limit, page = instance.spec.handler_limit_ms, instance.page
        if not limit or page is None:
            return
        longest = self._kernel.policy.seconds(page.longest_running())
        if longest * 1000 > limit:
            self._kernel.serial.line("core", f"{instance.name}: a handler ran for {longest:.1f} s, restarting it")
            self._kill(process)

    # ---- stopping

    def stop(self, process: ServiceProcess) -> None:
        """Ask a process to end; the caller kills what stays."""
        process.state = State.STOPPED
        self.tell(process, {"do": "stop"})
