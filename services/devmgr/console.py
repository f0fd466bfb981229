"""The console: one terminal between the core's serial console and whoever has it open.

Two threads of its own, which sleep while nothing is typed or written. The *input* thread takes what was typed from the
core, feeds the line discipline and wakes readers; the *output* thread hands echo and output to the core, and signals to
the process manager. Handlers of clients only change the terminal, under the lock, and never wait in it.

What happens is committed as a whole, with the lock held, before anybody sees it (`journal.py`): the terminal, how far
input was taken and output handed over, the answer of the request. Input stays with the core until it is committed
here, and output is handed over with its position, so a kill at any moment loses no byte and doubles none. A signal may
be sent twice: its sending and its commit are two things.
"""

from __future__ import annotations

import contextlib
import errno
import struct
import threading
from collections.abc import Callable
from signal import SIGWINCH

from corekernel.condition import Condition
from corekernel.errors import HmkError, ServiceError
from corekernel.port import Caller
from services.devmgr import termios
from services.devmgr.journal import Answer, Answers, Journal
from services.devmgr.termios import Termios
from services.devmgr.tty import QUEUE_BYTES, Tty
from services.stubs.core import CoreClient

INPUT_BYTES = 3500
OUTPUT_BYTES = 64 << 10
READ, WRITE, CONTROL = 3, 4, 5
POLL_IN, POLL_OUT, POLL_HUP = 0x1 | 0x40, 0x4 | 0x100, 0x10

TCGETS, TCSETS, TCSETSW, TCSETSF = 0x5401, 0x5402, 0x5403, 0x5404
TCFLSH, TIOCGPGRP, TIOCSPGRP, TIOCGWINSZ, TIOCSWINSZ, FIONREAD = 0x540B, 0x540F, 0x5410, 0x5413, 0x5414, 0x541B
_FLUSH_INPUT = (0, 2)
_LAST_FLUSH = 2

_HEADER = struct.Struct("<QQQI?3x")
_WINDOW = struct.Struct("<4H")
_NUMBER = struct.Struct("<i")

NO_ANSWER = Answer()
Kill = Callable[[int, int], None]


