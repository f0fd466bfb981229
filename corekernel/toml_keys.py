"""Where each key of a TOML text stands.

`tomllib` throws line numbers away once a text parses, so the line of a key is found by a second, shallow scan,
which runs only on text that `tomllib` has accepted: strings and brackets are known to close.

A key path names a value from the top: keys as strings, and the items of an array by their numbers from 0, be it
written as `[[table]]` or in brackets. It is cut at `MAX_KEY_PARTS`, so that a hostile file cannot make it long.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_KEY_PARTS = 6

KeyPath: TypeAlias = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<string>\"{3}(?:\\[\s\S]|[^\\])*?\"{3,5} | '{3}[\s\S]*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*')
      | (?P<mark>[\[\]{}=,.])
      | (?P<bare>[^\s\[\]{}=,.\#"']+)""",
    re.VERBOSE,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Find the line of every key, table header, and table or array within an array, of a valid TOML text.

    Args:
        text: TOML that `tomllib` accepts, with lines ended by a bare newline.

    Returns:
        For each key path, its line from 1. What is only implied by longer paths, and an array of `[[table]]`s, has
        the line of the first of them.
    """
    scan = _Scan()
    for token in _TOKEN.finditer(text + "\n"):
        scan.take(token.lastgroup or "", token.group())
    return scan.found


@dataclass
class _Bracket:
    """An open bracket of a value: its path and, of an array, the number of the item that is being read."""

    path: KeyPath
    item: int | None


@dataclass
class _Scan:
    """State of `key_lines`: `parts` is the key being read, or None while a value is.

    `opened` has one entry for each open bracket of the value. `header` counts the brackets that open a table header,
    and is 0 outside one. `rows` has, for each array of `[[table]]`s, the number of its last one.
    """

    found: dict[KeyPath, int] = field(default_factory=dict)
    line: int = 1
    table: KeyPath = ()
    path: KeyPath = ()
    parts: list[str] | None = field(default_factory=list)
    header: int = 0
    opened: list[_Bracket] = field(default_factory=list)
    rows: dict[KeyPath, int] = field(default_factory=dict)

    def take(self, group: str, token: str) -> None:
        if group == "newline":
            self._end_line()
        elif group == "mark":
            self._mark(token)
        elif group in ("bare", "string") and self.parts is not None:
            self.parts.append(tomllib.loads(f"key = {token}")["key"] if group == "string" else token)
        self.line += token.count("\n")

    def _end_line(self) -> None:
        if self.opened:
            return
        if self.header:
            self.table = self._record((), self._numbered(self.parts or []))
        self.parts, self.header = [], 0

    def _mark(self, mark: str) -> None:
        if mark == "[" and not self.opened and self.parts == []:
            self.header += 1
        elif self.header:
            return
        elif mark == "=" and self.parts is not None:
            self.path = self._record(self.opened[-1].path if self.opened else self.table, self.parts)
            self.parts = None
        elif mark in "[{":
            self._open(mark)
        elif mark in "]}" and self.opened:
            self.opened.pop()
            self.parts = None
        elif mark == "," and self.opened:
            self._next(self.opened[-1])

    def _open(self, mark: str) -> None:
        if self.opened and self.opened[-1].item is not None:
            self.path = self._record(self.opened[-1].path, [self.opened[-1].item])
        self.opened.append(_Bracket(self.path, 0 if mark == "[" else None))
        self.parts = [] if mark == "{" else None

    def _next(self, bracket: _Bracket) -> None:
        if bracket.item is None:
            self.parts = []
        else:
            bracket.item += 1

    def _numbered(self, names: list[str]) -> KeyPath:
        """The path of a header: in an array of tables its last one, which `[[...]]` has just begun."""
        path: KeyPath = ()
        for position, name in enumerate(names[:MAX_KEY_PARTS], 1):
            path = (*path, name)
            if self.header > 1 and position == len(names):
                self.rows[path] = self.rows.get(path, -1) + 1
            if path in self.rows:
                path = (*path, self.rows[path])
        return path

    def _record(self, base: KeyPath, parts: Iterable[str | int]) -> KeyPath:
        path = (*base, *parts)[:MAX_KEY_PARTS]
        for length in range(len(base) + 1, len(path)):
            self.found.setdefault(path[:length], self.line)
        if len(path) > len(base):
            self.found[path] = self.line
        return path
