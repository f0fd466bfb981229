"""What a process that calls services holds: its channel to the core, its frames, and each thread's links.

The shim (any client process) and the service host (a service calling other services) share this code; the core
makes no difference between them but for their rights.

* Threads ask the core side by side (`conversation.py`); calls never go there.
* A *session* is one (service, generation): a frames object and the slots of it that this process has given to its
  threads. When the service dies the core ends every slot, and the next call opens a new session.
* A thread's first call binds a stack in every pre-bound service, with one request; one that is down is left to its own
  first call, like any other service. On thread exit the slots, still bound, go back to the session for the next thread.
* A link carries one call. When it is busy (a signal handler interrupted a call) or abandoned (a deadline passed and
  the handler still runs), the thread takes a further slot.
* After a fork the child has nothing of this: it attaches again at its first call, as a client of its own.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corekernel import dispatcher
from corekernel.channel import Channel, ChannelClosed, ChannelError, Message, Unsendable
from corekernel.conversation import Conversation
from corekernel.dispatcher import Link, Variant, WaitPolicy
from corekernel.errors import CallError, DeadlineExceeded, Denied, HmkError, NoSuchService, TooBig
from corekernel.port import MAX_BULK_BYTES
from corekernel.session import Held, Session
from corekernel.shared import Mapping

GREET_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.02
SMALLEST_BUFFER = 64 << 10
SMALL_BUFFERS = 1 << 20
SLOTS_PER_REQUEST = 256
NORMAL = 1


class Detached(CallError):
    """The system has gone down, or it refused this process."""


class SessionDied(CallError):
    """The generation that was asked for is gone; there will be another."""


class NotBound(CallError):
    """The slot has no stack any more."""


_ERRORS: dict[str, type[HmkError]] = {
    "unbound": NotBound,
    "died": SessionDied,
    "denied": Denied,
    "no-service": NoSuchService,
    "too-big": TooBig,
}


@dataclass(frozen=True)
class Welcome:
    """What the core says to an attached process.

    `services` maps a name to (number of its process, interface); `prebind` names those whose stacks a thread gets at
    once.
    """

    client: int
    tick_khz: int
    cpus: int
    variant: Variant
    services: dict[str, tuple[int, str]]
    prebind: tuple[str, ...]


def _welcome(reply: Message) -> Welcome:
    return Welcome(
        int(reply["client"]),
        int(reply["tick_khz"]),
        int(reply["cpus"]),
        Variant(reply["variant"]),
        {str(name): (int(value[0]), str(value[1])) for name, value in reply["services"].items()},
        tuple(reply["prebind"]),
    )


def _error(reply: Message) -> HmkError:
    kind = _ERRORS.get(str(reply["error"]), CallError)
    return kind(str(reply.get("text", reply["error"])))


class Forgetful(Protocol):
    """Something that keeps a thread's links at hand."""

    def forget(self) -> None:
        """After a fork: the links belong to the parent."""
        ...


