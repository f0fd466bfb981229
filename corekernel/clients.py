"""Clients: who may attach, and what an attached process may ask of the core.

A *client* is a process that calls services: one that attached, a program started by `run`, or a service process
(services are clients of each other). The core learns who a client is from the host (credentials of its socket,
a pidfd), never from what it says.

Over its channel a client says `attach` once; then it may ask for what any client may have (`requests.py`), and the
owner of the system for more (`owner.py`). A malformed or refused request is answered with an error and changes nothing;
a client that does not read its answers is cut off. When a client goes, all that was on its account goes.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corekernel.channel import Channel, ChannelClosed, ChannelError, Message, MessageTooBig, close_all
from corekernel.dispatcher import ABI_VERSION
from corekernel.errors import Denied, HmkError, NoSuchService
from corekernel.objects import Kind
from corekernel.owner import Owner, Request
from corekernel.requests import Opened, Requests, refusal
from corekernel.spawned import Spawned
from corekernel.supervisor import Instance, ServiceProcess, State

if TYPE_CHECKING:
    from corekernel.kernel import Kernel

FIRST_CLIENT = 100
FIRST_CLIENT_UID = 62000
CLIENT_UIDS = 1000
MAX_CLIENTS = 1000
CLIENTS_PER_USER = 64
STACK_KIB = {"c": 32, "python": 48}


@dataclass(eq=False)
class Client:
    """A process that may call services."""

    number: int
    channel: Channel
    uid: int
    gid: int
    memory_limit: int
    name: str = ""
    pidfd: int | None = None
    host_pid: int = 0
    service: ServiceProcess | None = None
    program: bool = False
    spawned: Spawned | None = None
    parent: int = 0
    greeted: bool = False
    trusted: bool = False
    opened: dict[str, Opened] = field(default_factory=dict)
    exit_status: int = 0

    @property
    def calls(self) -> set[str] | None:
        """Services it may call when it is a service; None for an ordinary client."""
        if self.service is None:
            return None
        return {name for member in self.service.members for name in member.spec.calls}


class Clients:
    """All clients of a system, by number, and their requests. Used on the core's loop thread only."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.by_number: dict[int, Client] = {}
        self._next_client = FIRST_CLIENT
        self._requests: dict[str, Request] = {
            **Requests(kernel).requests(),
            **Owner(kernel).requests(),
        }

    # ---- listening

    def listen(self, sock: socket.socket) -> None:
        """Accept clients on a bound, listening socket."""
        self._kernel.loop.watch(sock, lambda: self._accept(sock))

    def _accept(self, sock: socket.socket) -> None:
        connection, _ = sock.accept()
        channel = Channel(connection)
        try:
            peer, pidfd = channel.peer(), channel.peer_pidfd()
        except ChannelError:
            channel.close()
            return
        client_uids = range(FIRST_CLIENT_UID, FIRST_CLIENT_UID + CLIENT_UIDS)
        allowed = self._kernel.composition.attach.allows(peer.uid, self._kernel.owner) or (
            self._kernel.root and peer.uid in client_uids
        )
        if not allowed:
            self._refuse(channel, pidfd, f"user {peer.uid} may not attach here")
            return
        if self._crowded(peer.uid):
            self._refuse(channel, pidfd, "too many clients")
            return
        client = self.new(channel, peer.uid, peer.gid)
        client.pidfd = pidfd
        client.trusted = peer.uid in (self._kernel.owner, 0)
        client.host_pid = _host_pid(pidfd, peer.pid)
        if pidfd is not None:
            self._kernel.loop.watch(pidfd, lambda: self.gone(client))

    def _crowded(self, uid: int) -> bool:
        """Whether there is no room for another client; a program's user can fill its own share only."""
        if len(self.by_number) >= MAX_CLIENTS:
            return True
        if uid in (self._kernel.owner, 0):
            return False
        return sum(1 for client in self.by_number.values() if client.uid == uid) >= CLIENTS_PER_USER

    def _refuse(self, channel: Channel, pidfd: int | None, text: str) -> None:
        with contextlib.suppress(ChannelError):
            channel.send_nowait({"error": "denied", "text": text})
        channel.close()
        if pidfd is not None:
            os.close(pidfd)

    def new(self, channel: Channel, uid: int, gid: int) -> Client:
        """A new ordinary client on a channel."""
        client = Client(self._next_client, channel, uid, gid, self._kernel.client_memory)
        self._next_client += 1
        self.by_number[client.number] = client
        self._kernel.loop.watch(channel, lambda: self._receive(client))
        return client

    def of_service(self, process: ServiceProcess) -> tuple[Client, Channel]:
        """The client half of a service process, and the end of its channel that the process gets."""
        ours, theirs = Channel.pair()
        uid = process.uid if process.uid is not None else os.getuid()
        client = Client(process.number, ours, uid, uid, self._kernel.client_memory, process.name)
        client.service = process
        process.client = client
        self.by_number[client.number] = client
        self._kernel.loop.watch(ours, lambda: self._receive(client))
        return client, theirs

    # ---- requests

    def _receive(self, client: Client) -> None:
        try:
            received = client.channel.recv_nowait()
        except ChannelClosed:
            self.gone(client)
            return
        except ChannelError as error:
            self.answer(client, {}, {"error": "bad-request", "text": str(error)})
            return
        if received is None:
            return
        self._handle(client, *received)

    def _handle(self, client: Client, message: Message, fds: list[int]) -> None:
        try:
            self._serve(client, message, fds)
        except HmkError as error:
            self.answer(client, message, refusal(error))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
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

    def again(self, client: Client, message: Message) -> None:
        """Handle a request once more, unless who asked has gone."""
        if self.by_number.get(client.number) is client:
            self._handle(client, message, [])

    def answer(self, client: Client, request: Message, reply: Message, fds: list[int] | None = None) -> None:
        """Reply to a request; a client that does not read its replies is cut off."""
        serial = request.get("serial")
        serial = serial if isinstance(serial, int) else 0
        try:
            client.channel.send_nowait({**reply, "serial": serial}, fds or [])
        except MessageTooBig:
            self.answer(client, {"serial": serial}, {"error": "too-big", "text": "the answer exceeds a message"})
        except ChannelError:
            self._kernel.loop.soon(lambda: self.gone(client))

    def _attach(self, client: Client, message: Message) -> None:
        if client.greeted:
            raise Denied("attached already")
        if message.get("abi") != ABI_VERSION:
            raise ValueError(f"this system speaks ABI {ABI_VERSION}")
        if client.service is None and not client.program:
            client.name = printable(str(message.get("name", "")))
            self._kernel.programs.enter(client)
        client.greeted = True
        services = {
            i.name: [self._kernel.supervisor.process_of(i.name).number, i.spec.interface]
            for i in self._kernel.supervisor.instances.values()
            if self._may_call(client, i)
        }
        # A service binds each link itself: only then is it prepared to be called back while it waits.
        prebind = self._kernel.composition.prebind if client.service is None else ()
        self.answer(
            client,
            message,
            {
                "client": client.number,
                **self._kernel.timing(),
                "services": services,
                "prebind": [name for name in prebind if name in services],
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
        instance = self._kernel.supervisor.instances.get(str(name))
        if instance is None:
            raise NoSuchService(f"no service {name!r} in {self._kernel.composition.name}")
        if not self._may_call(client, instance):
            raise Denied(f"{client.name or client.number} may not call {name}")
        return instance

    def gone(self, client: Client) -> None:
        """A client has ended or closed its channel: nothing of it stays."""
        if self.by_number.get(client.number) is not client:
            return
        del self.by_number[client.number]
        self._kernel.loop.forget(client.channel)
        client.channel.close()
        if client.pidfd is not None:
            self._kernel.loop.forget(client.pidfd)
            os.close(client.pidfd)
            client.pidfd = None
        for process in self._kernel.supervisor.processes.values():
            if process.state in (State.UP, State.STARTING) and process is not client.service:
                self._kernel.supervisor.tell(process, {"do": "drop", "client": client.number})
        client.opened.clear()
        self._kernel.objects.forget(client.number)
        if client.service is None:
            self._kernel.programs.ended(client)

    def usage(self, number: int) -> tuple[int, int] | None:
        """Bytes of buffers and of bound stacks on a client's account; None when there is no such client."""
        client = self.by_number.get(number)
        if client is None:
            return None
        stacks = self._kernel.pools.held()
        kib = sum(held[number] * STACK_KIB[instance.spec.language.value] for instance, held in stacks)
        return self._kernel.objects.usage(number, Kind.BUFFER), kib << 10

    def end_calls(self, services: set[str]) -> None:
        """Services died: end every call in flight to them; their frames are of no use any more."""
        for client in list(self.by_number.values()):
            for name in services & set(client.opened):
                opened = client.opened.pop(name)
                for slot in opened.slots:
                    opened.frames.kill(slot)
                self._kernel.objects.release(opened.made)


def printable(name: str) -> str:
    """At most 32 characters that are one byte each wherever the name is shown."""
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in name[:32])


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
