"""A system and the terminal it was started from: in its session, but out of its reach."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

import shim
from corekernel import boot
from tests.processes import alive, stat_of, until
from tests.systems import system_name
from tests.terminals import Terminal, terminal

SESSION, TERMINAL = 3, 4  # fields of /proc/PID/stat, as `stat_of` gives them


@pytest.fixture
def shell() -> Iterator[Terminal]:
    with terminal(["/bin/sh"]) as made:
        yield made


@contextlib.contextmanager
def detached(shell: Terminal) -> Iterator[str]:
    """A system that `up -d` left behind on that terminal."""
    name = system_name()
    shell.type(f"{sys.executable} {boot.ROOT}/launcher.py up -d --name {name} && echo it is''up\n")
    try:
        shell.read_until("it isup")
        yield name
    finally:
        with shim.attach(name) as system:
            system.attachment.ask({"do": "down"})


def pids_of(name: str) -> list[int]:
    """Every process of a system, as the host numbers them."""
    with shim.attach(name) as system:
        status, _ = system.attachment.ask({"do": "status"})
    return [status["keeper_pid"], status["core_pid"], *(int(p["pid"]) for p in status["processes"] if p["pid"])]


def test_a_system_is_in_its_terminal_s_session_without_having_the_terminal(shell: Terminal) -> None:
    with detached(shell) as name:
        pids = pids_of(name)
        stats = [stat_of(pid) for pid in pids]
        assert len(pids) >= 5 and stat_of(shell.pid) is not None
        for stat in stats:
            assert stat is not None
            assert (int(stat[SESSION]), int(stat[TERMINAL])) == (shell.pid, 0)


def test_a_detached_system_outlives_its_terminal(shell: Terminal) -> None:
    with detached(shell) as name:
        shell.hang_up()
        until(lambda: not alive(shell.pid), "the shell ends with its terminal")
        with shim.attach(name) as system:
            assert len(system.client("example").digest(b"still here")) == 32


def test_ctrl_c_at_the_terminal_ends_a_foreground_system_in_order(shell: Terminal) -> None:
    name = system_name()
    shell.type(f"{sys.executable} {boot.ROOT}/launcher.py up --name {name}; echo status''=$?\n")
    shell.read_until("Ctrl-C")
    pids = pids_of(name)
    shell.type("\x03")
    shell.read_until("is down")
    shell.read_until("status=0")
    until(lambda: not any(alive(pid) for pid in pids), "no process of it is left")