class Attachment:
    """One process's connection to a running system."""

    def __init__(
        self,
        channel: Channel,
        welcome: Welcome,
        name: str = "",
        reconnect: Callable[[], Channel] | None = None,
    ) -> None:
        self.channel = channel
        self.welcome = welcome
        self.name = name
        self.policy = WaitPolicy(welcome.tick_khz, welcome.cpus, welcome.variant)
        self._reconnect = reconnect
        self._conversation = Conversation(channel)
        self._ports: weakref.WeakSet[Forgetful] = weakref.WeakSet()
        self._start_afresh()

    @classmethod
    def greet(cls, channel: Channel, name: str = "", reconnect: Callable[[], Channel] | None = None) -> Attachment:
        """Introduce this process over a connected channel.

        Args:
            channel: connected to the core.
            name: what to call this process in `status`.
            reconnect: how a forked child reaches the core; None if it cannot.

        Raises:
            Detached: the core refused, with its reason.
        """
        try:
            with contextlib.suppress(ChannelClosed):  # whoever refuses us may have said so already
                channel.send({"do": "attach", "abi": dispatcher.ABI_VERSION, "name": name})
            try:
                reply, _ = channel.recv(timeout=GREET_SECONDS)
            except ChannelClosed:  # a reset is told before what was said ahead of it
                reply, _ = channel.recv(timeout=GREET_SECONDS)
        except (ChannelError, TimeoutError) as error:
            raise Detached(f"the system does not answer: {error}") from error
        if "error" in reply:
            raise Detached(str(reply.get("text", reply["error"])))
        return cls(channel, _welcome(reply), name, reconnect)

    def _start_afresh(self) -> None:
        self._binding = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._sessions: dict[str, Session] = {}
        self._dead: dict[str, int] = {}
        self._local = threading.local()
        self._forked = False
        self._watched = -1

    def close(self) -> None:
        """Detach; calls in flight end as if the services had died."""
        self.channel.hang_up()
        self._end_calls()

    def watch(self) -> None:
        """End this process's calls when the core goes: nobody else would. A thread that sleeps until then."""
        # A descriptor of its own: the channel's number may be another's by the time the thread looks.
        self._watched = os.dup(self.channel.fileno())
        threading.Thread(target=self._watch, args=(self.channel, self._watched), name="hmk-watch", daemon=True).start()

    def _watch(self, channel: Channel, watched: int) -> None:
        poll = select.poll()
        poll.register(watched, select.POLLRDHUP)
        poll.poll()
        if self._watched == watched:
            self._watched = -1
        os.close(watched)
        if channel is self.channel:
            self._end_calls()

    def _end_calls(self) -> None:
        for session in list(self._sessions.values()):
            session.end()

    # ---- forks

    def add_port(self, port: Forgetful) -> None:
        """Remember a port, to reset it after a fork."""
        self._ports.add(port)

    def after_fork(self) -> None:
        """In a child: give up what is the parent's; the next call attaches again."""
        self.channel.close()
        if self._watched >= 0:
            os.close(self._watched)
        self._start_afresh()
        self._forked = True
        for port in self._ports:
            port.forget()

    def _attach_again(self) -> None:
        if self._reconnect is None:
            raise Detached("this process was forked from an attached one and has no way to attach itself")
        with self._locks.setdefault("", threading.Lock()):
            if self._forked:
                fresh = Attachment.greet(self._reconnect(), self.name)
                self.channel, self.welcome = fresh.channel, fresh.welcome
                self._conversation = fresh._conversation
                self._forked = False
                self.watch()

    def here(self) -> Welcome:
        """What the core said to this process; a forked child attaches first."""
        if self._forked:
            self._attach_again()
        return self.welcome

    # ---- requests to the core

    def ask(self, request: Message, fds: Sequence[int] = ()) -> tuple[Message, list[int]]:
        """Send one request to the core and return its reply and descriptors; other threads may ask meanwhile.

        Raises:
            Detached: the system is gone.
            TooBig: the request does not fit in a message.
            SessionDied, Denied, NoSuchService, TooBig, CallError: as the core says.
        """
        self.here()
        try:
            reply, received = self._conversation.ask(request, fds)
        except Unsendable:
            raise
        except (ChannelError, OSError) as error:
            raise Detached(f"the system is gone: {error}") from error
        if "error" in reply:
            raise _error(reply)
        return reply, received

    # ---- sessions and slots

    def session(self, service: str, until: float = math.inf) -> Session:
        """The session to the living generation of a service; waits while the service restarts.

        Args:
            service: its name.
            until: give up at that time (`time.monotonic`).

        Raises:
            DeadlineExceeded: it has not come back in time.
        """
        self.here()
        pause = FIRST_PAUSE_SECONDS
        while (session := self._sessions.get(service) or self._open(service)) is None:
            if time.monotonic() > until:
                raise DeadlineExceeded(f"{service} has not come back in time")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return session

    def _open(self, service: str) -> Session | None:
        """A session of a generation later than the last that died; None when there is none yet."""
        with self._locks.setdefault(service, threading.Lock()):
            if service not in self._sessions:
                request = {"do": "open", "service": service, "after": self._dead.get(service, -1)}
                reply, fds = self.ask(request)
                if fds:
                    self._sessions[service] = Session(service, int(reply["generation"]), bool(reply["polled"]), fds[0])
            return self._sessions.get(service)

    def bury(self, session: Session) -> None:
        """Note that the service of a session has died: the next session is of a later generation."""
        service = session.service
        self._dead[service] = max(session.generation, self._dead.get(service, -1))
        if self._sessions.get(service) is session:
            self._sessions.pop(service, None)

    def bind(self, session: Session, links: Sequence[Link]) -> None:
        """Have the core bind stacks of the service to these slots.

        Raises:
            SessionDied: that generation is gone.
        """
        for first in range(0, len(links), SLOTS_PER_REQUEST):
            for error in self._bind([(session, links[first : first + SLOTS_PER_REQUEST])]).values():
                raise error

    def _bind(self, wanted: Sequence[tuple[Session, Sequence[Link]]]) -> dict[str, HmkError]:
        """Have stacks bound in services, each named once; why it failed in those where it did.

        One thread at a time: where stacks are short, a crowd would take them from each other before they are used.
        """
        services = {
            session.service: {"generation": session.generation, "slots": [link.index for link in links]}
            for session, links in wanted
        }
        with self._binding:
            results = self.ask({"do": "bind", "services": services})[0]["services"]
        return {name: _error(result) for name, result in results.items() if "error" in result}

    def buffer(self, session: Session, link: Link, size: int) -> None:
        """Share a buffer of at least `size` bytes with the service for this slot.

        One that was outgrown is likely to be again, and each time takes milliseconds: a small one grows fourfold.
        """
        if size > MAX_BULK_BYTES:
            raise TooBig(f"{size} bytes exceed the largest buffer, {MAX_BULK_BYTES}")
        request = {
            "do": "buffer",
            "service": session.service,
            "generation": session.generation,
            "slot": link.index,
            "size": max(SMALLEST_BUFFER, min(4 * link.bulk_size, SMALL_BUFFERS), 1 << (size - 1).bit_length()),
        }
        reply, fds = self.ask(request)
        try:
            link.attach_bulk(Mapping(fds[0], int(reply["size"])))
        finally:
            os.close(fds[0])

    # ---- links of the calling thread

    def held(self, service: str, until: float = math.inf) -> Held:
        """The calling thread's links to a service; its first call binds all pre-bound services at once."""
        by_service: dict[str, Held] | None = getattr(self._local, "held", None)
        if by_service is None:
            by_service = self._local.held = {}
            self._prebind(by_service)
        held = by_service.get(service)
        if held is None:
            held = by_service[service] = Held(self.session(service, until))
        return held

    def _prebind(self, by_service: dict[str, Held]) -> None:
        """Bind the pre-bound services; what is down, dies meanwhile or is full is left to the first call to it."""
        fresh: dict[str, tuple[Held, Link]] = {}
        for name in self.welcome.prebind:
            with contextlib.suppress(NoSuchService, TooBig):
                session = self._sessions.get(name) or self._open(name)
                if session is None:  # it restarts
                    continue
                held = Held(session)
                link, bound = session.take(self.policy)
                if bound:
                    held.links.append(link)
                    by_service.setdefault(name, held)
                else:
                    fresh[name] = held, link
        failed = self._bind([(held.session, [link]) for held, link in fresh.values()]) if fresh else {}
        for name, (held, link) in fresh.items():
            if name not in failed:
                held.links.append(link)
                by_service.setdefault(name, held)  # a signal handler may have been here meanwhile
            elif isinstance(failed[name], SessionDied):
                self.bury(held.session)

    def drop(self, held: Held) -> None:
        """The calling thread's links to a dead generation are of no use."""
        self.bury(held.session)
        by_service: dict[str, Held] = self._local.held
        if by_service.get(held.session.service) is held:
            del by_service[held.session.service]

    def another_link(self, held: Held, prepare: Callable[[Link], None] | None = None) -> Link:
        """A bound link of the calling thread that can take a call now; `prepare` sees a new one first."""
        for link in held.links:
            if link.ready():
                return link
        link, bound = held.session.take(self.policy)
        if prepare is not None:
            prepare(link)
        if not bound:
            self.bind(held.session, [link])
        held.links.append(link)
        return link
