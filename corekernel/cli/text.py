"""Text for a terminal: aligned tables, quantities as people say them, and nothing that a terminal would obey.

Names of programs and lines of the console come from other processes. `plain` is applied to whatever of theirs
is shown, so that a hostile one cannot move the cursor or hide its neighbours.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence

_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A}
_CONTROL[ord("\t")] = "\t"


def plain(text: str) -> str:
    """Return `text` with every control character but newline and tab replaced."""
    return text.translate(_CONTROL)


def label(text: str) -> str:
    """Return `text` as one plain line."""
    return plain(text).replace("\n", " ").replace("\t", " ")


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Align rows of equal length; columns in `right` are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def user(uid: int) -> str:
    """A host user id in one word: its name where the host knows one."""
    if uid == os.getuid():
        return "you" if uid else "root"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def amount(count: float) -> str:
    """A quantity of bytes: `512 B`, `3.5 MiB`."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """A time: `3.2 µs`, `51 ms`, `4.0 s`, `2 h 05 min`."""
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    if seconds >= 60:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            value = seconds * scale
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    raise AssertionError("unreachable")
