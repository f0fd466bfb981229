"""The ports of a service: to another process, or to a service of its own process, where a call is a function call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from corekernel import dispatcher
from corekernel.dispatcher import Link
from corekernel.errors import NoSuchService, Status, WouldWait
from corekernel.hosted import BoundCaller
from corekernel.local_port import LocalPort
from corekernel.port import HandlerTable, Payload, Registers, Reply
from corekernel.remote_port import RemotePort

if TYPE_CHECKING:
    from corekernel.host import Host
    from corekernel.hosted import HostedService

KEYS_PER_POOL = 1 << 16
NESTED_KEYS = KEYS_PER_POOL * 64


class LocalCaller:
    """A service of this process as the caller of another; waits on a count of its own. One per thread."""

    def __init__(self, client: int) -> None:
        self.client = client
        self.uid, self.gid, self.pid, self.thread = os.getuid(), os.getgid(), client, 0
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

    def __init__(self, host: Host, local: HostedService, service: str, timeout: float | None = None) -> None:
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
        if self.service in self._from.spec["callers"]:
            record = BoundCaller(self._target, 0, 0, self._target, link.index, None, self._from.handlers, None)
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
