"""The core kernel: clients, grants and binding. Mechanism only; it knows neither files nor process images.

One loop thread owns everything here. A *client* is a process that calls services: an attached one, a program started
by `run`, or a service process (services are clients of each other). The core learns who a client is from the host
(credentials of its socket, a pidfd), never from what it says.

What a client may ask over its channel (`Kernel.requests`): `attach` once; then `open` a service it may call (gets the
frames object), `bind` stacks to slots, a `buffer` for large payloads, a read-only `token`. The owner of the system may
also ask for `status`, `logs`, `run`, `observe`, `down`. A malformed or refused request is answered with an error and
costs nothing; a client that breaks the channel's own rules is cut off.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from corekernel import namespaces, sched
from corekernel.attachment import Attachment
from corekernel.builtin import CoreService
from corekernel.channel import Channel, ChannelClosed, ChannelError, Message, close_all
from corekernel.composition import Composition, Isolation, Language, Pool, Service
from corekernel.confine import Confinement
from corekernel.dispatcher import (
    ABI_VERSION,
    MAX_SLOTS,
    Frames,
    Mapping,
    Variant,
    WaitPolicy,
    cpus,
    measure_tick_khz,
)
from corekernel.errors import Denied, HmkError, NoSuchService, TooBig
from corekernel.host import Host
from corekernel.objects import Kind, KernelObject, ObjectTable, Rights
from corekernel.loop import Loop
from corekernel.owner import Owner, Request
from corekernel.pools import STACK_KIB, Pools
from corekernel.port import MAX_BULK_BYTES, Port
from corekernel.process_table import LIVE, ProcessTable
from corekernel.process_table import SIZE as PROCESS_TABLE_SIZE
from corekernel.serial import Serial
from corekernel.supervisor import HANG_PERIOD, Instance, ServiceProcess, State, Supervisor
from corekernel.timer import Timers
from corekernel.zygote import Spawned, Zygote, ZygoteDied

FIRST_CLIENT = 100
FIRST_SERVICE_UID = 61000
FIRST_CLIENT_UID = 62000
CLIENT_UIDS = 1000
MAX_CLIENTS = 1000
CHANNEL_NUMBER = 3
DEFAULT_BUFFER_LIMIT = 256 << 20
STOP_SECONDS = 1.0
CORE_SERVICE = Service(
    "core", "corekernel", "core", Isolation.IC0, pool=Pool(initial=2, reserve=2, limit=2048), handler_limit_ms=0
)


@dataclass(eq=False)
class Opened:
    """A client's frames object for one service, as the core holds it."""

    instance: Instance
    generation: int
    made: KernelObject
    frames: Frames
    sent: bool = False
    bound: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Client:
    """A process that may call services."""

    number: int
    channel: Channel
    uid: int
    name: str = ""
    pidfd: int | None = None
    host_pid: int = 0
    service: ServiceProcess | None = None
    spawned: Spawned | None = None
    parent: int = 0
    greeted: bool = False
    trusted: bool = False
    opened: dict[str, Opened] = field(default_factory=dict)
    buffer_limit: int = DEFAULT_BUFFER_LIMIT
    exit_status: int = 0

    @property
    def calls(self) -> set[str] | None:
        """Services it may call when it is a service; None for an ordinary client."""
        if self.service is None:
            return None
        return {name for member in self.service.members for name in member.spec.calls}


