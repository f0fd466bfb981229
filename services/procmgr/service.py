"""The process manager: who exists, who waits for whom, what may be done to whom.

The table of processes is an object that the core holds; the core enters births and deaths, this service decides the
rest. Threads stand in an object of its own. So a restart of this service loses nothing: it reads both again.
"""

from __future__ import annotations

import errno
import json
import signal
import struct
import threading

from corekernel.errors import ServiceError
from corekernel.port import Caller
from corekernel.process_table import ENDED, LIVE, NOT_REPORTED, ProcessRecord, ProcessTable
from corekernel.service import Environment
from services.stubs.core import CoreClient
from services.stubs.procmgr import GetLimitResult, ProcmgrServer

STATE = {"processes": 0, "threads": 256 << 10}
UNLIMITED = 2**64 - 1
TERMINAL_SIGNALS = {
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGWINCH,
}  # fmt: skip
"""What the device manager may send to whoever is in the foreground of a terminal."""
LIMITS = {7: 0, 6: 1}  # RLIMIT_NOFILE, RLIMIT_NPROC: which pair of the record

_THREAD = struct.Struct("<III52s")


class Threads:
    """The table of threads in its object: (tid u32, pid u32, state u32, name 52 bytes), tid 0 meaning free."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._count = len(memory) // _THREAD.size

    def _records(self) -> list[tuple[int, int, int]]:
        return [
            (index, tid, pid)
            for index in range(self._count)
            if (tid := _THREAD.unpack_from(self._memory, index * _THREAD.size)[0])
            for pid in [_THREAD.unpack_from(self._memory, index * _THREAD.size)[1]]
        ]

    def add(self, pid: int, name: str) -> int | None:
        """Enter a thread; its tid, None when the table is full."""
        with self._lock:
            used = {index for index, _, _ in self._records()}
            free = next((index for index in range(self._count) if index not in used), None)
            if free is None:
                return None
            tid = free + 1
            raw = name.encode()[:52]
            _THREAD.pack_into(self._memory, free * _THREAD.size, tid, pid, 1, raw)
            return tid

    def remove(self, pid: int, tid: int) -> bool:
        """Strike a thread of a process; False when it has no such thread."""
        with self._lock:
            for index, other, owner in self._records():
                if other == tid and owner == pid:
                    _THREAD.pack_into(self._memory, index * _THREAD.size, 0, 0, 0, b"")
                    return True
        return False

    def of(self, pid: int) -> list[dict[str, int | str]]:
        """Threads of a process."""
        found: list[dict[str, int | str]] = []
        for index, tid, owner in self._records():
            if owner == pid:
                raw = _THREAD.unpack_from(self._memory, index * _THREAD.size)[3]
                found.append({"tid": tid, "name": raw.split(b"\0", 1)[0].decode("utf-8", "replace")})
        return found

    def forget(self, pid: int) -> None:
        """A process is gone."""
        with self._lock:
            for index, _, owner in self._records():
                if owner == pid:
                    _THREAD.pack_into(self._memory, index * _THREAD.size, 0, 0, 0, b"")


class Service(ProcmgrServer):
    """Operations of the interface `procmgr`."""

    def __init__(self, environment: Environment) -> None:
        self._callers = environment.callers
        self._terminals = str(environment.options.get("terminals", "devmgr"))
        self._core = CoreClient(environment.port("core"))
        self._table = ProcessTable(environment.object("processes"))
        self._threads = Threads(environment.object("threads"))
        self._changed = environment.condition()

    def processes_changed(self) -> None:
        """Host hook: the core wrote to the table."""
        self._changed.notify()

    def client_gone(self, client: int) -> None:
        """Host hook: a process's threads end with it."""
        self._threads.forget(client)

    # ---- life and death

    def spawn(self, caller: Caller, spec: memoryview) -> int:
        """See the interface."""
        try:
            wanted = json.loads(bytes(spec))
            argv = [str(word) for word in wanted["argv"]]
            env = {str(k): str(v) for k, v in wanted.get("env", {}).items()}
            cwd = str(wanted.get("cwd", "/"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ServiceError(errno.EINVAL, f"not a program to start: {error}") from error
        if not argv:
            raise ServiceError(errno.EINVAL, "no program to start")
        request = {"argv": argv, "env": env, "cwd": cwd, "parent": caller.client}
        return self._core.spawn(json.dumps(request).encode())

    def exit(self, caller: Caller, status: int) -> None:
        """See the interface."""
        if status > 255:
            raise ServiceError(errno.EINVAL, "an exit status is 0 to 255")
        record = self._find(caller.client)
        self._table.decide(record, record.reaped, status, record.limits)
        self._changed.notify()

    def wait(self, caller: Caller, pid: int) -> int:
        """See the interface."""
        return self._changed.wait_for(caller, lambda: self._reap(caller, pid))

    def _reap(self, caller: Caller, pid: int) -> int | None:
        """Status of an ended child, which is then forgotten; None while it lives."""
        record = self._table.find(pid)
        if record is None or record.parent != caller.client or record.reaped:
            raise ServiceError(errno.ECHILD, f"{pid} is no child of {caller.client}")
        if record.state != ENDED and record.reported == NOT_REPORTED:
            return None
        self._table.decide(record, 1, record.reported, record.limits)
        return record.status if record.reported == NOT_REPORTED else record.reported

    def kill(self, caller: Caller, pid: int, signal: int) -> None:
        """See the interface."""
        if signal > 64:
            raise ServiceError(errno.EINVAL, f"no signal {signal}")
        record = self._find(pid)
        if caller.client == self._callers.get(self._terminals) and signal in TERMINAL_SIGNALS:
            self._core.signal(pid, signal)
            return
        if caller.uid not in (0, record.uid) and record.parent != caller.client:
            raise ServiceError(errno.EPERM, f"process {pid} is another user's")
        self._core.signal(pid, signal)

    # ---- information

    def _find(self, pid: int) -> ProcessRecord:
        record = self._table.find(pid)
        if record is None or record.state != LIVE:
            raise ServiceError(errno.ESRCH, f"no process {pid}")
        return record

    def getpid(self, caller: Caller) -> int:
        """See the interface."""
        return self._find(caller.client).pid

    def info(self, caller: Caller, pid: int) -> bytes:
        """See the interface."""
        record = self._table.find(pid)
        if record is None:
            raise ServiceError(errno.ESRCH, f"no process {pid}")
        description = {
            "pid": record.pid,
            "parent": record.parent,
            "uid": record.uid,
            "host_pid": record.host_pid,
            "name": record.name,
            "state": "live" if record.state == LIVE else "ended",
            "status": record.status,
            "started_ns": record.started_ns,
            "threads": self._threads.of(pid),
        }
        return json.dumps(description).encode()

    def list(self, caller: Caller) -> bytes:
        """See the interface."""
        return json.dumps(sorted(record.pid for record in self._table if record.state == LIVE)).encode()

    # ---- threads

    def thread_create(self, caller: Caller, name: str) -> int:
        """See the interface."""
        self._find(caller.client)
        tid = self._threads.add(caller.client, name)
        if tid is None:
            raise ServiceError(errno.EAGAIN, "the table of threads is full")
        return tid

    def thread_exit(self, caller: Caller, tid: int) -> None:
        """See the interface."""
        if not self._threads.remove(caller.client, tid):
            raise ServiceError(errno.ESRCH, f"no thread {tid}")

    # ---- limits

    def _limit(self, caller: Caller, pid: int, kind: int) -> tuple[ProcessRecord, int]:
        if kind not in LIMITS:
            raise ServiceError(errno.EINVAL, f"no limit of kind {kind}")
        record = self._find(pid)
        if pid != caller.client and caller.uid not in (0, record.uid):
            raise ServiceError(errno.EPERM, f"process {pid} is another user's")
        return record, LIMITS[kind] * 2

    def get_limit(self, caller: Caller, pid: int, kind: int) -> GetLimitResult:
        """See the interface."""
        record, at = self._limit(caller, pid, kind)
        soft, hard = record.limits[at], record.limits[at + 1]
        return GetLimitResult(soft - 1 if soft else UNLIMITED, hard - 1 if hard else UNLIMITED)

    def set_limit(self, caller: Caller, pid: int, kind: int, soft: int, hard: int) -> None:
        """See the interface; a record holds limit + 1, so that a fresh record means none."""
        record, at = self._limit(caller, pid, kind)
        now = record.limits[at + 1] - 1 if record.limits[at + 1] else UNLIMITED
        if soft > hard:
            raise ServiceError(errno.EINVAL, "the soft limit exceeds the hard one")
        if hard > now and caller.uid != 0:
            raise ServiceError(errno.EPERM, "the hard limit can only be lowered")
        self._core.set_rlimit(pid, kind, soft, hard)
        limits = list(record.limits)
        limits[at], limits[at + 1] = (0 if v == UNLIMITED else v + 1 for v in (soft, hard))
        self._table.decide(record, record.reaped, record.reported, tuple(limits))
