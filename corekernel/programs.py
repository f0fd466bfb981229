"""Programs: processes that the core starts as clients, and the process table's record of every client.

A program gets a user id of its own (as root), its standard descriptors, and on descriptor 3 a channel to the core. Its
record in the process table is made at its start, whether or not it ever attaches, and ends with its exit status.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from signal import pidfd_send_signal
from typing import TYPE_CHECKING

from corekernel import namespaces
from corekernel.channel import Channel, close_all
from corekernel.clients import CLIENT_UIDS, FIRST_CLIENT_UID, Client
from corekernel.confine import Confinement
from corekernel.errors import TooBig
from corekernel.process_table import LIVE
from corekernel.zygote import Spawned, Zygote

if TYPE_CHECKING:
    from corekernel.kernel import Kernel

CHANNEL_NUMBER = 3


class Programs:
    """Starts programs, and follows every client's life in the process table. On the core's loop thread only."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiting_end: dict[int, list[Callable[[int], None]]] = {}
        self._last_uid = 0

    def _free_uid(self) -> int:
        """A user id that no living program has; the least recently used first."""
        taken = {client.uid for client in self._kernel.clients.by_number.values()}
        for _ in range(CLIENT_UIDS):
            self._last_uid = (self._last_uid + 1) % CLIENT_UIDS
            if FIRST_CLIENT_UID + self._last_uid not in taken:
                return FIRST_CLIENT_UID + self._last_uid
        raise TooBig("no user id is free for another program")

    def start(
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
        uid = self._free_uid() if self._kernel.root else None
        client = self._kernel.clients.new(ours, uid if uid is not None else os.getuid())
        client.name = os.path.basename(argv[0])[:32]
        client.parent = parent
        environment = {**env, "HMK_SYSTEM": self._kernel.name, "HMK_FD": str(CHANNEL_NUMBER)}

        console = None if stdio else self._kernel.output_of(client.name)
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
                self._kernel.clients.gone(client)
                then(None, error)
                return
            client.spawned = spawned
            client.host_pid = spawned.host_pid
            client.pidfd = os.dup(spawned.pidfd)
            self._kernel.loop.watch(client.pidfd, lambda: self._kernel.clients.gone(client))
            self.enter(client)
            then(client, None)

        self._kernel.loop.aside(lambda: self._kernel.with_zygote(start), started)

    def enter(self, client: Client) -> None:
        """A process is in the table from its start, whether or not it ever attaches."""
        now = time.monotonic_ns()
        if not self._kernel.processes.born(client.number, client.parent, client.uid, client.host_pid, now, client.name):
            raise TooBig("the process table is full")
        self._kernel.processes_changed()

    def ended(self, client: Client) -> None:
        if client.spawned is not None:
            if not namespaces.readable(client.spawned.pidfd):  # it closed its channel, and lives on
                self._kernel.loop.watch(client.spawned.pidfd, lambda: self._collect(client))
                return
            client.exit_status = client.spawned.reap(block=False) or 0
            os.close(client.spawned.pidfd)
        self._kernel.processes.ended(client.number, client.exit_status)
        for tell in self._waiting_end.pop(client.number, []):
            tell(client.exit_status)
        if client.parent not in self._kernel.clients.by_number:
            record = self._kernel.processes.find(client.number)
            if record is not None:
                self._kernel.processes.decide(record, 1, record.reported, record.limits)
        self._kernel.processes_changed()

    def _collect(self, client: Client) -> None:
        assert client.spawned is not None
        self._kernel.loop.forget(client.spawned.pidfd)
        self.ended(client)

    def when_ended(self, number: int, tell: Callable[[int], None]) -> None:
        """Call `tell(status)` once a process has ended; 0 when it is not known."""
        record = self._kernel.processes.find(number)
        if record is not None and record.state == LIVE:
            self._waiting_end.setdefault(number, []).append(tell)
        else:
            tell(record.status if record is not None else 0)

    def signal(self, process: int, number: int) -> bool:
        """Send a signal to a client process; False when there is none (or it cannot be reached)."""
        client = self._kernel.clients.by_number.get(process)
        if client is None or client.service is not None or client.pidfd is None:
            return False
        try:
            pidfd_send_signal(client.pidfd, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True
