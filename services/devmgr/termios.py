"""Terminal settings as Linux's kernel has them (struct termios of TCGETS, x86-64: 36 bytes), and its numbers.

    iflag u32, oflag u32, cflag u32, lflag u32, line u8, control characters 19 x u8

What is set and has no meaning here (see `tty.py`) is kept and returned, as Linux does for hardware that lacks it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

IGNCR, ICRNL, INLCR, ISTRIP, IUTF8 = 0o200, 0o400, 0o100, 0o40, 0o40000
OPOST, ONLCR = 0o1, 0o4
B38400, CS8, CREAD, HUPCL = 0o17, 0o60, 0o200, 0o2000
ISIG, ICANON, ECHO, ECHOE, ECHOK = 0o1, 0o2, 0o10, 0o20, 0o40
ECHONL, NOFLSH, ECHOCTL, ECHOKE, IEXTEN = 0o100, 0o200, 0o1000, 0o4000, 0o100000

VINTR, VQUIT, VERASE, VKILL, VEOF, VTIME, VMIN = range(7)
VSUSP, VEOL, VREPRINT, VWERASE, VLNEXT, VEOL2 = 10, 11, 12, 14, 15, 16
DISABLED = 0
"""A control character of this value is none."""

_LAYOUT = struct.Struct("<4IB19s")
SIZE = _LAYOUT.size

assert SIZE == 36


@dataclass(frozen=True, slots=True)
class Termios:
    """Settings of a terminal; the defaults are those of a Linux console, without flow control."""

    iflag: int = ICRNL
    oflag: int = OPOST | ONLCR
    cflag: int = B38400 | CS8 | CREAD | HUPCL
    lflag: int = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN
    line: int = 0
    characters: bytes = bytes((3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0))

    def pack(self) -> bytes:
        """The 36 bytes."""
        return _LAYOUT.pack(self.iflag, self.oflag, self.cflag, self.lflag, self.line, self.characters)

    @classmethod
    def unpack(cls, raw: bytes) -> Termios:
        """From at least 36 bytes; any contents are settings."""
        return cls(*_LAYOUT.unpack_from(raw))
