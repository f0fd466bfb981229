"""The line discipline: a state machine between a terminal and its readers. Bytes in; echo, input and signals out.

It does what Linux's does (drivers/tty/n_tty.c), whose terms are used here:

    typed bytes --receive--> [ queue ............................................ ] --read--> a reader
                               complete lines (canonical) | the line being edited
                             0 ........................ ready ................ its length

* Canonical (ICANON): a line is given out when it is complete, by newline, VEOL, VEOL2 or VEOF; `marks` says which bytes
  of the queue end one. A byte of value 0 with a mark is an end of file, which is not given out itself.
* Raw: everything in the queue is given out, once there are VMIN bytes.
* The queue holds 4,095 bytes. When it is full nothing is received; the rest waits where it comes from. Only while an
  incomplete line fills it all by itself, each further byte replaces the last one, so that the line can be ended.

Not here: flow control by characters (IXON, IXOFF, IXANY), parity and breaks (PARMRK, INPCK, BRKINT), ECHOPRT, case
mapping (IUCLC, OLCUC), delays and tab expansion (XTABS), OCRNL, ONOCR, ONLRET, EXTPROC, read timeouts (VTIME counts as
0). Other than Linux, which drops what has not reached the terminal when a signal flushes, output is never dropped then.

No locks and no calls: whoever owns a `Tty` sees to that. `pack` and `unpack` carry it across a restart.
"""

from __future__ import annotations

import signal
import struct
from dataclasses import dataclass, field

from services.devmgr import termios as t
from services.devmgr.termios import Termios

QUEUE_BYTES = 4096
SIGNALS = 64
OUTPUT_BYTES = 48 << 10
"""No echo is added to output that has grown beyond this; `write` is not bounded here."""

_HEADER = struct.Struct(f"<{t.SIZE}s6I2H?3x")
_CR, _NL, _TAB, _BACKSPACE, _HIGHEST = 13, 10, 9, 8, 0xFF
_RUB_OUT = b"\b \b"
_SIGNALS = ((t.VINTR, signal.SIGINT), (t.VQUIT, signal.SIGQUIT), (t.VSUSP, signal.SIGTSTP))


def _is_control(code: int) -> bool:
    return code < 32 or code == 127


def _in_word(code: int) -> bool:
    """Letters and digits are those of Latin-1, as in the kernel."""
    return code == ord("_") or (code < 128 and chr(code).isalnum()) or (code >= 0xC0 and code not in (0xD7, 0xF7))


