"""Commands about what runs, and what is mounted: ps, kill, top, df, mount, umount."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import time
from typing import TYPE_CHECKING

from corekernel.channel import Message
from corekernel.cli.text import amount, duration, label, table
from corekernel.cli.top import render, views
from corekernel.errors import CallError, ServiceError
from corekernel.process_table import LIVE
from shim.shell.listing import owner
from shim.shell.table import Names, Options, Usage, command

if TYPE_CHECKING:
    from shim.shell.shell import Shell

# ---- processes


@command("")
def ps(shell: Shell, options: Options, names: Names) -> None:
    """List services, and programs with their numbers.

    "host" is the number by which the host knows a process.
    """
    rows: list[tuple[str, ...]] = [("pid", "parent", "user", "host", "time", "state", "name")]
    with contextlib.suppress(CallError):  # only the owner may ask for services
        for process in shell.system.ask("status")["processes"]:
            serves = ", ".join(f"{service['name']} ({service['class']})" for service in process["services"])
            rows.append(("-", "-", owner(process["uid"]), str(process["pid"] or "-"), "", process["state"], serves))
    now = time.monotonic_ns()
    for record in shell.system.processes():
        state = "live" if record.state == LIVE else "ended"
        lived = duration((now - record.started_ns) / 1e9)
        cells = (str(record.pid), str(record.parent), owner(record.uid), str(record.host_pid), lived, state)
        rows.append((*cells, label(record.name)))
    shell.say("\n".join(table(rows, right=(0, 1, 3, 4))))


@command("[-SIGNAL] PROCESS...", None)
def kill(shell: Shell, options: Options, names: Names) -> None:
    """End programs, by number, or services, by name.

    A program gets SIGTERM or the signal named, a service always SIGKILL: it is started again at once.
    """
    number = signal.SIGTERM
    if names and names[0].startswith("-"):
        number, names = _signal(names[0][1:]), names[1:]
    if not names:
        raise Usage("missing operand")
    for name in names:
        with shell.tries(name):
            if name.isdecimal():
                _kill_program(shell, int(name), number)
            else:
                _kill_service(shell, name)


def _signal(word: str) -> signal.Signals:
    try:
        return signal.Signals(int(word)) if word.isdecimal() else signal.Signals["SIG" + word.removeprefix("SIG")]
    except (KeyError, ValueError):
        raise Usage(f"{word!r} is no signal") from None


def _kill_program(shell: Shell, pid: int, number: int) -> None:
    try:
        shell.system.procmgr.kill(pid, number)
    except ServiceError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None


def _kill_service(shell: Shell, name: str) -> None:
    """For the demonstration: the core starts it again, and no program notices."""
    process = next((p for p in shell.system.ask("status")["processes"] if name in _served(p)), None)
    if process is None:
        shell.complain(f"{name}: no such service")
    elif process["name"] == "core":
        shell.complain(f"{name}: it is in the core's process, and would take the system with it")
    elif not process["pid"]:
        shell.complain(f"{name}: it is not up")
    else:
        os.kill(process["pid"], signal.SIGKILL)
        shell.say(f"kill -9 {process['pid']} ({', '.join(sorted(_served(process)))})")


def _served(process: Message) -> set[str]:
    return {process["name"], *(str(service["name"]) for service in process["services"])}


@command("")
def top(shell: Shell, options: Options, names: Names) -> None:
    """Look at the services for one second: calls, latencies, CPU time."""
    with contextlib.closing(views(shell.system, 1.0)) as found:
        for view in itertools.islice(found, 1):
            shell.say(render(view, int(shell.system.ask("status")["tick_khz"])))


# ---- mounts


@command("[PATH]...")
def df(shell: Shell, options: Options, names: Names) -> None:
    """Show how much space file systems have."""
    mounted = {mount.path: mount for mount in shell.files.mounts()}
    rows: list[tuple[str, ...]] = [("filesystem", "kind", "size", "used", "available", "use", "mounted on")]
    for path in names or mounted:
        with shell.tries(path):
            found = shell.files.statvfs(shell.here(path))
            mount = mounted[_mount_of(os.path.join(shell.files.getcwd(), path), list(mounted))]
            size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
            share = f"{100 * (size - free) / size:.0f}%" if size else "-"
            sizes = (amount(size), amount(size - free), amount(free)) if size else ("-", "-", "-")
            rows.append((mount.source, mount.kind, *sizes, share, mount.path))
    if len(rows) > 1:
        shell.say("\n".join(table(rows, right=(2, 3, 4, 5))))


def _mount_of(path: str, mounted: Names) -> str:
    """On which of the mounts a path is."""
    path = os.path.normpath(path)
    above = [mount for mount in mounted if path == mount or path.startswith(mount.rstrip("/") + "/")]
    return max(above, key=len, default="/")


@command("[KIND DIRECTORY]")
def mount(shell: Shell, options: Options, names: Names) -> None:
    """List what is mounted, or mount a file system: hostfs or proc."""
    if len(names) not in (0, 2):
        raise Usage("a kind and a directory, or neither")
    if names:
        with shell.tries(names[1]):
            shell.files.mount(names[0], shell.here(names[1]))
        return
    for found in shell.files.mounts():
        how = found.options if isinstance(found.options, str) else json.dumps(found.options)
        shell.say(f"{found.source} on {found.path} type {found.kind} ({how})")


@command("DIRECTORY...")
def umount(shell: Shell, options: Options, names: Names) -> None:
    """Unmount what is mounted on directories."""
    for name in names:
        with shell.tries(name):
            shell.files.unmount(shell.here(name))
