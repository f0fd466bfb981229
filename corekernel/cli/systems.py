"""`up`, `down` and `logs`: the life of a system as the user sees it.

`up` launches before this process makes any thread. In the foreground it then stays attached as the owner and
copies the console out, and keys in (`terminal.py`), until the system ends or a signal comes; SIGINT and SIGTERM
end the system in order, and if that takes too long, at once. Detached, it prints the tree and returns.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import shim
from corekernel import boot, composition
from corekernel.attachment import Detached
from corekernel.cli import status
from corekernel.cli.terminal import Terminal
from corekernel.cli.text import plain
from corekernel.errors import CallError

POLL_SECONDS = 0.2
DOWN_SECONDS = 5.0


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: like Ctrl-C, and the exit status tells."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def on_termination() -> None:
    """Have SIGTERM and SIGHUP unwind this process as Ctrl-C does."""

    def handler(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def up(name: str, source: str, detached: bool) -> int:
    """Boot a composition as system `name`; exit status.

    Raises:
        CompositionError: the composition is wrong.
        BootError: it did not come up, or the name is taken.
    """
    running = boot.launch(name, composition.load(source), detached=detached)
    try:
        with shim.attach(name) as system:
            print(status.tree(system.ask("status")), flush=True)
            if detached:
                return 0
            _follow(system, running)
        running.kill()  # its keeper may have been killed, and left control groups
    except KeyboardInterrupt as error:
        ended = end(running)
        print(f"\n{name} {'is down' if ended else 'did not stop and was killed'}", flush=True)
        return 128 + error.number if isinstance(error, Terminated) else 0
    except BaseException:
        running.kill()
        raise
    print(f"{name} has ended", flush=True)
    return 0


def _follow(system: shim.System, running: boot.Running) -> None:
    """Copy the console, and keys to it, until the system ends."""
    position, ended = 0, False
    with Terminal(system) as terminal:
        print("\nCtrl-C ends it (Ctrl-] while a program has the console); the console follows.", flush=True)
        while not ended:
            with contextlib.suppress(Detached):
                ended = terminal.wait(running)
                before = position
                position = copy_console(system, position, str if terminal.raw else plain)
                if position != before:
                    terminal.stay_busy()


def copy_console(system: shim.System, position: int = 0, shown: Callable[[str], str] = plain) -> int:
    """Print what the console has said since a position, as `shown` makes it; the position now."""
    while True:
        reply = system.ask("logs", after=position)
        if not reply["text"]:
            return position
        print(shown(str(reply["text"])), end="", flush=True)
        position = int(reply["position"])


def end(running: boot.Running) -> bool:
    """End a system that this process launched; whether it went in order."""
    with contextlib.suppress(CallError, boot.BootError), shim.attach(running.name) as system:
        system.ask("down")
    ended = running.wait(DOWN_SECONDS)
    running.kill()
    return ended


def down(name: str) -> int:
    """End a running system and wait until nothing of it is left; exit status."""
    with shim.attach(name) as system:
        keeper = os.pidfd_open(int(system.ask("status")["keeper_pid"]))
        system.ask("down")
    # The keeper ends last: it removes what the core, and as root with it every process of the system, left behind.
    ended = bool(select.select([keeper], [], [], DOWN_SECONDS)[0])
    os.close(keeper)
    print(f"{name} is down" if ended else f"{name} is still stopping", file=sys.stdout if ended else sys.stderr)
    return 0 if ended else 1


def logs(name: str, follow: bool) -> int:
    """Print the console, and what comes if asked to, until the system ends; exit status."""
    with shim.attach(name) as system:
        position = copy_console(system, 0)
        while follow:
            time.sleep(POLL_SECONDS)
            try:
                position = copy_console(system, position)
            except Detached:
                break
    return 0
