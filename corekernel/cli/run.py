"""`run`: a program as a client of the system, as if it had been started from this shell.

The program gets our standard input, output and error, our environment and our directory, a user id of its own
(when the core is root) and a channel to the core that is attached already. SIGINT, SIGTERM, SIGHUP and SIGQUIT
that come to us go to it. Our exit status is its own: 128 plus the signal that killed it, 127 when there is no such
program, 126 when it cannot be started.

Without a system's name one is booted for the program alone, and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import shim
from corekernel import boot, composition
from corekernel.attachment import Detached
from corekernel.cli import systems
from corekernel.errors import CallError

NOT_FOUND = 127
NOT_STARTED = 126
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def run(argv: Sequence[str], source: str | None, name: str | None) -> int:
    """Run a program on a running system (`name`) or on one booted for it from `source`; its exit status.

    Raises:
        CompositionError, BootError: there is no system to run it on.
    """
    argv = [sys.executable if argv[0] in ("python", "python3") else argv[0], *argv[1:]]
    refused = _refusal(argv[0])
    if refused:
        print(f"{argv[0]}: {refused[1]}", file=sys.stderr)
        return refused[0]
    if name is not None:
        with shim.attach(name) as system:
            return _serve(system, argv)
    running = boot.launch(f"run-{os.getpid()}", composition.load(source or "default"), view=_needed(argv))
    try:
        with shim.attach(running.name) as system:
            status = _serve(system, argv)
            with contextlib.redirect_stdout(sys.stderr):  # what services said is not the program's output
                systems.copy_console(system)
            return status
    finally:
        systems.end(running)


def _refusal(program: str) -> tuple[int, str] | None:
    """Exit status and reason when a program surely cannot be started."""
    if shutil.which(program) is not None:
        return None
    if "/" in program and os.path.exists(program):
        return NOT_STARTED, "not an executable file"
    return NOT_FOUND, "no such program"


def _needed(argv: Sequence[str]) -> list[Path]:
    """Directories that the program must reach under its own user id: ours, and those of the files it is given."""
    files = [Path(word) for word in argv if os.path.isfile(word)]
    return [Path.cwd(), *(file.absolute().parent for file in files)]


def _environment() -> dict[str, str]:
    """Ours, with this checkout importable."""
    paths = [str(boot.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _serve(system: shim.System, argv: Sequence[str]) -> int:
    """Start the program on an attached system and see it through; its exit status."""
    # Before the start: a signal that comes just after it must not be ours to die of.
    with _Forwarding() as forwarding:
        started = _start(system, argv)
        if started is None:
            return NOT_STARTED
        number, pid = started
        forwarding.aim(system, number, pid)
        status = _result(system, number)
    return status if status >= 0 else 128 - status


def _start(system: shim.System, argv: Sequence[str]) -> tuple[int, int] | None:
    """Start the program on our standard streams; its number and host pid, or None when it was refused."""
    request = {"do": "run", "argv": list(argv), "env": _environment(), "cwd": os.getcwd()}
    try:
        started, _ = system.attachment.ask(request, (0, 1, 2))
    except Detached:
        raise
    except CallError as error:
        print(f"{argv[0]}: not started: {error}", file=sys.stderr)
        if "Permission denied" in str(error):
            print("a program runs under a user id of its own, which must be able to reach it", file=sys.stderr)
        return None
    return int(started["number"]), int(started["pid"])


def _result(system: shim.System, number: int) -> int:
    """Exit status of a program, or minus the signal that ended it.

    A thread waits: the main thread stays free for signals, whose handlers may ask the core too.
    """
    results: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()

    def wait() -> None:
        try:
            results.put(int(system.ask("result", number=number)["status"]))
        except Exception as error:
            results.put(error)

    threading.Thread(target=wait, daemon=True).start()
    result = results.get()
    if isinstance(result, Exception):
        raise result
    return result


class _Forwarding:
    """While entered, signals that come to us go to the program; those that come before `aim` wait for it."""

    def __init__(self) -> None:
        self._waiting: list[int] = []
        self._send: Callable[[int], None] = self._waiting.append
        self._handlers: dict[int, Any] = {}
        self._pidfd = -1

    def __enter__(self) -> _Forwarding:
        for number in FORWARDED:
            self._handlers[number] = signal.signal(number, lambda sent, frame: self._send(sent))
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def aim(self, system: shim.System, number: int, pid: int) -> None:
        """The program runs: forward to it from now on."""
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            return

        def send(sent: int) -> None:
            try:
                signal.pidfd_send_signal(self._pidfd, sent)
            except ProcessLookupError:
                return
            except PermissionError:  # the program has a user id of its own, and we are not root
                system.procmgr.kill(number, sent)

        self._send = send
        for sent in self._waiting:
            send(sent)
