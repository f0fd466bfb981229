"""A way to one service in another process: `Port.call` by direct-switch RPC.

The straight path of a call is a C function (`native/python.c`); here is the rest: a thread's first link, deadlines and
classes, and what to do about a call that could not be issued or was not answered.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from corekernel import dispatcher
from corekernel.attachment import NORMAL, Attachment, NotBound, SessionDied
from corekernel.dispatcher import Link, StraightPath
from corekernel.errors import NoSuchService, Status, TooBig
from corekernel.port import INLINE_BYTES, Payload, Registers, Reply
from corekernel.session import Held

_INTERRUPTED = int(Status.INTERRUPTED)
_NOT_ISSUED = (dispatcher.UNBOUND, dispatcher.NO_BUFFER, dispatcher.NO_SERVICE)
_FIRST_SAID = int(Status.BAD_OPERATION)  # from here on a failure's reply carries a text


class RemotePort:
    """A way to one service in another process. Shared by all threads; each has links of its own."""

    _prepare: Callable[[Link], None] | None = None

    def __init__(
        self, attachment: Attachment, service: str, timeout: float | None = None, priority: int = NORMAL
    ) -> None:
        if service not in attachment.welcome.services:
            known = ", ".join(attachment.welcome.services)
            raise NoSuchService(f"no service {service!r} that this process may call; there are {known}")
        self.service = service
        self.timeout = timeout
        self._attachment = attachment
        self.priority = priority
        self._special = timeout is not None or priority != NORMAL
        self._straight = StraightPath(self._call, self._go_on)
        self.call = self._straight.call
        attachment.add_port(self)
        self.forget()

    def forget(self) -> None:
        """After a fork: the links belong to the parent."""
        self._local = threading.local()
        self._straight.forget()

    # ---- everything but the straight path

    def _call(
        self,
        operation: int,
        registers: Registers = (),
        payload: Payload = b"",
        returns: int = 0,
        capacity: int = 0,
        idempotent: bool = False,
    ) -> Reply:
        """See `corekernel.port.Port.call`."""
        link: Link = getattr(self._local, "link", None) or self._first_link()
        if link.special:
            link = self._arrange(link)
        else:
            self._straight.remember(link)
        try:
            reply = link.call(operation, registers, payload, returns)
        except BaseException:  # a signal handler raised: the call is given up
            link.cancel()
            raise
        return self._settle(reply, link, operation, registers, payload, returns, idempotent)

    def _go_on(
        self,
        status: int,
        operation: int,
        registers: Registers,
        payload: Payload,
        returns: int,
        capacity: int,
        idempotent: bool,
    ) -> Reply:
        """What follows a status other than 0 on the straight path."""
        return self._settle(status, self._local.link, operation, registers, payload, returns, idempotent)

    def _first_link(self) -> Link:
        """A link of this thread that can take a call, in a living generation."""
        until = math.inf if self.timeout is None else time.monotonic() + self.timeout
        while True:
            held = self._attachment.held(self.service, until)
            try:
                link = self._attachment.another_link(held, self._prepare)
            except SessionDied:
                self._attachment.drop(held)
                continue
            self._local.link = link
            self._straight.forget()  # another link of this thread may be at hand there
            if self._special:
                link.set_up(0, NORMAL, special=True)
            return link

    def _arrange(self, link: Link) -> Link:
        """For a port with a deadline or class of its own, or a link last used by one: a ready link, set up for it."""
        if not link.ready():
            link = self._first_link()
        timeout = self.timeout
        deadline = 0 if timeout is None else dispatcher.now() + self._attachment.policy.ticks(timeout)
        link.set_up(deadline, self.priority, special=True)  # it stays so: another port may share the link
        return link

    def _settle(
        self,
        reply: Reply | int,
        link: Link,
        operation: int,
        registers: Registers,
        payload: Payload,
        returns: int,
        idempotent: bool,
    ) -> Reply:
        try:
            while isinstance(reply, int):
                if reply == _INTERRUPTED:  # a Python signal handler has just run, and did not raise
                    reply = link.resume(payload)
                    continue
                link = self._mend(reply, link, len(payload), idempotent)
                if link.special:
                    link = self._arrange(link)
                reply = link.call(operation, registers, payload, returns)
        except BaseException:
            link.cancel()
            raise
        return reply

    def _mend(self, status: int, link: Link, request: int, idempotent: bool) -> Link:
        """Remove what stopped a call from being issued or answered: the link to issue it on again, or raise."""
        held = self._attachment.held(self.service)
        stale = link.frames is not held.session.frames  # another port of this thread has noticed the death before
        if status == dispatcher.BUSY or (stale and status in _NOT_ISSUED):
            return self._first_link()
        if status == dispatcher.UNBOUND:
            return self._bind_again(held, link)
        if status == dispatcher.NO_BUFFER:
            return self._enlarge(held, link, request, idempotent)
        if status in (dispatcher.DIED, dispatcher.NO_SERVICE):
            self._attachment.drop(held)
            self._local.__dict__.pop("link", None)
            self._straight.forget()
            if status == dispatcher.NO_SERVICE or idempotent:
                return self._first_link()
        text = link.text() if status > 0 or status <= _FIRST_SAID else ""
        raise dispatcher.failure(status, self.service, held.session.generation, text)

    def _bind_again(self, held: Held, link: Link) -> Link:
        try:
            self._attachment.bind(held.session, [link])
        except SessionDied:
            self._attachment.drop(held)
            return self._first_link()
        link.detach_bulk()  # the stack that shared it was taken back
        return link

    def _enlarge(self, held: Held, link: Link, request: int, idempotent: bool) -> Link:
        outgoing = request > max(INLINE_BYTES, link.bulk_size)
        size = request if outgoing else link.needed()
        if size <= link.bulk_size:
            raise TooBig(f"{self.service}: the reply does not fit in {link.bulk_size} bytes")
        if not outgoing and not idempotent:
            raise TooBig(f"{self.service}: a reply of {size} bytes needs a larger request buffer beforehand")
        try:
            self._attachment.buffer(held.session, link, size)
        except SessionDied:
            self._attachment.drop(held)
            return self._first_link()
        except NotBound:  # its stack has just been taken back: the next attempt finds that out
            return link
        return link