@dataclass(slots=True)
class Tty:
    """One terminal. `column` is the cursor's, `line_column` where the line being edited began."""

    settings: Termios = field(default_factory=Termios)
    queue: bytearray = field(default_factory=bytearray)
    marks: bytearray = field(default_factory=bytearray)  # as long as the queue: 1 where a line ends
    ready: int = 0  # canonical: bytes of the queue in complete lines
    column: int = 0
    line_column: int = 0
    literal: bool = False  # VLNEXT was typed: the next byte means itself
    window: tuple[int, int] = (0, 0)  # rows, columns
    signals: bytearray = field(default_factory=bytearray)  # numbers raised and not yet taken
    output: bytearray = field(default_factory=bytearray)  # for the terminal, not yet taken
    _special: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self._special = self._find_special()

    # ---- settings

    @property
    def canonical(self) -> bool:
        """Whether lines are edited."""
        return self._local(t.ICANON)

    def _local(self, flags: int) -> bool:
        return self.settings.lflag & flags == flags

    def _input(self, flag: int) -> bool:
        return bool(self.settings.iflag & flag)

    def _output(self, flags: int) -> bool:
        return self.settings.oflag & flags == flags

    def _is(self, code: int, index: int) -> bool:
        return self.settings.characters[index] == code

    def _find_special(self) -> frozenset[int]:
        """Bytes that are more than themselves."""
        characters = self.settings.characters
        indices = [t.VINTR, t.VQUIT, t.VSUSP] if self._local(t.ISIG) else []
        if self.canonical:
            indices += [t.VERASE, t.VKILL, t.VEOF, t.VEOL]
        if self._local(t.ICANON | t.IEXTEN):
            indices += [t.VWERASE, t.VLNEXT, t.VEOL2, *([t.VREPRINT] if self._local(t.ECHO) else [])]
        found = {characters[index] for index in indices}
        found |= {_CR} if self._input(t.IGNCR | t.ICRNL) else set()
        found |= {_NL} if self._input(t.INLCR) or self.canonical else set()
        return frozenset(found - {t.DISABLED})

    def configure(self, settings: Termios) -> None:
        """Change the settings; with ICANON, what is in the queue becomes one line or stops being lines."""
        toggled = (settings.lflag ^ self.settings.lflag) & t.ICANON
        self.settings = settings
        self._special = self._find_special()
        if toggled:
            self.marks = bytearray(len(self.queue))
            self.ready = len(self.queue) if self.canonical else 0
            if self.ready:
                self.marks[-1] = 1
            self.literal = False

    # ---- what is typed

    def receive(self, data: bytes) -> int:
        """Take typed bytes; how many were taken: fewer when the queue is full."""
        for count, code in enumerate(data):
            if len(self.queue) >= QUEUE_BYTES - 1:
                if not self.canonical or self.ready:
                    return count
                self._cut(QUEUE_BYTES - 1)
            self._receive(code & 0x7F if self._input(t.ISTRIP) else code)
        return len(data)

    def _receive(self, code: int) -> None:
        if self.literal:
            self.literal = False
            self._ordinary(code)
        elif code not in self._special:
            self._ordinary(code)
        elif not self._signal(code):
            self._mapped(code)

    def _ordinary(self, code: int) -> None:
        self._echo_typed(code)
        self._put(code)

    def _echo_typed(self, code: int) -> None:
        if self._local(t.ECHO):
            if self.ready == len(self.queue):
                self.line_column = self.column
            self._echo(code)

    def _put(self, code: int, mark: int = 0) -> None:
        self.queue.append(code)
        self.marks.append(mark)

    def _signal(self, code: int) -> bool:
        """Whether a byte raised a signal; that flushes the queue unless NOFLSH is set."""
        if not self._local(t.ISIG):
            return False
        number = next((number for index, number in _SIGNALS if self._is(code, index)), None)
        if number is None:
            return False
        self.raise_signal(number)
        if not self._local(t.NOFLSH):
            self.flush()
        if self._local(t.ECHO):
            self._echo(code)
        return True

    def raise_signal(self, number: int) -> None:
        """For the process group in the foreground; more than it can be sent in time are forgotten."""
        if len(self.signals) < SIGNALS:
            self.signals.append(number)

    def _mapped(self, code: int) -> None:
        """A special byte that raised no signal: newlines are mapped, then lines are edited."""
        if code == _CR:
            if self._input(t.IGNCR):
                return
            code = _NL if self._input(t.ICRNL) else code
        elif code == _NL and self._input(t.INLCR):
            code = _CR
        if self.canonical and (self._edits(code) or self._ends_line(code)):
            return
        if code == _NL and self._local(t.ECHO):
            self._echo_plain(code)
        else:
            self._echo_typed(code)
        self._put(code)

    def _edits(self, code: int) -> bool:
        """Whether a byte edits the line."""
        extended = self._local(t.IEXTEN)
        if self._is(code, t.VERASE) or self._is(code, t.VKILL) or (extended and self._is(code, t.VWERASE)):
            self._erase(code)
        elif extended and self._is(code, t.VLNEXT):
            self.literal = True
            if self._local(t.ECHO | t.ECHOCTL):
                self._echo_all(b"^\b")
        elif self._local(t.ECHO | t.IEXTEN) and self._is(code, t.VREPRINT):
            self._echo(code)
            self._echo_plain(_NL)
            for typed in self.queue[self.ready :]:
                self._echo(typed)
        else:
            return False
        return True

    def _ends_line(self, code: int) -> bool:
        """Whether a byte completes the line."""
        if code == _NL:
            if self._local(t.ECHO) or self._local(t.ECHONL):
                self._echo_plain(code)
        elif self._is(code, t.VEOF):
            code = t.DISABLED
        elif self._is(code, t.VEOL) or (self._local(t.IEXTEN) and self._is(code, t.VEOL2)):
            self._echo_typed(code)
        else:
            return False
        self._put(code, mark=1)
        self.ready = len(self.queue)
        return True

    # ---- erasing

    def _cut(self, length: int) -> None:
        del self.queue[length:]
        del self.marks[length:]

    def _erase(self, code: int) -> None:
        """Erase a character, a word, or the whole line."""
        if self.ready == len(self.queue):
            return
        one = self._is(code, t.VERASE)
        word = not one and self._is(code, t.VWERASE)
        if not (one or word) and not self._local(t.ECHO | t.ECHOK | t.ECHOKE | t.ECHOE):
            self._kill_line()
            return
        letters = False
        while self.ready < len(self.queue):
            head = self._last_character()
            first = self.queue[head]
            if self._continues(first) or (word and letters and not _in_word(first)):
                return
            letters = letters or _in_word(first)
            self._cut(head)
            if self._local(t.ECHO):
                self._echo_erased(first, one)
            if one:
                return

    def _last_character(self) -> int:
        """Where the last character of the line begins; with IUTF8 it may have several bytes."""
        head = len(self.queue) - 1
        while self._continues(self.queue[head]) and head > self.ready:
            head -= 1
        return head

    def _continues(self, code: int) -> bool:
        return self._input(t.IUTF8) and code & 0xC0 == 0x80

    def _kill_line(self) -> None:
        """Erase the line where it cannot be rubbed out: echo the character itself, and a newline for ECHOK."""
        self._cut(self.ready)
        if self._local(t.ECHO):
            self._echo(self.settings.characters[t.VKILL])
            if self._local(t.ECHOK):
                self._echo_plain(_NL)

    def _echo_erased(self, code: int, one: bool) -> None:
        if one and not self._local(t.ECHOE):
            self._echo(self.settings.characters[t.VERASE])
        elif code == _TAB:
            self._echo_erased_tab()
        elif _is_control(code):
            self._echo_all(_RUB_OUT * 2 if self._local(t.ECHOCTL) else b"")
        else:
            self._echo_all(_RUB_OUT)

    def _echo_erased_tab(self) -> None:
        """Go back as far as the tab went: what stands since the one before it or since the line began says how far."""
        width, since_tab = 0, False
        for code in reversed(self.queue[self.ready :]):
            if code == _TAB:
                since_tab = True
                break
            if _is_control(code):
                width += 2 if self._local(t.ECHOCTL) else 0
            elif not self._continues(code):
                width += 1
        start = 0 if since_tab else self.line_column
        back = 8 - (width % 8 + start) % 8
        self._emit(b"\b" * back)
        self.column = max(0, self.column - back)

    # ---- echo and output

    def _emit(self, data: bytes) -> None:
        if len(self.output) < OUTPUT_BYTES:
            self.output += data

    def _echo(self, code: int) -> None:
        """Echo a byte; with ECHOCTL a control character as ^X."""
        if self._local(t.ECHOCTL) and _is_control(code) and code != _TAB:
            self._emit(bytes((ord("^"), code ^ 0x40)))
            self.column += 2
        else:
            self._echo_plain(code)

    def _echo_all(self, data: bytes) -> None:
        for code in data:
            self._echo_plain(code)

    def _echo_plain(self, code: int) -> None:
        if code == _HIGHEST and not self._output(t.OPOST):  # the kernel counts this one alone
            self.column += 1
        self._emit(self._processed(bytes((code,))))

    def _processed(self, data: bytes) -> bytes:
        """Output as the terminal gets it; keeps count of the column."""
        if not self._output(t.OPOST):
            return data
        returns = self._output(t.ONLCR)
        last = max(data.rfind(b"\r"), data.rfind(b"\n") if returns else -1)
        if last >= 0:
            self.column = self.line_column = 0
        for code in data[last + 1 :]:
            self._advance(code)
        return data.replace(b"\n", b"\r\n") if returns else data

    def _advance(self, code: int) -> None:
        if code == _NL:
            self.line_column = self.column
        elif code == _TAB:
            self.column += 8 - self.column % 8
        elif code == _BACKSPACE:
            self.column = max(0, self.column - 1)
        elif not _is_control(code) and not self._continues(code):
            self.column += 1

    def write(self, data: bytes) -> None:
        """Output of a program; at most twice as many bytes are added to `output`."""
        self.output += self._processed(data)

    # ---- readers

    def flush(self) -> None:
        """Forget what was typed and not read."""
        self._cut(0)
        self.ready = 0

    def available(self) -> int:
        """Bytes that could be read now (FIONREAD)."""
        if not self.canonical:
            return len(self.queue)
        ends = sum(1 for code, mark in zip(self.queue, self.marks, strict=True) if mark and code == t.DISABLED)
        return self.ready - ends

    def readable(self) -> bool:
        """Whether a read would not wait, as poll has it."""
        if self.canonical:
            return self.ready > 0
        least, time = self.settings.characters[t.VMIN], self.settings.characters[t.VTIME]
        return len(self.queue) >= (1 if time else max(1, least))

    def read(self, size: int, wait: bool = True) -> bytes | None:
        """Take up to `size` bytes of input; None when a reader is to wait for more.

        Empty is the end of a file, a read of nothing, or (VMIN 0) that there is nothing. `wait` is False for a reader
        that will not wait: it gets what there is, even if it is less than VMIN.
        """
        if size == 0:
            return b""
        if self.canonical:
            return self._read_line(size) if self.ready else None
        least = min(self.settings.characters[t.VMIN], size)
        if len(self.queue) < least and (wait or not self.queue):
            return None
        return self._take(min(size, len(self.queue)))

    def _take(self, count: int) -> bytes:
        data = bytes(self.queue[:count])
        del self.queue[:count]
        del self.marks[:count]
        self.ready = max(0, self.ready - count)
        return data

    def _read_line(self, size: int) -> bytes:
        """One line, or the beginning of one; an end of file just behind what was asked for goes with it."""
        end = self.marks.find(1, 0, min(size, self.ready))
        if end >= 0:
            line = self._take(end + 1)
            return line if line[-1] != t.DISABLED else line[:-1]
        data = self._take(min(size, self.ready))
        if self.ready and self.marks[0] and self.queue[0] == t.DISABLED:
            self._take(1)
        return data

    # ---- across a restart

    def pack(self) -> bytes:
        """Everything, as bytes: at most 9 KiB and the output."""
        parts = (self.queue, self.marks, self.signals, self.output)
        numbers = self.ready, self.column, self.line_column, len(self.queue), len(self.signals), len(self.output)
        header = _HEADER.pack(self.settings.pack(), *(n & 0xFFFFFFFF for n in numbers), *self.window, self.literal)
        return b"".join((header, *parts))

    @classmethod
    def unpack(cls, raw: bytes) -> Tty:
        """From what `pack` gave."""
        settings, ready, column, line, queue, signals, output, *window, literal = _HEADER.unpack_from(raw)
        parts, at = [], _HEADER.size
        for length in (queue, queue, signals, output):
            parts.append(bytearray(raw[at : at + length]))
            at += length
        made = (Termios.unpack(settings), parts[0], parts[1], ready, column, line, literal)
        return cls(*made, (window[0], window[1]), parts[2], parts[3])
