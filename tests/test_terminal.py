"""A system and the terminal it was started from: in its session, but out of its reach."""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import shim
from corekernel import boot
from services.devmgr import console as ioctl
from services.devmgr.termios import Termios
from tests.processes import alive, stat_of, until
from tests.systems import CALL_SECONDS, system_name
from tests.terminals import Terminal, terminal
from tests.test_devmgr import AGENT, Client

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


def test_a_program_has_the_terminal_of_a_foreground_system(shell: Terminal, tmp_path: Path) -> None:
    name = system_name()
    composition = tmp_path / "interactive.toml"
    composition.write_text(f'inherit = "default"\n{AGENT}')
    shell.resize(33, 101)
    up = f"{sys.executable} {boot.ROOT}/launcher.py up -c {composition} --name {name}"
    shell.type(f"{up}; echo status''=$?; stty -a | tr ';' ' '\n")
    shell.read_until("Ctrl-C")
    with shim.attach(name, CALL_SECONDS) as system:
        client = Client(system)
        tty = client.open("console")
        shell.type("typed\x7f\x7fos\r")
        shell.read_until("typed\b \b\b \bos\r")
        assert client.read(tty) == b"typos\n"
        size = until(lambda: client.control(tty, ioctl.TIOCGWINSZ)[:4].strip(b"\0"), "the size is known")
        assert size == struct.pack("<2H", 33, 101).strip(b"\0")
        shell.resize(20, 40)
        until(lambda: client.control(tty, ioctl.TIOCGWINSZ)[:4] == struct.pack("<2H", 20, 40), "the new size is")
        client.write(tty, b"\x1b[1manswer\n")
        shell.read_until("\x1b[1manswer\r")
        client.configure(tty, replace(Termios(), lflag=0, iflag=0))
        for keys in ("\x03\x1a\x1c\x04\r", "\x1b[A\xe4\u20ac"):
            shell.type(keys)
            typed = b""
            while len(typed) < len(keys.encode()):
                typed += client.read(tty)
            assert typed == keys.encode()
    shell.type("\x1d")
    shell.read_until("is down")
    shell.read_until("status=0")
    shell.read_until("\nisig icanon ")