class Kernel:
    """The core of one running system."""

    def __init__(self, name: str, composition: Composition, owner: int, zygote: Zygote, variant: Variant) -> None:
        self.name = name
        self.composition = composition
        self.owner = owner
        self.zygote = zygote
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
        self.clients: dict[int, Client] = {}
        self.stopping = False
        self.observing = False
        self.tracing = False
        self.started_ns = time.monotonic_ns()
        self.ready_ns = 0
        self._next_client = FIRST_CLIENT
        self._next_uid = 0
        self._times: sched.Times = {}
        self._waiting_open: dict[str, list[Callable[[], None]]] = {}
        self._waiting_end: dict[int, list[Callable[[int], None]]] = {}
        self.core_pid = namespaces.host_pid()
        self.host: Host | None = None
        table = self.objects.create(Kind.STATE, "processes", PROCESS_TABLE_SIZE, 0)
        self.process_object = table
        self._table_memory = Mapping(table.fd, PROCESS_TABLE_SIZE)
        self.processes = ProcessTable(memoryview(self._table_memory.memory))
        self.supervisor.plan((CORE_SERVICE, *composition.services))
        self._assign()
        self._requests: dict[str, Request] = {
            "open": self._open,
            "bind": self._bind,
            "buffer": self._buffer,
            "token": self._token,
            **Owner(self).requests(),
        }

    def _assign(self) -> None:
        """User ids of service processes, and the state objects that outlive them."""
        for index, process in enumerate(self.supervisor.processes.values()):
            process.uid = FIRST_SERVICE_UID + index if self.root else None
            for instance in process.members:
                for name, size in _state_of(instance).items():
                    instance.state_objects[name] = (
                        self.process_object
                        if name == "processes"
                        else self.objects.create(Kind.STATE, f"{instance.name}.{name}", size, instance.number)
                    )

    def timing(self) -> Message:
        """What every process needs to know of time and waiting."""
        return {"tick_khz": self.tick_khz, "cpus": self.cpus, "variant": int(self.variant)}

    # ---- listening

    def listen(self, sock: socket.socket) -> None:
        """Accept clients on a bound, listening socket."""
        self.loop.watch(sock, lambda: self._accept(sock))

    def _accept(self, sock: socket.socket) -> None:
        connection, _ = sock.accept()
        channel = Channel(connection)
        try:
            peer, pidfd = channel.peer(), channel.peer_pidfd()
        except ChannelError:
            channel.close()
            return
        client_uids = range(FIRST_CLIENT_UID, FIRST_CLIENT_UID + CLIENT_UIDS)
        allowed = self.composition.attach.allows(peer.uid, self.owner) or (self.root and peer.uid in client_uids)
        if not allowed or len(self.clients) >= MAX_CLIENTS:
            text = f"user {peer.uid} may not attach here" if not allowed else "too many clients"
            self._refuse(channel, pidfd, text)
            return
        client = self._new_client(channel, peer.uid)
        client.pidfd = pidfd
        client.trusted = peer.uid in (self.owner, 0)
        client.host_pid = _host_pid(pidfd, peer.pid)
        if pidfd is not None:
            self.loop.watch(pidfd, lambda: self.client_gone(client))

    def _refuse(self, channel: Channel, pidfd: int | None, text: str) -> None:
        try:
            channel.send_nowait({"error": "denied", "text": text})
        except ChannelError:
            pass
        channel.close()
        if pidfd is not None:
            os.close(pidfd)

    def _new_client(self, channel: Channel, uid: int) -> Client:
        client = Client(self._next_client, channel, uid)
        self._next_client += 1
        self.clients[client.number] = client
        self.loop.watch(channel, lambda: self._receive(client))
        return client

    def service_client(self, process: ServiceProcess) -> tuple[Client, Channel]:
        """The client half of a service process, and the end of its channel that the process gets."""
        ours, theirs = Channel.pair()
        client = Client(process.number, ours, process.uid if process.uid is not None else os.getuid(), process.name)
        client.service = process
        process.client = client
        self.clients[client.number] = client
        self.loop.watch(ours, lambda: self._receive(client))
        return client, theirs

    # ---- requests

    def _receive(self, client: Client) -> None:
        try:
            received = client.channel.recv_nowait()
        except ChannelClosed:
            self.client_gone(client)
            return
        except ChannelError as error:
            self.answer(client, {}, {"error": "bad-request", "text": str(error)})
            return
        if received is None:
            return
        message, fds = received
        try:
            self._serve(client, message, fds)
        except HmkError as error:
            self.answer(client, message, {"error": _code(error), "text": str(error)})
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            self.answer(client, message, {"error": "bad-request", "text": f"malformed request: {error!r}"})
        finally:
            close_all(fds)

    def _serve(self, client: Client, message: Message, fds: list[int]) -> None:
        what = message.get("do")
        if what == "attach":
            self._attach(client, message)
            return
        if not client.greeted:
            raise Denied("attach first")
        handler = self._requests.get(str(what))
        if handler is None:
            raise ValueError(f"unknown request {what!r}")
        handler(client, message, fds)

    def answer(self, client: Client, request: Message, reply: Message, fds: list[int] | None = None) -> None:
        """Reply to a request; a client that does not read its replies is cut off."""
        try:
            client.channel.send_nowait({**reply, "serial": request.get("serial", 0)}, fds or [])
        except ChannelError:
            self.loop.soon(lambda: self.client_gone(client))

    def _attach(self, client: Client, message: Message) -> None:
        if client.greeted:
            raise Denied("attached already")
        if message.get("abi") != ABI_VERSION:
            raise ValueError(f"this system speaks ABI {ABI_VERSION}")
        client.greeted = True
        if client.service is None and client.spawned is None:
            client.name = str(message.get("name", ""))[:32]
            self._enter_process(client)
        services = {
            i.name: [self.supervisor.process_of(i.name).number, i.spec.interface]
            for i in self.supervisor.instances.values()
            if self._may_call(client, i)
        }
        self.answer(
            client,
            message,
            {
                "client": client.number,
                **self.timing(),
                "services": services,
                "prebind": [name for name in self.composition.prebind if name in services],
            },
        )

    def _may_call(self, client: Client, instance: Instance) -> bool:
        if client.number == 0:
            return True
        calls = client.calls
        if calls is not None:
            return instance.name in calls
        allowed = instance.spec.clients
        return allowed if isinstance(allowed, bool) else client.uid in allowed

    def instance_for(self, client: Client, name: object) -> Instance:
        """The service a client names.

        Raises:
            NoSuchService: there is none.
            Denied: the client may not call it.
        """
        instance = self.supervisor.instances.get(str(name))
        if instance is None:
            raise NoSuchService(f"no service {name!r} in {self.composition.name}")
        if not self._may_call(client, instance):
            raise Denied(f"{client.name or client.number} may not call {name}")
        return instance

    def _open(self, client: Client, message: Message, fds: list[int]) -> None:
        instance = self.instance_for(client, message["service"])
        process = self.supervisor.process_of(instance.name)
        if process.state is State.FAILED or process.state is State.STOPPED:
            raise NoSuchService(f"service {instance.name} is down")
        if process.state is not State.UP or instance.generation <= int(message.get("after", -1)):
            waiting = self._waiting_open.setdefault(process.name, [])
            waiting.append(lambda: self._reopen(client, message))
            return
        opened = client.opened.get(instance.name)
        if opened is None or opened.generation != instance.generation:
            made = self.objects.create(
                Kind.FRAMES, f"frames.{client.number}.{instance.name}", Frames.SIZE, client.number,
                instance.generation,
            )  # fmt: skip
            opened = Opened(instance, instance.generation, made, Frames(made.fd))
            client.opened[instance.name] = opened
        fd = self.objects.grant(opened.made, client.number, Rights.WRITE)
        self.answer(client, message, {"generation": opened.generation}, [fd])
        os.close(fd)

    def _reopen(self, client: Client, message: Message) -> None:
        """A deferred `open`: the service is up again, or given up."""
        if client.number not in self.clients:
            return
        try:
            self._open(client, message, [])
        except HmkError as error:
            self.answer(client, message, {"error": _code(error), "text": str(error)})

    def _current(self, client: Client, message: Message) -> Opened:
        instance = self.instance_for(client, message["service"])
        opened = client.opened.get(instance.name)
        if opened is None:
            raise Denied(f"open {instance.name} first")
        return opened

    def _bind(self, client: Client, message: Message, fds: list[int]) -> None:
        opened = self._current(client, message)
        slots = [int(slot) for slot in message["slots"]]
        if len(slots) > 256 or not all(0 <= slot < MAX_SLOTS for slot in slots):
            raise ValueError(f"slots must be at most 256 numbers below {MAX_SLOTS}")
        if opened.generation != int(message["generation"]):
            raise Denied("that generation is gone")
        self.pools.bind(client, opened, slots, lambda reply: self.answer(client, message, reply))

    def _buffer(self, client: Client, message: Message, fds: list[int]) -> None:
        opened = self._current(client, message)
        slot, size = int(message["slot"]), int(message["size"])
        if not 0 < size <= MAX_BULK_BYTES or size % 4096:
            raise TooBig(f"a buffer takes 1 to {MAX_BULK_BYTES} bytes, in whole pages")
        if slot not in opened.bound or opened.generation != int(message["generation"]):
            raise Denied("that slot is not bound")
        used = self.objects.usage(client.number, Kind.BUFFER)
        if used + size > client.buffer_limit:
            raise TooBig(f"{used + size} bytes of buffers exceed the limit of {client.buffer_limit}")
        made = self.objects.create(Kind.BUFFER, f"buffer.{client.number}", size, client.number)
        process = self.supervisor.process_of(opened.instance.name)

        def shared(reply: Message) -> None:
            if "error" in reply:
                self.objects.release(made)
                self.answer(client, message, {"error": "died", "text": str(reply["error"])})
                return
            fd = self.objects.grant(made, client.number, Rights.WRITE)
            self.answer(client, message, {"size": size}, [fd])
            os.close(fd)

        fd = self.objects.grant(made, opened.instance.number, Rights.WRITE)
        request = {"do": "buffer", "service": opened.instance.name, "client": client.number}
        process.request({**request, "slot": slot, "size": size}, shared, [fd])
        os.close(fd)

    def _token(self, client: Client, message: Message, fds: list[int]) -> None:
        """A read-only token of the process table."""
        if message["object"] != "processes":
            raise NoSuchService(f"no public object {message['object']!r}")
        fd = self.objects.grant(self.process_object, client.number, Rights.READ)
        made = self.process_object
        self.answer(client, message, {"object": made.number, "size": made.size}, [fd])
        os.close(fd)

    # ---- lives and deaths

    def client_gone(self, client: Client) -> None:
        """A client has ended or closed its channel: nothing of it stays."""
        if self.clients.pop(client.number, None) is None:
            return
        self.loop.forget(client.channel)
        client.channel.close()
        if client.pidfd is not None:
            self.loop.forget(client.pidfd)
            os.close(client.pidfd)
            client.pidfd = None
        for process in self.supervisor.processes.values():
            if process.state in (State.UP, State.STARTING) and process is not client.service:
                process.tell({"do": "drop", "client": client.number})
        client.opened.clear()
        self.objects.forget(client.number)
        if client.service is None:
            self._ended(client)

    def _ended(self, client: Client) -> None:
        if client.spawned is not None:
            status = client.spawned.reap(block=False)
            if status is None:  # it closed its channel, and lives on
                self.loop.watch(client.spawned.pidfd, lambda: self._collect(client))
                return
            client.exit_status = status
            os.close(client.spawned.pidfd)
        self.processes.ended(client.number, client.exit_status)
        for tell in self._waiting_end.pop(client.number, []):
            tell(client.exit_status)
        if client.parent not in self.clients:
            record = self.processes.find(client.number)
            if record is not None:
                self.processes.decide(record, 1, record.reported, record.limits)
        self.processes_changed()

    def _collect(self, client: Client) -> None:
        assert client.spawned is not None
        self.loop.forget(client.spawned.pidfd)
        self._ended(client)

    def when_ended(self, number: int, tell: Callable[[int], None]) -> None:
        """Call `tell(status)` once a process has ended; 0 when it is not known."""
        record = self.processes.find(number)
        if record is not None and record.state == LIVE:
            self._waiting_end.setdefault(number, []).append(tell)
        else:
            tell(record.status if record is not None else 0)

    def signal_client(self, number: int, signal_number: int) -> bool:
        """Send a signal to a client process; False when there is none (or it cannot be reached)."""
        client = self.clients.get(number)
        if client is None or client.service is not None or client.pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(client.pidfd, signal_number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def usage(self, number: int) -> tuple[int, int] | None:
        """Bytes of buffers and of bound stacks on a client's account; None when there is no such client."""
        client = self.clients.get(number)
        if client is None:
            return None
        stacks = sum(
            len(o.bound) * STACK_KIB[o.instance.spec.language.value] << 10 for o in client.opened.values()
        )
        return self.objects.usage(number, Kind.BUFFER), stacks

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
                process.tell({"do": "event"})

    def service_up(self, process: ServiceProcess) -> None:
        """A generation is ready: answer those who wait for it."""
        self.processes_changed()
        for retry in self._waiting_open.pop(process.name, []):
            retry()

    def service_failed(self, process: ServiceProcess) -> None:
        """A service stays down: those who wait for it get their answer."""
        for retry in self._waiting_open.pop(process.name, []):
            retry()

    def service_died(self, process: ServiceProcess) -> None:
        """End every call in flight in a dead generation, and its own life as a client."""
        names = {member.name for member in process.members}
        for client in list(self.clients.values()):
            for name in names & set(client.opened):
                opened = client.opened.pop(name)
                for slot in opened.bound:
                    opened.frames.kill(slot)
                self.objects.release(opened.made)
        if process.client is not None:
            self.client_gone(process.client)
            process.client = None

    # ---- processes

    def spawn_service(
        self, entry: str, spec: Message, fds: list[int], confinement: Confinement, output: int
    ) -> Spawned:
        """Start a service process; on a helper thread."""
        stdio = (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), output, output)
        try:
            return self._with_zygote(lambda z: z.spawn(entry, spec, fds, confinement, stdio))
        finally:
            os.close(stdio[0])

    def _with_zygote(self, start: Callable[[Zygote], Spawned]) -> Spawned:
        try:
            return start(self.zygote)
        except ZygoteDied:
            self.zygote.restart()
            return start(self.zygote)

    def spawn_program(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        stdio: tuple[int, int, int] | None,
        parent: int,
        then: Callable[[Client | None, Exception | None], None],
    ) -> None:
        """Start a program as a client with a user id of its own and its channel open on descriptor 3."""
        ours, theirs = Channel.pair()
        uid = None
        if self.root:
            uid = FIRST_CLIENT_UID + self._next_uid % CLIENT_UIDS
            self._next_uid += 1
        client = self._new_client(ours, uid if uid is not None else os.getuid())
        client.name = os.path.basename(argv[0])[:32]
        client.parent = parent
        environment = {**env, "HMK_SYSTEM": self.name, "HMK_FD": str(CHANNEL_NUMBER)}

        console = None if stdio else self.output_of(client.name)
        null = None if stdio else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if console is not None and null is not None:
            stdio = (null, console, console)

        def start(zygote: Zygote) -> Spawned:
            return zygote.spawn_exec(
                argv, environment, cwd, {CHANNEL_NUMBER: theirs.fileno()}, Confinement.client(uid), stdio
            )

        def started(spawned: Spawned | None, error: Exception | None) -> None:
            theirs.close()
            close_all([fd for fd in (console, null) if fd is not None])
            if spawned is None:
                self.client_gone(client)
                then(None, error)
                return
            client.spawned = spawned
            client.host_pid = spawned.host_pid
            client.pidfd = os.dup(spawned.pidfd)
            self.loop.watch(client.pidfd, lambda: self.client_gone(client))
            self._enter_process(client)
            then(client, None)

        self.loop.aside(lambda: self._with_zygote(start), started)

    def _enter_process(self, client: Client) -> None:
        """A process is in the table from its start, whether or not it ever attaches."""
        now = time.monotonic_ns()
        if not self.processes.born(client.number, client.parent, client.uid, client.host_pid, now, client.name):
            raise TooBig("the process table is full")
        self.processes_changed()

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
        return [i.spec.placement.cpu for i in self.supervisor.instances.values() if i.spec.placement.cpu is not None]

    def _look_for_hangs(self) -> None:
        self.supervisor.watch_hangs()
        self.loop.later(HANG_PERIOD, self._look_for_hangs)

    def shut_down(self) -> None:
        """Stop services in reverse order of their start, then the loop."""
        if self.stopping:
            return
        self.stopping = True
        for client in list(self.clients.values()):
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


def _code(error: HmkError) -> str:
    for kind, code in ((Denied, "denied"), (NoSuchService, "no-service"), (TooBig, "too-big")):
        if isinstance(error, kind):
            return code
    return "failed"


def _host_pid(pidfd: int | None, fallback: int) -> int:
    """A client's pid as the host's /proc shows it (0 when it cannot be told)."""
    if pidfd is None:
        return fallback
    try:
        with open(f"/proc/self/fdinfo/{pidfd}") as info:
            fields: dict[str, Any] = dict(line.split(":", 1) for line in info if ":" in line)
    except OSError:
        return fallback
    return max(0, int(str(fields.get("Pid", fallback)).split()[0]))
