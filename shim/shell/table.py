"""The table of commands: name, usage, one line of help, and the function that serves it."""

from __future__ import annotations

import getopt
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from shim.shell.shell import Shell

Options: TypeAlias = "dict[str, str]"
Names: TypeAlias = "list[str]"
Serve: TypeAlias = "Callable[[Shell, Options, Names], None]"


class Leave(Exception):
    """The shell ends, with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Usage(Exception):
    """The command was not used as its usage says; the text says why."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: what is typed.
        usage: the rest of its synopsis.
        about: what it does, in one line.
        more: what else there is to say, such as its options.
        letters: its options, as `getopt` takes them; None: it reads its words itself.
        least: how many operands it needs.
        serve: the function. It says what went wrong through `shell.tries`, which sets the exit status.
    """

    name: str
    usage: str
    about: str
    more: str
    letters: str | None
    least: int
    serve: Serve

    def __call__(self, shell: Shell, words: Names) -> None:
        """Run it with the words after its name.

        Raises:
            Usage: they are not what it takes.
        """
        options: Options = {}
        if self.letters is not None:
            try:
                pairs, words = getopt.gnu_getopt(words, self.letters)
            except getopt.GetoptError as error:
                raise Usage(error.msg) from None
            options = {letter[1:]: value for letter, value in pairs}
        if len(words) < self.least:
            raise Usage("missing operand")
        self.serve(shell, options, words)


COMMANDS: Final[dict[str, Command]] = {}


def command(usage: str, letters: str | None = "") -> Callable[[Serve], Serve]:
    """Enter a function into the table under its own name, less an underscore at the end.

    Its docstring is its help. As many operands are needed as the usage has words outside of brackets.
    """

    def enter(serve: Serve) -> Serve:
        name = serve.__name__.removesuffix("_")
        least = len(re.sub(r"\[[^]]*\](\.\.\.)?", "", usage).split())
        about, _, more = inspect.cleandoc(serve.__doc__ or "").partition("\n")
        COMMANDS[name] = Command(name, usage, about.rstrip("."), more.strip(), letters, least, serve)
        return serve

    return enter
