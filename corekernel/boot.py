"""From a checked composition to a running system, and what the launcher's process does meanwhile.

    launcher    binds the system's socket, forks
      keeper    enters a pid namespace (as root; whoever does can start no thread any more), forks, waits
        core    init of that namespace; forks the zygote; makes the kernel; boots; serves
          zygote, services, programs

The keeper ends the core when the launcher ends (unless detached); the core dies with the keeper, and everything with
the core: by the pid namespace as root, by death signals otherwise. The socket's name is abstract, so nothing is left in
any directory but control groups: the keeper removes those after the core, and if it was killed itself, the launcher
or the next system to boot does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from corekernel import cgroups, namespaces
from corekernel.cgroups import Groups
from corekernel.channel import Channel
from corekernel.composition import Composition, Language
from corekernel.dispatcher import Variant
from corekernel.errors import HmkError
from corekernel.host import SWITCH_SECONDS
from corekernel.kernel import Kernel
from corekernel.zygote import Zygote

BACKLOG = 128
BOOT_SECONDS = 30.0
KILL_SECONDS = 5.0
ROOT = Path(__file__).resolve().parent.parent


class BootError(HmkError):
    """The system did not come up; the text says why."""


def address(name: str) -> str:
    """The abstract socket address of a system."""
    return f"\0hmk/{name}"


@dataclass
class Running:
    """A system this process launched: its keeper's pid here, and a pidfd of it; the core's pid here."""

    name: str
    pid: int
    pidfd: int
    core: int = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the system has ended; whether it has."""
        return bool(select.select([self.pidfd], [], [], timeout)[0])

    def kill(self) -> None:
        """End everything, now; when this returns, the core is gone and the name is free."""
        core = None
        with contextlib.suppress(OSError, ValueError):
            core = os.pidfd_open(self.core)  # the keeper cannot have reaped it: it would have ended, too
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.wait()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        if core is not None:
            select.select([core], [], [], KILL_SECONDS)
            os.close(core)
        cgroups.sweep(self.name, KILL_SECONDS)


def reserve(name: str) -> socket.socket:
    """Bind the system's socket.

    Raises:
        BootError: a system of that name is up.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind(address(name))
    except OSError as error:
        sock.close()
        raise BootError(f"a system named {name!r} is up already; take another --name, or `down` it") from error
    sock.listen(BACKLOG)
    return sock


def preload_modules(composition: Composition) -> list[str]:
    """Everything a service of a composition will import."""
    services = [s for s in composition.services if s.language is Language.PYTHON]
    return ["corekernel.host", *(f"{service.module}.service" for service in services)]


def launch(
    name: str,
    composition: Composition,
    variant: Variant = Variant.HYBRID,
    view: Iterable[Path] = (),
    owner: int | None = None,
    detached: bool = False,
) -> Running:
    """Boot a system below this process, which must have one thread; returns when it is up.

    Args:
        name: the system's name; clients attach by it.
        composition: what to boot.
        variant: how everything waits, for measurements.
        view: directories that programs will need beside the interpreter and this checkout.
        owner: the user id that may command it; None means the launching user.
        detached: let it outlive this process.

    Raises:
        BootError: it did not come up.
    """
    owner = owner if owner is not None else int(os.environ.get("SUDO_UID", os.getuid()))
    sock = reserve(name)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    launcher = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        if detached:
            _leave_terminal()
        watched = None if detached else launcher
        _keep(name, watched, lambda: _core(name, composition, variant, list(view), owner, sock, writing))
    os.close(writing)
    sock.close()
    running = Running(name, pid, os.pidfd_open(pid))
    up, said = _await(reading)
    if not up:
        running.kill()
        raise BootError(said)
    running.core = int(said)
    return running


def _leave_terminal() -> None:
    """Let go of the launcher's standard streams: whoever reads our output would wait for the system's end."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def _keep(name: str, launcher: int | None, core: Callable[[], None]) -> NoReturn:
    """The keeper's life: fork the core, wait for its end or its launcher's, and leave nothing of it behind."""
    namespaces.leave_terminal()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keeper = os.getpid()
    pid = namespaces.fork_init()
    if pid is None:
        pid = os.fork()
        if pid == 0:
            namespaces.die_with_parent(keeper)
    if pid == 0:
        core()
    os.closerange(3, 1 << 16)
    try:
        _wait_for_either(pid, launcher)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        cgroups.sweep(name, KILL_SECONDS)
    finally:
        os._exit(0)


def _wait_for_either(core: int, launcher: int | None) -> None:
    """Return when the core has ended, or the launcher that it is not to outlive."""
    ends = [os.pidfd_open(core)]
    if launcher is not None:
        with contextlib.suppress(ProcessLookupError):
            ends.append(os.pidfd_open(launcher))
        if os.getppid() != launcher:  # it had ended before, and the descriptor may be somebody else's
            return
    select.select(ends, [], [])


def _await(reading: int) -> tuple[bool, str]:
    """Whether the core is up, and what it says: its pid, or what went wrong."""
    with open(reading, "rb") as stream:
        raw = stream.read()
    if not raw:
        return False, "the core died while booting"
    return raw[:1] == b"+", raw[1:].decode("utf-8", "replace")


def _core(
    name: str,
    composition: Composition,
    variant: Variant,
    view: list[Path],
    owner: int,
    sock: socket.socket,
    report: int,
) -> None:
    """The core's life; does not return."""
    status = 1
    try:
        needed = [*namespaces.interpreter_paths(), ROOT, *view]
        groups = Groups.start(name)
        zygote = Zygote.start(preload_modules(composition), needed if os.geteuid() == 0 else (), groups)
        sys.setswitchinterval(SWITCH_SECONDS)
        kernel = Kernel(name, composition, owner, zygote, variant)
        kernel.clients.listen(sock)

        def booted(failure: str) -> None:
            console = kernel.serial.tail()[1].decode("utf-8", "replace") if failure else ""
            os.write(report, (f"!{failure}\n{console}" if failure else f"+{kernel.core_pid}").encode())
            os.close(report)

        kernel.boot(booted)
        kernel.loop.run()
        status = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(report, b"!" + f"{type(error).__name__}: {error}".encode())
        if not isinstance(error, HmkError):
            traceback.print_exc()
    os._exit(status)


def connect(name: str, timeout: float = 5.0) -> Channel:
    """Connect to a running system, and check that it is run by root or by this user.

    Raises:
        BootError: nothing of that name is up, or somebody else holds its name.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    give_up = time.monotonic() + timeout
    while True:
        try:
            sock.connect(address(name))
            break
        except ConnectionRefusedError as error:
            sock.close()
            raise BootError(f"no system named {name!r} is up; start one with `launcher.py up`") from error
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)
    uid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if uid not in (0, os.getuid()):
        sock.close()
        raise BootError(f"the name {name!r} is held by user {uid}, which is neither root nor you")
    return Channel(sock)
