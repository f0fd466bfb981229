"""Strict reading of TOML files written by people: every mistake is told with its file and its line.

The file is hostile. It is opened without blocking, must be a regular file of at most `MAX_BYTES`, is read
once, and no line may exceed `MAX_LINE`: a dotted key stands on one line and costs `tomllib` its square.
No value is ever printed whole or walked without bound, and a report stops at `MAX_MISTAKES`.

A `Document` is the parsed tree plus the place of each key; `merge` lays one document over another and keeps
the places, so a mistake in an inherited file is told in *that* file. A `Table` reads one table: each key is
asked for once, with its type and range, and `close` reports the keys that nobody asked for. A reader that
finds a mistake reports it and returns the default, so that one pass finds all mistakes.
"""

from __future__ import annotations

import bisect
import difflib
import json
import os
import re
import stat
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from corekernel.errors import HmkError
from corekernel.toml_keys import KeyPath, key_lines

MAX_BYTES = 64 << 10
MAX_LINE = 500
MAX_MISTAKES = 40

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A line (from 1) of a file; line 1 when the file as a whole is meant."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Mistake:
    """One mistake: where it is, what is wrong and how to mend it. Its text is one line."""

    place: Place
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; {self.mend}"


class MistakesError(HmkError):
    """A file was refused; `mistakes` has every reason, and the text has one line for each."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


@dataclass
class Report:
    """Collects mistakes; `error` is the exception that carries them."""

    error: type[MistakesError]
    mistakes: list[Mistake] = field(default_factory=list)

    def add(self, place: Place, what: str, mend: str) -> None:
        """Note one mistake; raises `error` when no more are worth telling."""
        self.mistakes.append(Mistake(place, what, mend))
        if len(self.mistakes) >= MAX_MISTAKES:
            self.stop()

    def refuse(self, place: Place, what: str, mend: str) -> NoReturn:
        """Note a mistake after which reading cannot go on, and raise `error`."""
        self.add(place, what, mend)
        raise self.error(self.mistakes)

    def stop(self) -> None:
        """Raise `error` if any mistake was noted."""
        if self.mistakes:
            raise self.error(self.mistakes)


@dataclass
class Document:
    """A parsed file (or several, merged): its values, and where each key stands."""

    file: Path
    values: dict[str, Any]
    places: dict[KeyPath, Place]

    def place(self, path: KeyPath) -> Place:
        """The place of a key, else of the nearest table around it that is written down, else line 1."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(self.file, 1)


def read_document(path: Path, report: Report, told: Path | None = None) -> Document:
    """Read and parse one file.

    Args:
        path: the file.
        report: takes the mistakes.
        told: the path by which messages name it; None means `path`.

    Raises:
        MistakesError: of the report's class, when the file cannot be read, is not UTF-8 or is not TOML.
    """
    told = told or path
    text = _read_text(path, told, report)
    _check_line_lengths(told, text, report)
    values = _parse(told, text, report)
    places = {key: Place(told, line) for key, line in key_lines(text).items()}
    return Document(told, values, places)


def _read_text(path: Path, told: Path, report: Report) -> str:
    start, mend = Place(told, 1), "name a readable TOML file"
    try:
        with open(path, "rb", opener=_open_without_blocking) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(MAX_BYTES + 1) if regular else b""
    except OSError as error:
        report.refuse(start, f"cannot be read: {error.strerror}", mend)
    except ValueError:
        report.refuse(start, "is not a file name", mend)
    if not regular:
        report.refuse(start, "is not a regular file", mend)
    if len(data) > MAX_BYTES:
        report.refuse(start, f"is larger than {MAX_BYTES >> 10} KiB", "split or shorten it")
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        place = Place(told, data[: error.start].count(b"\n") + 1)
        report.refuse(place, "is not UTF-8 text", "save the file as UTF-8")


def _open_without_blocking(path: str, flags: int) -> int:
    # A FIFO in the place of the file must not hang the launcher.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _check_line_lengths(told: Path, text: str, report: Report) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > MAX_LINE:
            report.refuse(Place(told, number), f"line is longer than {MAX_LINE} characters", "break it up")


def _parse(told: Path, text: str, report: Report) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        report.refuse(Place(told, _deepest_line(text)), "brackets are nested too deeply", "flatten the value")
    except ValueError as error:
        said, _, where = str(error).rpartition(" (at ")
        at = re.match(r"line (\d+)", where)
        lines = text.removesuffix("\n").count("\n") + 1
        line = min(int(at[1]), lines) if at else lines
        mend = "keep one of the two" if said.startswith(("Cannot", "Duplicate")) else "mend the syntax"
        report.refuse(Place(told, line), f"not valid TOML: {said or error}", mend)


