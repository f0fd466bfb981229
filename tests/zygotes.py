"""Cores with zygotes for one test, and the entries of the services that they start."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from corekernel.channel import Channel, ChannelClosed
from corekernel.confine import Confinement
from corekernel.spawned import Spawned
from corekernel.zygote import Zygote
from tests.forbidden import attempt_all
from tests.forked import UID, as_root, run_forked

HERE = "tests.zygotes"
SERVICE = Confinement(uid=UID if as_root else None)
CLIENT = Confinement.client(UID if as_root else None)
OPEN = Confinement(landlock=False, seccomp="none", network=True)


# Entries of services ----------------------------------------------------------------------------------------


def echo(spec: dict[str, Any], fds: list[int]) -> int:
    """Answer each message with itself and the descriptors that came; end with the channel."""
    with Channel(fds[0]) as channel:
        try:
            while True:
                message, received = channel.recv()
                channel.send({"spec": spec, "message": message, "fds": len(received)}, received)
                for fd in received:
                    os.close(fd)
        except ChannelClosed:
            return 7


def look_around(spec: dict[str, Any], fds: list[int]) -> None:
    """Say what this process has got."""
    with Channel(os.dup(fds[0])) as channel:
        listing = os.open("/proc/self/fd", os.O_RDONLY)
        found = sorted(int(name) for name in os.listdir(listing))
        os.close(listing)
        numbers = [fd for fd in found if fd not in (listing, channel.fileno())]
        channel.send(
            {
                "fds": fds,
                "numbers": [fd for fd in numbers if os.path.exists(f"/proc/self/fd/{fd}")],
                "inheritable": [fd for fd in fds if os.get_inheritable(fd)],
                "null": os.path.samefile("/dev/null", "/proc/self/fd/0"),
                "parent": os.getppid(),
                "pid": os.getpid(),
                "group": os.getpgrp() == os.getpid(),
                "threads": len(os.listdir("/proc/self/task")),
                "cwd": os.getcwd(),
                "contents": [os.pread(fd, 10, 0).decode() for fd in fds[1:]],
            }
        )


def attack(spec: dict[str, Any], fds: list[int]) -> None:
    with Channel(fds[0]) as channel:
        channel.send(attempt_all(spec["core"], spec["victim"], fds[1]))


def fail(spec: dict[str, Any], fds: list[int]) -> None:
    print("to standard output")
    raise RuntimeError(spec["text"])


def leave(spec: dict[str, Any], fds: list[int]) -> None:
    sys.exit(spec["code"])


def sleep_forever(spec: dict[str, Any], fds: list[int]) -> None:
    signal.pause()


# Helpers ----------------------------------------------------------------------------------------------------


def in_core(body: Callable[[Zygote], Any], view: Iterable[Path] = ()) -> Any:
    """Run `body` in a forked core with zygotes."""

    def core() -> Any:
        zygote = Zygote.start([HERE], view)
        result = body(zygote)
        zygote.close()
        return result

    return run_forked(core)


def serve_echo(zygote: Zygote, confinement: Confinement = SERVICE) -> tuple[Spawned, Channel]:
    ours, theirs = Channel.pair()
    with theirs:
        process = zygote.spawn(f"{HERE}:echo", {"name": "echo"}, [theirs.fileno()], confinement)
    return process, ours


def ask(channel: Channel, number: int) -> bool:
    channel.send({"n": number})
    return channel.recv(10)[0] == {"spec": {"name": "echo"}, "message": {"n": number}, "fds": 0}


def ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 10)[0])


def run_client(zygote: Zygote, argv: list[str], **options: Any) -> tuple[int | None, str]:
    """Run a program to its end; return its status and output."""
    reader, writer = os.pipe()
    process = zygote.spawn_exec(argv, {"PATH": "/bin:/usr/bin"}, stdio=(0, writer, writer), **options)
    os.close(writer)
    with os.fdopen(reader) as file:
        output = file.read()
    status = process.reap()
    os.close(process.pidfd)
    return status, output


def offspring(pid: int) -> set[int]:
    """Children of a process, zombies too."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
