"""`shell`: a shell on a running system, or on one that is booted for it and ends with it."""

from __future__ import annotations

import os
import sys

import shim
from corekernel import boot, composition
from corekernel.cli import systems

DEFAULT = "default"


def shell(name: str | None, source: str | None, line: str | None) -> int:
    """Run a line, what a terminal or a pipe gives; the status of the last command.

    Args:
        name: the system; None: the one named "default" or, if it is not up, one of our own.
        source: a composition that one of our own is booted from in any case.
        line: the line; None: standard input.

    Raises:
        CompositionError, BootError: there is no system to run it on.
    """
    if source is None and (name is not None or _is_up(DEFAULT)):
        return _serve(name or DEFAULT, line)
    running = boot.launch(f"shell-{os.getpid()}", composition.load(source or DEFAULT))
    try:
        return _serve(running.name, line)
    finally:
        systems.end(running)


def _is_up(name: str) -> bool:
    try:
        boot.connect(name).close()
    except boot.BootError:
        return False
    return True


def _serve(name: str, line: str | None) -> int:
    with shim.attach(name) as system:
        return on(system, name, line)


def on(system: shim.System, name: str, line: str | None = None) -> int:
    """The same on an attached system."""
    from shim.shell.completion import at_terminal
    from shim.shell.shell import Shell

    made = Shell(system, name)
    if line is not None:
        return made.script(iter(line.split("\n")))
    if not made.interactive:
        return made.script(text.decode("utf-8", "surrogateescape") for text in sys.stdin.buffer)
    print(f"The files of {name}. `help` lists the commands, Tab completes, Ctrl-D leaves.")
    with at_terminal(made):
        return made.converse()