def _deepest_line(text: str) -> int:
    lines = text.split("\n")

    def too_deep(count: int) -> bool:
        try:
            tomllib.loads("\n".join(lines[:count]))
        except RecursionError:
            return True
        except ValueError:
            return False
        return False

    return min(bisect.bisect_left(range(len(lines)), True, key=lambda n: too_deep(n + 1)) + 1, len(lines))


def merge(base: Document, over: Document, depth: int = 4) -> Document:
    """Lay `over` upon `base`: tables merge down to `depth`, everything else (arrays too) is replaced."""
    values = _merge_tables(base.values, over.values, depth)
    return Document(over.file, values, {**base.places, **over.places})


def _merge_tables(base: Mapping[str, Any], over: Mapping[str, Any], depth: int) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if depth > 1 and isinstance(below, dict) and isinstance(value, dict):
            value = _merge_tables(below, value, depth - 1)
        merged[key] = value
    return merged


def show(value: object) -> str:
    """A TOML value for a message: one short printable line, whatever the value."""
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 40 else value[:40] + "...")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        digits = str(value)
        return digits if len(digits) <= 24 else digits[:20] + "..."
    kind = "a table" if isinstance(value, dict) else "a date or a time"
    return "an array" if isinstance(value, list) else kind


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """How to mend an unknown word: the nearest known one, else all of them."""
    known = list(known)
    if near := difflib.get_close_matches(word, known, n=1):
        return f"did you mean {show(near[0])}?"
    return f"known are: {', '.join(known)}" if known else "none is known here"


class Table:
    """Reads one table of a document; an absent or wrong key gives its default, and a wrong one is reported.

    Ask for each key once, then `close`.
    """

    def __init__(self, document: Document, path: tuple[str, ...], values: Mapping[str, Any], report: Report) -> None:
        self.document = document
        self.path = path
        self.values = values
        self.report = report
        self.asked: list[str] = []

    def value(self, key: str) -> object:
        """The raw value of a key, None when absent (TOML has no null)."""
        self.asked.append(key)
        return self.values.get(key)

    def place(self, *keys: str) -> Place:
        """The place of the first of `keys` that is written down; of the table when none is."""
        stated = [key for key in keys if key in self.values]
        return self.document.place((*self.path, *stated[:1]))

    def wrong(self, key: str, must: str, mend: str) -> None:
        """Report that a key breaks the rule `must`."""
        self.report.add(self.place(key), f"{key} {must}, not {show(self.values.get(key))}", mend)

    def text(self, key: str, default: str, pattern: str, must: str) -> str:
        """A string that matches `pattern` whole; `must` says in words what it must be."""
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        self.wrong(key, f"must be {must}", "mend it or leave the key out")
        return default

    def integer(self, key: str, default: int, low: int, high: int, step: int = 1) -> int:
        """An integer from `low` to `high`, a multiple of `step`."""
        value = self.value(key)
        if value is None:
            return default
        if type(value) is int and low <= value <= high and value % step == 0:
            return value
        kind = "an integer" if step == 1 else f"a multiple of {step}"
        self.wrong(key, f"must be {kind} from {low} to {high}", f"the default is {default}")
        return default

    def choice(self, key: str, default: T, choices: Mapping[str, T]) -> T:
        """One of a few words."""
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, str) and value in choices:
            return choices[value]
        must = "must be one of " + ", ".join(map(show, choices))
        self.wrong(key, must, did_you_mean(value, choices) if isinstance(value, str) else "write it as a string")
        return default

    def names(self, key: str, pattern: str, must: str) -> tuple[str, ...]:
        """An array of different strings that each match `pattern`; empty when absent."""
        value = self.value(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.wrong(key, "must be an array of strings", 'write it as ["a", "b"]')
            return ()
        for item in value:
            if not (isinstance(item, str) and re.fullmatch(pattern, item)):
                self.report.add(self.place(key), f"{key} holds {show(item)}, not {must}", "mend it or take it out")
                return ()
        for item in (item for item, count in Counter(value).items() if count > 1):
            self.report.add(self.place(key), f"{key} names {show(item)} twice", "keep one of the two")
        return tuple(dict.fromkeys(value))

    def table(self, key: str) -> Table:
        """A table within this one; empty when absent or wrong."""
        value = self.value(key)
        if value is not None and not isinstance(value, dict):
            self.wrong(key, "must be a table", f"write [{'.'.join((*self.path, key))}] and its keys below")
        return Table(self.document, (*self.path, key), value if isinstance(value, dict) else {}, self.report)

    def close(self) -> None:
        """Report every key that nobody asked for."""
        where = f"[{'.'.join(self.path)}]" if self.path else "the file"
        for key in self.values:
            if key not in self.asked:
                what = f"unknown key {show(key)} in {where}"
                self.report.add(self.document.place((*self.path, key)), what, did_you_mean(key, self.asked))
