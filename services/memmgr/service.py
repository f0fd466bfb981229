"""The memory manager: limits of clients, and what to take back when memory for stacks runs out.

Limits stand in an object that the core holds, so a restart loses none: records of (client u64, bytes u64), in no
order, client 0 meaning free. Who has no record has `CLIENT_BYTES`, which the core reads here, too; it enforces.
"""

from __future__ import annotations

import errno
import json
import struct
import threading

from corekernel.errors import ServiceError
from corekernel.port import Caller
from corekernel.service import Environment
from services.memmgr.policy import CLIENT_BYTES, PoolState, plan
from services.stubs.core import CoreClient
from services.stubs.memmgr import MemmgrServer, UsageResult

STATE = {"limits": 64 << 10}
KIND_MEMORY = 1
MAX_PLAN = 40

_RECORD = struct.Struct("<QQ")


class Limits:
    """The table of limits in its object."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._where = {
            client: at for at in range(0, len(memory), _RECORD.size) if (client := _RECORD.unpack_from(memory, at)[0])
        }

    def get(self, client: int) -> int:
        """A client's limit in bytes."""
        at = self._where.get(client)
        return CLIENT_BYTES if at is None else int(_RECORD.unpack_from(self._memory, at)[1])

    def set(self, client: int, limit: int) -> bool:
        """Record a limit; False when the table is full."""
        with self._lock:
            at = self._where.get(client)
            if at is None:
                used = set(self._where.values())
                free = (a for a in range(0, len(self._memory), _RECORD.size) if a not in used)
                at = next(free, None)
            if at is None:
                return False
            _RECORD.pack_into(self._memory, at, client, limit)
            self._where[client] = at
        return True

    def forget(self, client: int) -> None:
        """A client is gone."""
        with self._lock:
            at = self._where.pop(client, None)
            if at is not None:
                _RECORD.pack_into(self._memory, at, 0, 0)


class Service(MemmgrServer):
    """Operations of the interface `memmgr`."""

    def __init__(self, environment: Environment) -> None:
        self._core = CoreClient(environment.port("core"))
        self._limits = Limits(environment.object("limits"))

    def client_gone(self, client: int) -> None:
        """Host hook."""
        self._limits.forget(client)

    def limit_get(self, caller: Caller, client: int) -> int:
        """See the interface."""
        return self._limits.get(self._own(caller, client))

    def limit_set(self, caller: Caller, client: int, bytes: int) -> None:
        """See the interface; a client may lower its own limit, its owner may raise it."""
        self._own(caller, client)
        if caller.uid != 0 and bytes > self._limits.get(client):
            raise ServiceError(errno.EPERM, "a limit can only be lowered")
        self._core.set_limit(client, KIND_MEMORY, bytes)
        if not self._limits.set(client, bytes):
            raise ServiceError(errno.EINVAL, "the table of limits is full")

    def usage(self, caller: Caller, client: int) -> UsageResult:
        """See the interface."""
        used = self._core.usage(self._own(caller, client))
        return UsageResult(used.buffers, used.stacks, self._limits.get(client))

    def reclaim(self, caller: Caller, service: int, wanted: int) -> bytes:
        """See the interface."""
        if caller.client != 0:
            raise ServiceError(errno.EPERM, "only the core reclaims")
        state = json.loads(self._core.pools())
        pools = [PoolState(name, p["number"], p["bound"], p["free"]) for name, p in state.items()]
        chosen = plan(pools, service, wanted)[:MAX_PLAN]
        return json.dumps([{"service": name, "count": count} for name, count in chosen]).encode()

    def info(self, caller: Caller) -> bytes:
        """See the interface."""
        return self._core.pools()

    def _own(self, caller: Caller, client: int) -> int:
        if client != caller.client and caller.uid != 0:
            raise ServiceError(errno.EPERM, "that is another client's")
        return client
