"""What a line says.

    line      = pipeline { (";" | "&&" | "||") pipeline }
    pipeline  = command { "|" command }
    command   = word { word } [ (">" | ">>") word ]

Words are split by `shlex`. It takes quotes and backslashes off, so that a quoted `*` would look like any other:
before, each character that they take the meaning from is replaced by one of Unicode's private use area (`_marked`),
and the caller has it put back once globs are expanded (`plain_word`). A word that begins with "#" ends the line.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Final

MEANINGFUL: Final = "*?[];&|<>#"
_PRIVATE: Final = 0xE000
_MARKS: Final = {ord(letter): _PRIVATE + ord(letter) for letter in MEANINGFUL}
_UNMARKS: Final = {mark: letter for letter, mark in _MARKS.items()}
_JOINTS: Final = (";", "&&", "||")


class Mistake(Exception):
    """The line cannot be understood; the text says why."""


@dataclass
class Simple:
    """One command with its words, and the file that its output goes to."""

    words: list[str] = field(default_factory=list)
    into: str | None = None
    append: bool = False


@dataclass
class Step:
    """Commands, each reading what the one before wrote; `joint`: whether they run depends on the last status."""

    joint: str
    pipeline: list[Simple]


def plain_word(word: str) -> str:
    """A word as it was meant."""
    return word.translate(_UNMARKS)


def _marked(line: str) -> str:
    """The line with what is quoted out of harm's way."""
    marked, quote, escaped = [], "", False
    for letter in line:
        marked.append(letter.translate(_MARKS) if quote or escaped else letter)
        if escaped:
            escaped = False
        elif letter == "\\" and quote != "'":
            escaped = True
        elif letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
    return "".join(marked)


def _tokens(line: str) -> list[str]:
    lexer = shlex.shlex(_marked(line), posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[str] = []
    try:
        for token in lexer:
            if token.startswith("#"):
                break
            found.append(token)
    except ValueError as error:
        raise Mistake(str(error)) from None
    return found


def parse(line: str) -> list[Step]:
    """The steps of a line; none of an empty one.

    Raises:
        Mistake: it cannot be understood.
    """
    tokens = _tokens(line)
    if tokens and tokens[-1] == ";":
        tokens.pop()
    steps = [Step(";", [Simple()])] if tokens else []
    waiting = iter(tokens)
    for token in waiting:
        if token in _JOINTS:
            _finished(steps[-1], token)
            steps.append(Step(token, [Simple()]))
        elif token == "|":
            _finished(steps[-1], token)
            steps[-1].pipeline.append(Simple())
        elif token in (">", ">>"):
            _redirect(steps[-1].pipeline[-1], token, next(waiting, ""))
        elif set(token) & set(";&|<>"):
            raise Mistake(f"{token!r} means nothing here")
        else:
            steps[-1].pipeline[-1].words.append(token)
    if steps:
        _finished(steps[-1], "the end")
    return steps


def _finished(step: Step, before: str) -> None:
    if not step.pipeline[-1].words:
        raise Mistake(f"no command before {before}")


def _redirect(command: Simple, token: str, target: str) -> None:
    if not target or set(target) & set(";&|<>"):
        raise Mistake(f"no file after {token!r}")
    command.into, command.append = target, token == ">>"
