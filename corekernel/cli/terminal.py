"""The user's terminal as that of a system's console: keys go to the system as they are typed, and its size with them.

It is in raw mode meanwhile, so that the system's own line discipline sees every key. Two keys may end the system:
Ctrl-] always does, Ctrl-C does unless a program has the console open, whose it is then. What the console says is shown
as it is: a terminal obeys what programs write to it.
"""

from __future__ import annotations

import json
import os
import select
import termios
import time
from types import TracebackType
from typing import Any

import shim
from corekernel import boot
from corekernel.errors import CallError

ESCAPE, INTERRUPT = b"\x1d", b"\x03"
IDLE_SECONDS = 0.2
BUSY_SECONDS = 0.02
BUSY_FOR = 1.0
ASK_SECONDS = 1.0
KEYS = 4096
_INPUT = termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.INPCK | termios.ISTRIP | termios.IXON
_LOCAL = termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG


class Terminal:
    """The terminal that this process was started from, if it is in the foreground of one; else nothing is typed."""

    def __init__(self, system: shim.System) -> None:
        self._system = system
        self._before: list[Any] | None = None
        self._pending = b""
        self._size: tuple[int, ...] = (0, 0)  # columns, lines
        self._hung_up = False
        self._busy_until = 0.0

    @property
    def raw(self) -> bool:
        """Whether keys go to the system."""
        return self._before is not None

    def __enter__(self) -> Terminal:
        if os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp():
            self._before = termios.tcgetattr(0)
            settings = termios.tcgetattr(0)
            settings[0] &= ~_INPUT
            settings[3] &= ~_LOCAL
            settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSADRAIN, settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._before)
            self._before = None

    def wait(self, running: boot.Running) -> bool:
        """Hand keys over until it is time to look at the console; whether the system has ended.

        Raises:
            KeyboardInterrupt: the user wants it to end.
        """
        busy = self._pending or time.monotonic() < self._busy_until
        keys = [0] if self.raw and not self._pending and not self._hung_up else []
        ready, _, _ = select.select([running.pidfd, *keys], [], [], BUSY_SECONDS if busy else IDLE_SECONDS)
        if running.pidfd in ready:
            return True
        if self.raw:
            self._hand_over(self._keys() if 0 in ready else b"")
        return False

    def _keys(self) -> bytes:
        try:
            typed = os.read(0, KEYS)
        except OSError:
            typed = b""
        self._hung_up = not typed
        return typed

    def _hand_over(self, typed: bytes) -> None:
        if ESCAPE in typed or (INTERRUPT in typed and not self._console_is_open()):
            raise KeyboardInterrupt
        self._pending += typed
        size = self._size if self._hung_up else tuple(os.get_terminal_size(0))
        if not self._pending and size == self._size:
            return
        text = self._pending.decode("utf-8", "surrogateescape")
        taken = self._system.ask("input", text=text, window=[size[1], size[0]])["taken"]
        self._pending, self._size = self._pending[taken:], size
        self.stay_busy()

    def stay_busy(self) -> None:
        """Something happens: look more often for a while."""
        self._busy_until = time.monotonic() + BUSY_FOR

    def _console_is_open(self) -> bool:
        """Whether a program is there to get a Ctrl-C."""
        try:
            devices = json.loads(bytes(self._system.client("devmgr", timeout=ASK_SECONDS).devices()))
        except CallError:
            return False
        return any(device["opens"] for device in devices if device["kind"] == "serial")
