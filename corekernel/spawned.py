"""A process that a zygote started, as the core holds it: `Spawned`."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass

from corekernel.cgroups import Group
from corekernel.channel import Channel, ChannelClosed, Message
from corekernel.errors import HmkError


class ZygoteDied(HmkError):
    """The zygote is gone; `Zygote.restart` makes another."""


class SpawnError(HmkError, OSError):
    """The process could not be started: `errno`, `strerror`, and `filename` where a path is to blame."""

    def __init__(self, number: int, text: str, path: str | None = None) -> None:
        OSError.__init__(self, number, text, path)


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process of the system, child of the core. The holder closes `pidfd`.

    Attributes:
        pid: its pid in the core's namespace.
        pidfd: readable when it has ended.
        host_pid: its pid in the host's /proc.
        group: its control group, to be retired when it has ended; None where there is none.
    """

    pid: int
    pidfd: int
    host_pid: int
    group: Group | None = None

    def reap(self, block: bool = True) -> int | None:
        """Collect its end: exit status, or minus the signal; None while it runs or if collected already."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | (0 if block else os.WNOHANG))
        except ChildProcessError:
            return None
        if result is None:
            return None
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def kill(self) -> None:
        """Send SIGKILL, if it still lives."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return


def born(channel: Channel, seconds: float, group: Group | None = None) -> Spawned:
    """Receive a zygote's introduction, or raise what prevented it."""
    try:
        message, fds = channel.recv(seconds)
    except TimeoutError as error:
        raise SpawnError(errno.ETIMEDOUT, "no zygote was born in time") from error
    except ChannelClosed as error:
        raise ZygoteDied("the zygote died") from error
    if "error" in message:
        raise failure(message)
    return Spawned(message["pid"], fds[0], message["host"], group)


def failure(message: Message) -> SpawnError:
    """What a zygote says that it could not do."""
    return SpawnError(message["errno"], message["error"], message["path"])
