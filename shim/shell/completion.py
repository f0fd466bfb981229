"""Tab and history, while somebody types at a terminal.

What can stand in place of the word at the cursor is found from the line alone (`candidates`). Readline counts words
in its own way: it is told to break them at each slash, so that it shows only the last name of a path, and gets the
end of a candidate that it has not got yet.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shim.shell.language import MEANINGFUL
from shim.shell.places import HOST_PREFIX
from shim.shell.table import COMMANDS

if TYPE_CHECKING:
    from shim.shell.shell import Shell

HISTORY_LINES: Final = 2000
_SEPARATORS: Final = ";&|"
_BREAKS: Final = " \t\n;&|<>"
_QUOTED: Final = re.compile(r"\\(.)")
_TO_QUOTE: Final = re.compile(f"([{re.escape(MEANINGFUL)}\\\\ \t'\"])")


def word_start(line: str) -> int | None:
    """Where the word begins that a line ends with; None within quotes."""
    start, quote, escaped = 0, "", False
    for index, letter in enumerate(line):
        if escaped:
            escaped = False
        elif quote:
            quote = "" if letter == quote else quote
        elif letter == "\\":
            escaped = True
        elif letter in "'\"":
            quote = letter
        elif letter in _BREAKS:
            start = index + 1
    return None if quote or escaped else start


def candidates(shell: Shell, line: str) -> list[str]:
    """What the last word of a line may become, sorted; a word that is complete then has a space after it."""
    start = word_start(line)
    if start is None:
        return []
    word, before = line[start:], line[:start].rstrip()
    if not before or before[-1] in _SEPARATORS:
        return sorted(name + " " for name in COMMANDS if name.startswith(word))
    return _paths(shell, word)


def _paths(shell: Shell, word: str) -> list[str]:
    prefix = HOST_PREFIX if word.startswith(HOST_PREFIX) else ""
    raw_head, slash, raw_tail = word.removeprefix(prefix).rpartition("/")
    head, tail = (_QUOTED.sub(r"\1", part) for part in (raw_head + slash, raw_tail))
    place = shell.place((prefix + head) or ".")
    try:
        names = sorted(place.side.listdir(place.path))
    except OSError:
        return []
    found = [name for name in names if name.startswith(tail) and name.startswith(".") <= tail.startswith(".")]
    ends = ["/" if place.below(name).is_directory() else " " for name in found]
    quoted = [_TO_QUOTE.sub(r"\\\1", name) for name in found]
    return [prefix + raw_head + slash + name + end for name, end in zip(quoted, ends, strict=True)]


def history_file() -> Path:
    """Where lines are kept from one shell to the next."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "hmk" / "history"


@contextlib.contextmanager
def at_terminal(shell: Shell) -> Iterator[None]:
    """Have Tab and history work; without readline, they do not."""
    try:
        import readline
    except ImportError:
        yield
        return
    found: list[str] = []

    def complete(text: str, state: int) -> str | None:
        if state == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()]
            known = readline.get_begidx() - (word_start(line) or 0)
            found[:] = [candidate[max(known, 0) :] for candidate in candidates(shell, line)]
        return found[state] if state < len(found) else None

    path = history_file()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer_delims(_BREAKS + "/:")
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
