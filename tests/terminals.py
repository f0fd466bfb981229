"""Programs on a terminal of their own, as tests type to them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PATIENCE = 40.0


@dataclass
class Terminal:
    """A terminal and the program that has it."""

    pid: int
    master: int
    unread: str = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_until(self, wanted: str) -> str:
        """What it shows, up to a text."""
        give_up = time.monotonic() + PATIENCE
        while wanted not in self.unread:
            left = max(0.0, give_up - time.monotonic())
            assert select.select([self.master], [], [], left)[0], f"no {wanted!r} in {self.unread!r}"
            self.unread += os.read(self.master, 65536).decode(errors="replace")
        before, found, self.unread = self.unread.partition(wanted)
        return before + found

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("<4H", rows, columns, 0, 0))

    def hang_up(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


@contextlib.contextmanager
def terminal(argv: list[str], env: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """A program on a terminal; killed at the end if it still lives."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, {**os.environ, **(env or {})})
    shown = Terminal(pid, master)
    try:
        yield shown
    finally:
        shown.hang_up()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
