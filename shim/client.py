"""The Python shim: a process's view of a running system.

It holds no authority. `attach` connects to the core, which decides by the host's credentials what this process may
do; everything said here is checked by the core or a service. Calls may be made from every thread; each gets stacks of
its own, those of the pre-bound services at its first call. A call that waits can be interrupted
(Ctrl-C) and is then given up. After a fork the child attaches again, by itself, as a client of its own.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from corekernel import boot, shared
from corekernel.attachment import NORMAL, Attachment
from corekernel.channel import Channel, Message
from corekernel.errors import NoSuchService
from corekernel.port import Payload, Registers, Reply
from corekernel.process_table import ProcessRecord, ProcessTable
from corekernel.remote_port import RemotePort
from services import stubs
from services.stubs.core import CoreClient
from services.stubs.devmgr import DevmgrClient
from services.stubs.example import ExampleClient
from services.stubs.fs import FsClient
from services.stubs.memmgr import MemmgrClient
from services.stubs.procmgr import ProcmgrClient
from shim.files import Files

_attachments: weakref.WeakSet[Attachment] = weakref.WeakSet()


def _after_fork() -> None:
    for attachment in list(_attachments):
        attachment.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def attach(name: str | None = None, timeout: float | None = None) -> System:
    """Attach this process to a running system.

    Args:
        name: the system's name; None means the one that started this program, or else "default".
        timeout: deadline in seconds of every call made through it; None for none.

    Raises:
        corekernel.boot.BootError: no such system is up, or somebody else holds its name.
        corekernel.attachment.Detached: the system refused this process, with its reason.
    """
    wanted = name or os.environ.get("HMK_SYSTEM", "default")
    inherited = os.environ.pop("HMK_FD", None) if name is None else None
    channel = Channel(int(inherited)) if inherited else boot.connect(wanted)
    attachment = Attachment.greet(channel, _program(), lambda: boot.connect(wanted))
    _attachments.add(attachment)
    attachment.watch()
    return System(attachment, timeout)


def _program() -> str:
    return os.path.basename(sys.argv[0] or "python") if sys.argv else "python"


class System:
    """A running system as this process reaches it."""

    def __init__(self, attachment: Attachment, timeout: float | None = None) -> None:
        self.attachment = attachment
        self._timeout = timeout
        self._ports: dict[str, RemotePort] = {}
        self._table: ProcessTable | None = None
        self._files: Files | None = None
        self._making = threading.Lock()

    def __enter__(self) -> System:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detach."""
        self.attachment.close()

    # ---- services

    @property
    def services(self) -> dict[str, str]:
        """Services this process may call: name -> interface."""
        return {name: interface for name, (_, interface) in self.attachment.welcome.services.items()}

    def port(self, service: str, timeout: float | None = None, priority: int = NORMAL) -> RemotePort:
        """The untyped way to a service; each call with a deadline in seconds and a class (0 idle, 1 normal, 2 high).

        Raises:
            NoSuchService: there is none of that name, or this process may not call it.
        """
        timeout = timeout if timeout is not None else self._timeout
        if timeout is not None or priority != NORMAL:
            return RemotePort(self.attachment, service, timeout, priority)
        port = self._ports.get(service)
        if port is None:
            port = self._ports[service] = RemotePort(self.attachment, service)
        return port

    def client(self, service: str, timeout: float | None = None, priority: int = NORMAL) -> Any:
        """The typed client of a service, by the interface that the composition gives it."""
        if service not in self.services:
            raise NoSuchService(f"no service {service!r} here; there are {', '.join(self.services)}")
        return stubs.client_class(self.services[service])(self.port(service, timeout, priority))

    def call(
        self,
        service: str,
        operation: int,
        registers: Registers = (),
        payload: Payload = b"",
        returns: int = 0,
        timeout: float | None = None,
    ) -> Reply:
        """One raw call, for experiments: registers and payload in, registers and payload out."""
        return self.port(service, timeout).call(operation, registers, payload, returns, 1)

    @property
    def core(self) -> CoreClient:
        """Timers, serial console, tokens."""
        return CoreClient(self.port("core"))

    @property
    def procmgr(self) -> ProcmgrClient:
        """Processes and threads."""
        return ProcmgrClient(self.port("procmgr"))

    @property
    def memmgr(self) -> MemmgrClient:
        """Limits and usage."""
        return MemmgrClient(self.port("memmgr"))

    @property
    def example(self) -> ExampleClient:
        """The digest service of the tutorial."""
        return ExampleClient(self.port("example"))

    @property
    def files(self) -> Files:
        """Files and directories, as `os`, `open` and `pathlib` have them.

        Raises:
            NoSuchService: this system has no file system.
        """
        if self._files is None:
            with self._making:
                if self._files is None:
                    self._files = Files(FsClient(self.port("fs")), lambda: DevmgrClient(self.port("devmgr")))
        return self._files

    # ---- processes and time

    @property
    def pid(self) -> int:
        """This process's number in the system."""
        return self.attachment.here().client

    def processes(self) -> list[ProcessRecord]:
        """Every process of the system, read from the shared table: no call is made."""
        if self._table is None:
            reply, fds = self.attachment.ask({"do": "token", "object": "processes"})
            try:
                mapping = shared.Mapping(fds[0], int(reply["size"]), writable=False)
            finally:
                os.close(fds[0])
            self._table = ProcessTable(mapping.memory)
        return list(self._table)

    def spawn(self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: str = "/") -> int:
        """Start a program under the process manager; its pid."""
        spec = {"argv": list(argv), "env": dict(os.environ if env is None else env), "cwd": cwd}
        return self.procmgr.spawn(json.dumps(spec).encode())

    def sleep(self, seconds: float) -> None:
        """Sleep on the core's timer; can be interrupted."""
        self.core.sleep_until(time.monotonic_ns() + int(seconds * 1e9))

    # ---- the owner's requests

    def ask(self, what: str, **details: Any) -> Message:
        """A request to the core itself, such as "status"; most are the owner's only."""
        return self.attachment.ask({"do": what, **details})[0]
