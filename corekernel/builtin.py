"""The core's own operations, served like any service's.

Timers, the serial console, token writes, and what only the process and memory managers may ask for.
Handlers run on carriers; what touches the core's state is handed to its loop thread.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from corekernel import namespaces
from corekernel.errors import Denied, NoSuchService, ServiceError
from corekernel.interface import copied
from corekernel.port import Caller
from corekernel.process_table import ProcessTable
from corekernel.spawned import SpawnError
from services.stubs.core import CoreServer, SerialReadResult, UsageResult

if TYPE_CHECKING:
    from corekernel.clients import Client
    from corekernel.kernel import Kernel

CONSOLE = "console"
MAX_SERIAL_READ = 3500
WORD = 8

_SETRESUID, _SETRESGID, _SAME = 117, 119, -1


def _limit_as(uid: int, pid: int, kind: int, limits: tuple[int, int]) -> None:
    """Set a limit as the process's own user may: root in a container often lacks CAP_SYS_RESOURCE.

    The raw calls change this thread alone, and only its real ids, which is what the host compares.
    """
    own = os.getuid(), os.getgid()
    try:
        if uid != own[0]:
            namespaces.syscall(_SETRESGID, uid, _SAME, _SAME)
            namespaces.syscall(_SETRESUID, uid, _SAME, _SAME)
        resource.prlimit(pid, kind, limits)
    finally:
        if uid != own[0]:
            namespaces.syscall(_SETRESUID, own[0], _SAME, _SAME)
            namespaces.syscall(_SETRESGID, own[1], _SAME, _SAME)


class CoreService(CoreServer):
    """Operations of the interface `core`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def client_gone(self, client: int) -> None:
        """Host hook: a client's timers go with it."""
        self._kernel.timers.client_gone(client)
        self._kernel.serial.readable.forget(client)

    def _only(self, caller: Caller, service: str) -> None:
        """Refuse everyone but one service, by the binding record."""
        instances = self._kernel.supervisor.instances
        if service not in instances or caller.client != self._kernel.supervisor.process_of(service).number:
            raise ServiceError(errno.EPERM, f"only {service} may ask for this")

    # ---- time

    def sleep_until(self, caller: Caller, deadline_ns: int) -> None:
        """See the interface."""
        condition = self._kernel.timers.at(deadline_ns, caller.client)
        condition.wait_for(caller, lambda: time.monotonic_ns() >= deadline_ns)

    def timer_create(self, caller: Caller, first_ns: int, period_ns: int) -> int:
        """See the interface."""
        if max(first_ns, period_ns) >> 63:
            raise ServiceError(errno.EINVAL, "a time beyond 292 years")
        number = self._kernel.timers.create(caller.client, first_ns, period_ns)
        if number is None:
            raise ServiceError(errno.EAGAIN, "too many timers")
        return number

    def timer_wait(self, caller: Caller, timer: int) -> int:
        """See the interface."""
        found = self._kernel.timers.get(caller.client, timer)
        if found is None:
            raise ServiceError(errno.EINVAL, "no such timer")
        count = found.condition.wait_for(caller, lambda: self._kernel.timers.collect(found) or (found.dead or None))
        if found.dead:
            raise ServiceError(errno.EINVAL, "the timer was deleted")
        return int(count)

    def timer_delete(self, caller: Caller, timer: int) -> None:
        """See the interface."""
        if not self._kernel.timers.delete(caller.client, timer):
            raise ServiceError(errno.EINVAL, "no such timer")

    # ---- serial console

    def serial_write(self, caller: Caller, data: memoryview) -> int:
        """See the interface."""
        return self._kernel.serial.write(copied(data))

    def serial_read(self, caller: Caller, position: int, limit: int, known: int) -> SerialReadResult:
        """See the interface."""
        self._only_console(caller)
        if limit == 0:
            raise ServiceError(errno.EINVAL, "a read of nothing")
        serial, most = self._kernel.serial, min(limit, MAX_SERIAL_READ)
        try:
            typed = serial.readable.wait_for(caller, lambda: serial.read(position, most, known))
        except ValueError as error:
            raise ServiceError(errno.EINVAL, str(error)) from error
        return SerialReadResult(typed.start, typed.window, typed.ended, typed.data)

    def console_write(self, caller: Caller, position: int, data: memoryview) -> None:
        """See the interface."""
        self._only_console(caller)
        try:
            self._kernel.serial.write_at(position, copied(data))
        except ValueError as error:
            raise ServiceError(errno.EINVAL, str(error)) from error

    def _only_console(self, caller: Caller) -> None:
        """Refuse everyone but the service that has the console."""
        services = self._kernel.composition.services
        holder = next((service.name for service in services if CONSOLE in service.devices), "nobody")
        self._only(caller, holder)

    # ---- tokens

    def token_write(self, caller: Caller, object: int, offset: int, words: bytes) -> None:
        """See the interface; which words of an object a holder may change is the object's invariant."""
        try:
            self._kernel.loop.ask(lambda: self._token_write(caller.client, object, offset, words))
        except NoSuchService as error:
            raise ServiceError(errno.ENOENT, str(error)) from error
        except Denied as error:
            raise ServiceError(errno.EPERM, str(error)) from error

    def _token_write(self, client: int, number: int, offset: int, words: bytes) -> None:
        kernel = self._kernel
        made = kernel.objects.get(number)
        kernel.objects.holds(number, client)
        if offset % WORD or len(words) % WORD or offset + len(words) > made.size:
            raise ServiceError(errno.ERANGE, f"{len(words)} bytes at {offset} of an object of {made.size}")
        table: ProcessTable = kernel.processes
        if made is not kernel.process_object or not table.may_rename(client, offset, len(words)):
            raise ServiceError(errno.EINVAL, "those words are not the holder's to change")
        kernel.write_object(made, offset, words)

    # ---- for the process manager

    def spawn(self, caller: Caller, spec: memoryview) -> int:
        """See the interface. The start takes milliseconds on a helper thread, so the caller waits on its own word."""
        self._only(caller, "procmgr")
        wanted = json.loads(copied(spec))
        argv, env, cwd = list(wanted["argv"]), dict(wanted.get("env", {})), str(wanted.get("cwd", "/"))
        future = self._start(argv, env, cwd, int(wanted.get("parent", 0)))
        client, error = future
        if error is not None:
            number = error.errno if isinstance(error, SpawnError) else errno.EAGAIN
            raise ServiceError(number or errno.EAGAIN, str(error))
        return int(client.number)

    def _start(self, argv: list[str], env: dict[str, str], cwd: str, parent: int) -> tuple[Any, Any]:
        future: Future[tuple[Client | None, Exception | None]] = Future()
        kernel = self._kernel

        def begin() -> None:
            kernel.programs.start(
                argv, env, cwd, None, parent, lambda client, error: future.set_result((client, error))
            )

        kernel.loop.soon(begin)
        return future.result(15.0)

    def signal(self, caller: Caller, process: int, number: int) -> None:
        """See the interface."""
        self._only(caller, "procmgr")
        if number > 64:
            raise ServiceError(errno.EINVAL, f"no signal {number}")
        try:
            sent = self._kernel.loop.ask(lambda: self._kernel.programs.signal(process, number))
        except OSError as error:  # EINVAL: it attached from outside of the core's pid namespace
            raise ServiceError(errno.EPERM, f"process {process} is out of reach") from error
        if not sent:
            raise ServiceError(errno.ESRCH, f"no process {process}")

    def set_rlimit(self, caller: Caller, process: int, kind: int, soft: int, hard: int) -> None:
        """See the interface."""
        self._only(caller, "procmgr")
        if kind not in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC) or soft > hard:
            raise ServiceError(errno.EINVAL, f"no limit {kind} of {soft} up to {hard}")
        client = self._kernel.clients.by_number.get(process)
        if client is None or client.spawned is None:
            raise ServiceError(errno.ESRCH, f"{process} is not a process that the core started")
        values = [resource.RLIM_INFINITY if v >> 63 else v for v in (soft, hard)]
        try:
            _limit_as(client.uid, client.spawned.pid, kind, (values[0], values[1]))
        except ProcessLookupError as error:
            raise ServiceError(errno.ESRCH, str(error)) from error
        except (PermissionError, ValueError) as error:
            raise ServiceError(errno.EPERM, str(error)) from error

    # ---- for the memory manager

    def usage(self, caller: Caller, client: int) -> UsageResult:
        """See the interface."""
        self._only(caller, "memmgr")
        used = self._kernel.loop.ask(lambda: self._kernel.clients.usage(client))
        if used is None:
            raise ServiceError(errno.ESRCH, f"no client {client}")
        return UsageResult(*used)

    def set_limit(self, caller: Caller, client: int, kind: int, value: int) -> None:
        """See the interface. Kind 1: bytes of memory; of an attached client, shared buffers only."""
        self._only(caller, "memmgr")
        if kind != 1:
            raise ServiceError(errno.EINVAL, f"no limit of kind {kind}")
        found = self._kernel.clients.by_number.get(client)
        if found is None:
            raise ServiceError(errno.ESRCH, f"no client {client}")
        self._kernel.programs.limit_memory(found, value)

    def pools(self, caller: Caller) -> bytes:
        """See the interface."""
        return json.dumps(self._kernel.pools.state(), separators=(",", ":")).encode()

    def unbind_idle(self, caller: Caller, service: int, count: int) -> int:
        """See the interface."""
        self._only(caller, "memmgr")
        kernel = self._kernel
        names = [i.name for i in kernel.supervisor.instances.values() if i.number == service]
        if not names:
            raise ServiceError(errno.ENOENT, f"no service {service}")
        future: Future[int] = Future()
        kernel.loop.soon(
            lambda: kernel.pools.unbind(
                names[0], count, True, lambda reply: future.set_result(int(reply.get("freed", 0)))
            )
        )
        return future.result(5.0)
