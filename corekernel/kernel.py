"""The core kernel: what one running system consists of, its boot and its end.

Mechanism only; it knows neither files nor process images. One loop thread owns all state: objects and grants
(`objects.py`), clients and their requests (`clients.py`), stacks (`pools.py`), service processes (`supervisor.py`),
programs (`programs.py`). What must wait runs on helper threads and comes back to the loop.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable

from corekernel import namespaces, sched
from corekernel.attachment import Attachment
from corekernel.builtin import CoreService
from corekernel.channel import Channel, Message
from corekernel.clients import Clients
from corekernel.composition import Composition, DeviceKind, Isolation, Language, Pool, Service
from corekernel.confine import Confinement
from corekernel.dispatcher import Variant, WaitPolicy, cpus, measure_tick_khz
from corekernel.host import Host
from corekernel.loop import Loop
from corekernel.objects import KernelObject, Kind, ObjectTable
from corekernel.pools import Pools
from corekernel.port import Port
from corekernel.process_table import SIZE as PROCESS_TABLE_SIZE
from corekernel.process_table import ProcessTable
from corekernel.programs import Programs
from corekernel.serial import Serial
from corekernel.shared import Mapping
from corekernel.spawned import Spawned, ZygoteDied
from corekernel.supervisor import HANG_PERIOD, Instance, ServiceProcess, Supervisor
from corekernel.timer import Timers
from corekernel.zygote import Zygote

FIRST_SERVICE_UID = 61000
PROCESS_MANAGER = "procmgr"  # alone may write what it decides to the process table
STOP_SECONDS = 1.0
CORE_SERVICE = Service(
    "core",
    "corekernel",
    "core",
    Isolation.IC0,
    pool=Pool(initial=2, reserve=2, limit=2048),
    handler_limit_ms=0,
)


class Kernel:
    """The core of one running system."""

    def __init__(self, name: str, composition: Composition, owner: int, zygote: Zygote, variant: Variant) -> None:
        self.name = name
        self.composition = composition
        self.owner = owner
        self.zygote = zygote
        self.groups = zygote.groups
        self.client_memory = _client_memory(composition)
        self.variant = variant
        self.root = os.geteuid() == 0
        self.cpus = cpus()
        self.tick_khz = measure_tick_khz()
        self.policy = WaitPolicy(self.tick_khz, self.cpus, variant)
        self.loop = Loop()
        self.objects = ObjectTable()
        self.serial = Serial()
        self.timers = Timers()
        self.supervisor = Supervisor(self)
        self.pools = Pools(self)
        self.stopping = False
        self.observing = False
        self.tracing = False
        self.started_ns = time.monotonic_ns()
        self.ready_ns = 0
        self._times: sched.Times = {}
        self._stray = 0
        self.core_pid = namespaces.host_pid()
        self.keeper_pid = namespaces.host_parent_pid()
        self.host: Host | None = None
        table = self.objects.create(Kind.STATE, "processes", PROCESS_TABLE_SIZE, 0)
        self.process_object = table
        self._table_memory = Mapping(table.fd, PROCESS_TABLE_SIZE)
        self.processes = ProcessTable(self._table_memory.memory)
        self.supervisor.plan((CORE_SERVICE, *composition.services))
        self._assign()
        self.clients = Clients(self)
        self.programs = Programs(self)

    def _assign(self) -> None:
        """User ids of service processes, and the objects that outlive them: their state, and memory devices."""
        memory = {
            device.name: self.objects.create(Kind.STATE, f"device.{device.name}", device.size, 0)
            for device in self.composition.devices
            if device.kind is DeviceKind.RAM
        }
        for index, process in enumerate(self.supervisor.processes.values()):
            process.uid = FIRST_SERVICE_UID + index if self.root else None
            for instance in process.members:
                instance.device_objects = [memory[name] for name in instance.spec.devices if name in memory]
                for name, size in _state_of(instance).items():
                    if name != "processes":
                        made = self.objects.create(Kind.STATE, f"{instance.name}.{name}", size, instance.number)
                        instance.state_objects[name] = made
                    elif instance.name == PROCESS_MANAGER:
                        instance.state_objects[name] = self.process_object
                    else:
                        instance.tokens[name] = self.process_object

    def timing(self) -> Message:
        """What every process needs to know of time and waiting."""
        return {"tick_khz": self.tick_khz, "cpus": self.cpus, "variant": int(self.variant)}

    def output_of(self, name: str) -> int:
        """A descriptor whose lines go to the serial console under a name."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        pending = bytearray()

        def readable() -> None:
            try:
                data = os.read(reading, 65536)
            except BlockingIOError:
                return
            pending.extend(data)
            *lines, rest = pending.split(b"\n")
            if not data and rest:
                lines, rest = [*lines, rest], bytearray()
            for line in lines:
                self.serial.line(name, line[:4096].decode("utf-8", "replace"))
            pending[:] = rest[-65536:]
            if not data:
                self.loop.forget(reading)
                os.close(reading)

        self.loop.soon(lambda: self.loop.watch(reading, readable))
        return writing

    # ---- lives and deaths

    def write_object(self, made: KernelObject, offset: int, words: bytes) -> None:
        """Change words of the process table, already checked."""
        assert made is self.process_object
        self._table_memory.memory[offset : offset + len(words)] = words

    def port_of_core(self, service: str, timeout: float) -> Port:
        """The core's own way to a service, on stacks that are bound beforehand."""
        assert self.host is not None
        return self.host.port_from("core", service, timeout)

    def processes_changed(self) -> None:
        """Tell whoever keeps the process table that the core wrote to it."""
        for process in self.supervisor.processes.values():
            if any("processes" in member.state_objects for member in process.members):
                self.supervisor.tell(process, {"do": "event"})

    def service_died(self, process: ServiceProcess) -> None:
        """End every call in flight in a dead generation, and its own life as a client."""
        self.clients.end_calls({member.name for member in process.members})
        if process.client is not None:
            self.clients.gone(process.client)
            process.client = None

    # ---- processes

    def spawn_service(
        self, entry: str, spec: Message, fds: list[int], confinement: Confinement, output: int
    ) -> Spawned:
        """Start a service process; on a helper thread."""
        stdio = (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), output, output)
        try:
            return self.with_zygote(lambda z: z.spawn(entry, spec, fds, confinement, stdio))
        finally:
            os.close(stdio[0])

    def with_zygote(self, start: Callable[[Zygote], Spawned]) -> Spawned:
        """Start a process, with another zygote if the one at hand has just died; on a helper thread."""
        try:
            return start(self.zygote)
        except ZygoteDied:
            self.zygote.restart()
            return start(self.zygote)

    def leave_group(self, name: str, spawned: Spawned) -> None:
        """Let go of an ended process's control group, and say so if the host killed somebody in it."""
        if spawned.group is None:
            return

        def left(kills: int | None, error: Exception | None) -> None:
            if kills:
                self.serial.line("core", f"{name} ran into its memory limit: the host killed {kills} of its processes")

        self.loop.aside(spawned.group.retire, left)

    def host_here(self, control: Channel, outgoing: Channel) -> None:
        """Run the services of class IC0, and the core's own operations, in this process, on a control thread."""

        def body() -> None:
            attachment = Attachment.greet(outgoing, "core")
            self.host = Host(control, attachment, self.policy, {"core": CoreService(self)})
            self.host.run()

        threading.Thread(target=body, name="control", daemon=True).start()

    # ---- life of the system

    def boot(self, then: Callable[[str], None]) -> None:
        """Start everything in order; `then("")`, or what failed."""
        waiting = list(self.supervisor.processes.values())

        def step(up: bool = True) -> None:
            if not up:
                then("a service did not start; the console says why")
            elif waiting:
                self.supervisor.start(waiting.pop(0), step)
            else:
                self.ready_ns = time.monotonic_ns()
                self.pools.prepare()
                self._watch_zygotes()
                self._look_at_load()
                self._look_for_hangs()
                then("")

        step()

    def _look_at_load(self) -> None:
        before, self._times = self._times, sched.read_times()
        load = sched.load_between(before, self._times)
        if before and load.active:
            target = sched.promotion_target(load, self._dedicated())
            for instance in self.supervisor.instances.values():
                if instance.page is not None and instance.spec.placement.kind.value == "free":
                    instance.page.promote_to(target)
        self.loop.later(sched.next_period(load), self._look_at_load)

    def _dedicated(self) -> list[int]:
        return [instance.poll_cpu for instance in self.supervisor.instances.values() if instance.polled]

    def _watch_zygotes(self) -> None:
        """Replace a zygote as soon as it dies: the other one repairs the loss."""
        for pidfd in set(self.zygote.pidfds):
            self.loop.watch(pidfd, self._zygote_died)

    def _zygote_died(self) -> None:
        for pidfd in set(self.zygote.pidfds):
            self.loop.forget(pidfd)
        self.loop.aside(self.zygote.restart, self._zygotes_again)

    def _zygotes_again(self, done: None, error: Exception | None) -> None:
        if error is not None:
            self.serial.line("core", f"nothing more can be started: {error}")
            return
        self.serial.line("core", "a zygote died and was replaced")
        self._watch_zygotes()

    def _reap_strays(self) -> None:
        """Collect orphans of programs, which the core inherits as init: what nobody has by the second look."""
        ended = None
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        stray = ended.si_pid if ended is not None else 0
        if stray and stray == self._stray:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(stray, os.WNOHANG)
            self.loop.soon(self._reap_strays)
        self._stray = stray

    def _look_for_hangs(self) -> None:
        self.supervisor.watch_hangs()
        self._reap_strays()
        if self.groups.retired:
            self.loop.aside(self.groups.collect, lambda done, error: None)
        if not self.groups.enforces("memory"):
            self.programs.watch_memory()
        self.loop.later(HANG_PERIOD, self._look_for_hangs)

    def shut_down(self) -> None:
        """Stop services in reverse order of their start, then the loop."""
        if self.stopping:
            return
        self.stopping = True
        for client in list(self.clients.by_number.values()):
            if client.spawned is not None:
                client.spawned.kill()
        remaining = [p for p in reversed(self.supervisor.processes.values()) if p.spawned is not None]
        for process in remaining:
            self.supervisor.stop(process)
        give_up = time.monotonic() + STOP_SECONDS

        def check() -> None:
            left = [p for p in remaining if p.spawned is not None]
            if not left:
                self.loop.stop()
            elif time.monotonic() > give_up:
                for process in left:
                    self.supervisor._kill(process)
                self.loop.stop()
            else:
                self.loop.later(0.005, check)

        check()


def _state_of(instance: Instance) -> dict[str, int]:
    """Names and sizes of the objects in which a service keeps what must outlive it (`STATE` in its module)."""
    if instance.spec.language is Language.C or instance.name == "core":
        return {}
    module = importlib.import_module(f"{instance.spec.module}.service")
    return dict(getattr(module, "STATE", {}))


def _client_memory(composition: Composition) -> int:
    """Bytes that a client may use unless told otherwise: the memory manager's policy (`CLIENT_BYTES` in its module).

    Without one a client may use as much as the whole system.
    """
    everything = composition.limits.memory_mib << 20
    for service in composition.services:
        if service.name == "memmgr" and service.language is Language.PYTHON:
            module = importlib.import_module(f"{service.module}.service")
            return int(getattr(module, "CLIENT_BYTES", everything))
    return everything