class Console:
    """The terminal, its threads, and what clients do to it. `kill(pid, signal)` sends a signal, or raises."""

    def __init__(
        self, core: CoreClient, kill: Kill, changed: Condition, journal: memoryview, lanes: memoryview
    ) -> None:
        self._core = core
        self._kill = kill
        self._changed = changed
        self._journal = Journal(journal)
        self._answers = Answers(lanes)
        lock = threading.Lock()
        # All below is the lock's.
        self._lock = lock
        self._room = threading.Condition(lock)  # the queue may have room
        self._produced = threading.Condition(lock)  # there is output, or a signal
        self._tty = Tty()
        self._taken = 0  # position of the input that is in the terminal
        self._shown = 0  # position of the output that the core has
        self._foreground = 0
        self._known = 0  # the window as the core last told it: columns << 16 | rows
        self.ended = False
        self._restore()

    def start(self) -> None:
        """Begin to take input and to hand over output."""
        for work in (self._take_input, self._hand_over):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()

    # ---- state

    def _restore(self) -> None:
        state = self._journal.load()
        if state is None:
            return
        self._taken, self._shown, self._foreground, self._known, self.ended = _HEADER.unpack_from(state)
        answer, end = Answer.unpack(state[_HEADER.size :])
        self._answers.store(answer)
        self._tty = Tty.unpack(state[_HEADER.size + end :])

    def _commit(self, answer: Answer = NO_ANSWER) -> None:
        """From here on it has happened, even if this process is killed."""
        header = _HEADER.pack(self._taken, self._shown, self._foreground, self._known, self.ended)
        self._journal.commit(b"".join((header, answer.pack(), self._tty.pack())))
        self._answers.store(answer)
        if self._tty.output or self._tty.signals:
            self._produced.notify()

    def _answered(self, caller: Caller, request: int, operation: int) -> Answer | None:
        return self._answers.find(caller.client, request, operation)

    def clients(self) -> list[int]:
        """Whoever has answers here."""
        return self._answers.clients()

    def client_gone(self, client: int) -> None:
        """Forget a client, and that it was in the foreground."""
        with self._lock:
            self._answers.forget(client)
            if self._foreground == client:
                self._foreground = 0
                self._commit()

    # ---- the two threads

    def _take_input(self) -> None:
        with contextlib.suppress(HmkError):  # the core is gone, and we shall be
            while not self.ended:
                typed = self._core.serial_read(self._taken, INPUT_BYTES, self._known)
                if typed.ended or typed.window != self._known:
                    self._other_end(typed.window, typed.ended)
                self._feed(typed.data)

    def _other_end(self, window: int, ended: bool) -> None:
        """The window at the other end has another size, or nothing more will be typed."""
        with self._lock:
            if window != self._known:
                self._known = window
                self._set_window(window & 0xFFFF, window >> 16)
            self.ended = ended
            self._commit()
        self._changed.notify()

    def _feed(self, data: bytes) -> None:
        while data:
            with self._lock:
                while not (count := self._tty.receive(data)):
                    self._room.wait()
                data = data[count:]
                self._taken += count
                self._commit()
            self._changed.notify()

    def _set_window(self, rows: int, columns: int) -> None:
        if (rows, columns) != self._tty.window:
            self._tty.window = rows, columns
            self._tty.raise_signal(SIGWINCH)

    def _hand_over(self) -> None:
        with contextlib.suppress(HmkError):
            while True:
                with self._lock:
                    while not (self._tty.output or self._tty.signals):
                        self._produced.wait()
                    data, position = bytes(self._tty.output[:OUTPUT_BYTES]), self._shown
                    signals, target = bytes(self._tty.signals), self._foreground
                if data:
                    self._core.console_write(position, data)
                for number in signals if target else ():
                    with contextlib.suppress(HmkError):  # it has ended, or may not be signalled
                        self._kill(target, number)
                self._handed_over(len(data), len(signals))

    def _handed_over(self, shown: int, sent: int) -> None:
        with self._lock:
            del self._tty.output[:shown]
            self._shown += shown
            if sent:
                del self._tty.signals[:sent]
                self._commit()
        self._changed.notify()

    # ---- readers and writers

    def read(self, caller: Caller, request: int, size: int, wait: bool) -> bytes:
        """Read; an end of input is the end of the file.

        Raises:
            ServiceError: EAGAIN, there is nothing and the reader will not wait.
            WouldWait: there is nothing yet.
        """
        size = min(size, QUEUE_BYTES)
        if wait:
            return self._changed.wait_for(caller, lambda: self._read(caller, request, size, True))
        data = self._read(caller, request, size, False)
        if data is None:
            raise ServiceError(errno.EAGAIN)
        return data

    def _read(self, caller: Caller, request: int, size: int, wait: bool) -> bytes | None:
        with self._lock:
            answer = self._answered(caller, request, READ)
            if answer is not None:
                return answer.data
            data = self._tty.read(size, wait and not self.ended)
            if data is None:
                return b"" if self.ended else None
            self._commit(Answer(request, caller.client, READ, 0, data))
            self._room.notify()
        return data

    def write(self, caller: Caller, request: int, data: memoryview, wait: bool) -> int:
        """Write as much as there is room for; its length.

        Raises:
            ServiceError: EAGAIN, there is no room and the writer will not wait.
            WouldWait: there is no room yet.
        """
        if wait:
            return self._changed.wait_for(caller, lambda: self._write(caller, request, data))
        written = self._write(caller, request, data)
        if written is None:
            raise ServiceError(errno.EAGAIN)
        return written

    def _write(self, caller: Caller, request: int, data: memoryview) -> int | None:
        with self._lock:
            answer = self._answered(caller, request, WRITE)
            if answer is not None:
                return answer.result
            room = (OUTPUT_BYTES - len(self._tty.output)) // 2  # a byte may become two
            if room <= 0 and len(data):
                return None
            part = bytes(data[:room])
            self._tty.write(part)
            self._commit(Answer(request, caller.client, WRITE, len(part)))
        return len(part)

    def ready(self) -> int:
        """POLL flags that hold."""
        with self._lock:
            room = len(self._tty.output) < OUTPUT_BYTES // 2
            readable = self._tty.readable() or self.ended
            return (POLL_IN if readable else 0) | (POLL_OUT if room else 0) | (POLL_HUP if self.ended else 0)

    # ---- control

    def control(self, caller: Caller, request: int, command: int, argument: bytes) -> bytes:
        """What a command gives; see the interface. Who may be put into the foreground has been checked.

        Raises:
            ServiceError: ENOTTY, there is no such command; EINVAL, its argument is none.
        """
        look, change = _LOOKS.get(command), _CHANGES.get(command)
        with self._lock:
            if look is not None:
                return look(self)
            if change is None:
                raise ServiceError(errno.ENOTTY)
            if self._answered(caller, request, CONTROL) is None:
                try:
                    change(self, argument)
                except struct.error as error:
                    raise ServiceError(errno.EINVAL, "the argument is too short") from error
                self._commit(Answer(request, caller.client, CONTROL))
                self._room.notify()
        self._changed.notify()
        return b""

    def _settings(self) -> bytes:
        return self._tty.settings.pack()

    def _window(self) -> bytes:
        return _WINDOW.pack(*self._tty.window, 0, 0)

    def _get_foreground(self) -> bytes:
        return _NUMBER.pack(self._foreground)

    def _available(self) -> bytes:
        return _NUMBER.pack(self._tty.available())

    def _configure(self, argument: bytes) -> None:
        self._tty.configure(Termios.unpack(argument))

    def _flush_and_configure(self, argument: bytes) -> None:
        settings = Termios.unpack(argument)
        self._tty.flush()
        self._tty.configure(settings)

    def _flush(self, argument: bytes) -> None:
        """Output cannot be flushed: it is on its way."""
        which = number(argument)
        if not 0 <= which <= _LAST_FLUSH:
            raise ServiceError(errno.EINVAL)
        if which in _FLUSH_INPUT:
            self._tty.flush()

    def _change_window(self, argument: bytes) -> None:
        self._set_window(*_WINDOW.unpack_from(argument)[:2])

    def _set_foreground(self, argument: bytes) -> None:
        self._foreground = number(argument)


def number(argument: bytes) -> int:
    """An argument that is an i32.

    Raises:
        struct.error: it is too short.
    """
    return int(_NUMBER.unpack_from(argument)[0])


_LOOKS: dict[int, Callable[[Console], bytes]] = {
    TCGETS: Console._settings,
    TIOCGWINSZ: Console._window,
    TIOCGPGRP: Console._get_foreground,
    FIONREAD: Console._available,
}
_CHANGES: dict[int, Callable[[Console, bytes], None]] = {
    TCSETS: Console._configure,
    TCSETSW: Console._configure,
    TCSETSF: Console._flush_and_configure,
    TCFLSH: Console._flush,
    TIOCSPGRP: Console._set_foreground,
    TIOCSWINSZ: Console._change_window,
}

assert termios.SIZE <= 256
