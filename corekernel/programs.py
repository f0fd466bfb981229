"""Programs: processes that the core starts as clients, and the process table's record of every client.

A program gets a user id of its own (as root), its standard descriptors, and on descriptor 3 a channel to the core. Its
record in the process table is made at its start, whether or not it ever attaches, and ends with its exit status.

Its memory is limited, by its control group if the core has groups. Without, the core looks at what it uses.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from signal import pidfd_send_signal
from typing import TYPE_CHECKING

from corekernel import memory_watch, namespaces
from corekernel.channel import Channel, close_all
from corekernel.clients import CLIENT_UIDS, FIRST_CLIENT_UID, Client
from corekernel.confine import Confinement
from corekernel.errors import TooBig
from corekernel.process_table import ENDED, LIVE
from corekernel.spawned import Spawned
from corekernel.zygote import Zygote

if TYPE_CHECKING:
    from corekernel.kernel import Kernel

CHANNEL_NUMBER = 3


class Programs:
    """Starts programs, and follows every client's life in the process table. On the core's loop thread only."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiting_end: dict[int, list[Callable[[int], None]]] = {}
        self._last_uid = 0
        self._running: dict[int, Client] = {}
        self._watching = False

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
        """Start a program as a client with a user id of its own and its channel open on descriptor 3.

        Args:
            argv: program and arguments.
            env: its whole environment, to which HMK_SYSTEM and HMK_FD are added.
            cwd: directory to start in.
            stdio: its descriptors 0 to 2; None means no input, and output to the serial console.
            parent: client number of the process that may wait for it.
            then: gets the client, or the error that prevented the start.
        """
        kernel = self._kernel
        ours, theirs = Channel.pair()
        try:
            client = self._admit(ours, os.path.basename(argv[0])[:32], parent)
        except TooBig as error:
            ours.close()
            theirs.close()
            then(None, error)
            return
        environment = {**env, "HMK_SYSTEM": kernel.name, "HMK_FD": str(CHANNEL_NUMBER)}
        opened = [] if stdio else self._console(client.name)
        streams = stdio or (opened[0], opened[1], opened[1])
        confinement = Confinement.client(client.uid if kernel.root else None)

        def limit(spawned: Spawned) -> None:
            if spawned.group is not None:
                spawned.group.limit_memory(client.memory_limit)
                spawned.group.limit_processes(confinement.processes)

        def start(zygote: Zygote) -> Spawned:
            fds = {CHANNEL_NUMBER: theirs.fileno()}
            return zygote.spawn_exec(argv, environment, cwd, fds, confinement, streams, limit)

        def started(spawned: Spawned | None, error: Exception | None) -> None:
            theirs.close()
            close_all(opened)
            if spawned is not None:
                self._runs(client, spawned)
                then(client, None)
                return
            client.program = False
            kernel.clients.gone(client)
            then(None, error)

        kernel.loop.aside(lambda: kernel.with_zygote(start), started)

    def _admit(self, channel: Channel, name: str, parent: int) -> Client:
        """A client with a user id of its own and a place in the process table."""
        ids = (self._free_uid(),) * 2 if self._kernel.root else (os.getuid(), os.getgid())
        client = self._kernel.clients.new(channel, *ids)
        client.program, client.name, client.parent = True, name, parent
        try:
            self.enter(client)
        except TooBig:
            self._kernel.clients.gone(client)
            raise
        return client

    def _console(self, name: str) -> list[int]:
        """No input, and output to the serial console."""
        return [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), self._kernel.output_of(name)]

    def _runs(self, client: Client, spawned: Spawned) -> None:
        client.spawned, client.host_pid = spawned, spawned.host_pid
        self._running[client.number] = client
        self._kernel.processes.placed(client.number, spawned.host_pid)
        if client.number not in self._kernel.clients.by_number:  # it ended before its start was reported
            self.ended(client)
            return
        client.pidfd = os.dup(spawned.pidfd)
        self._kernel.loop.watch(client.pidfd, lambda: self._kernel.clients.gone(client))

    def enter(self, client: Client) -> None:
        """A process is in the table from its start, whether or not it ever attaches.

        Raises:
            TooBig: the table is full.
        """
        now = time.monotonic_ns()
        if not self._kernel.processes.born(client.number, client.parent, client.uid, client.host_pid, now, client.name):
            raise TooBig("the process table is full")
        self._kernel.processes_changed()

    def ended(self, client: Client) -> None:
        """A client is gone: its end, with its status, goes into the table, once its process has really ended."""
        kernel = self._kernel
        if client.program and client.spawned is None:
            return  # its start is still to be reported
        if client.spawned is not None:
            if not namespaces.readable(client.spawned.pidfd):  # it closed its channel, and lives on
                kernel.loop.watch(client.spawned.pidfd, lambda: self._collect(client))
                return
            client.exit_status = client.spawned.reap(block=False) or 0
            os.close(client.spawned.pidfd)
            del self._running[client.number]
            kernel.leave_group(f"{client.name} ({client.number})", client.spawned)
        kernel.processes.ended(client.number, client.exit_status)
        for tell in self._waiting_end.pop(client.number, []):
            tell(client.exit_status)
        self._forget_orphans(client)
        kernel.processes_changed()

    def _forget_orphans(self, client: Client) -> None:
        """Nobody will wait for a process whose parent is gone."""
        living = self._kernel.clients.by_number
        for record in list(self._kernel.processes):
            if record.state == ENDED and (not record.parent or record.parent not in living):
                self._kernel.processes.decide(record, 1, record.reported, record.limits)

    def _collect(self, client: Client) -> None:
        assert client.spawned is not None
        self._kernel.loop.forget(client.spawned.pidfd)
        self.ended(client)

    # ---- memory

    def limit_memory(self, client: Client, limit: int) -> None:
        """Set the memory limit of a client; a program that uses more already is killed. Not on the loop: it may take.

        Raises:
            OSError: the host refused.
        """
        client.memory_limit = limit
        if client.spawned is None or client.spawned.group is None:
            return
        try:
            client.spawned.group.limit_memory(None if limit >> 63 else limit)
        except OSError as error:
            if error.errno == errno.EBUSY:
                client.spawned.group.kill()
            elif error.errno not in (errno.ENOENT, errno.ENODEV):  # those: it has ended
                raise

    def watch_memory(self) -> None:
        """Look at what each program uses, aside, and kill what uses too much; one look at a time."""
        if self._watching or not self._running:
            return
        self._watching = True
        programs = [(c.name, c.number, c.host_pid, c.memory_limit) for c in self._running.values()]

        def look() -> list[str]:
            return [
                f"{name} ({number}) exceeded its memory limit: the core killed {kills} of its processes"
                for name, number, pid, limit in programs
                if (kills := memory_watch.kill_excess(pid, limit))
            ]

        self._kernel.loop.aside(look, self._watched)

    def _watched(self, lines: list[str] | None, error: Exception | None) -> None:
        self._watching = False
        for line in lines or [f"the look at memory failed: {error}"] * (error is not None):
            self._kernel.serial.line("core", line)

    # ---- what others may ask

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
