"""The shell itself: it reads lines, runs what they say, and keeps the status of the last command.

Statuses are those of other shells: 0 done, 1 something went wrong (and was said), 2 a mistake in the line or in the
use of a command, 127 no such command, 130 ended by Ctrl-C. Ctrl-C ends the command, not the shell, as long as
somebody types the commands; of a script it ends the whole.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from corekernel.attachment import Detached
from corekernel.cli.text import label
from corekernel.errors import CallError
from shim.client import System
from shim.files import Files
from shim.shell import changing, going, looking, running  # noqa: F401 - importing them enters their commands
from shim.shell.globs import has_magic, matches
from shim.shell.language import Mistake, Simple, Step, parse, plain_word
from shim.shell.places import HOST_PREFIX, Host, Place, PlaceError
from shim.shell.table import COMMANDS, Leave, Names, Usage

INTERRUPTED = 130
NOT_FOUND = 127
MISTAKEN = 2
IN_MEMORY_BYTES = 16 << 20


class Shell:
    """One shell on one system.

    Attributes:
        system, files: the system, and its files.
        name: the system's name.
        status: of the running command so far, then of the last one.
        last: of the command before.
        before: the directory before the last `cd`.
        out: where the running command writes.
        given: what it reads when it is given no files.
        terminal: whether a terminal shows `out`.
    """

    def __init__(self, system: System, name: str) -> None:
        self.system = system
        self.name = name
        self.status = self.last = 0
        self.before = "/"
        self.out: IO[bytes] = sys.stdout.buffer
        self.given: IO[bytes] = sys.stdin.buffer
        self.terminal = sys.stdout.isatty()
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self._command = "shell"

    @property
    def files(self) -> Files:
        """The system's files."""
        return self.system.files

    # ---- what commands use

    def say(self, text: str) -> None:
        """Write a line; nothing in it commands a terminal."""
        if self.terminal:
            text = "\n".join(map(label, text.split("\n")))
        self.out.write(text.encode("utf-8", "surrogateescape") + b"\n")

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.out.write(data)

    @contextlib.contextmanager
    def tries(self, name: str) -> Iterator[None]:
        """Have errors within it said, as the tools of Linux say them; the command goes on after it."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            about = str(error.filename) if isinstance(error, PlaceError) else name
            self.complain(f"{about}: {error.strerror or error}")

    def complain(self, text: str, status: int = 1) -> None:
        """Say that something went wrong in the running command."""
        self.out.flush()
        print(f"{self._command}: {label(text)}", file=sys.stderr, flush=True)
        self.status = status

    def place(self, word: str) -> Place:
        """A path as it was written, of this system or of the host."""
        if word.startswith(HOST_PREFIX):
            return Place(Host(), word.removeprefix(HOST_PREFIX) or ".", word)
        return Place(self.files, word, word)

    def here(self, word: str) -> str:
        """A path of this system, for what changes it.

        Raises:
            PlaceError: it is the host's.
        """
        if word.startswith(HOST_PREFIX):
            raise PlaceError(0, "only cp writes to the host", word)
        return word

    # ---- running

    def run(self, line: str) -> int:
        """Run a line; the status of its last command.

        Raises:
            Leave: it said so, or the system has gone.
        """
        self._command = "shell"
        try:
            steps = parse(line)
        except Mistake as error:
            self.complain(str(error), MISTAKEN)
            steps = []
        for step in steps:
            if {"&&": self.status == 0, "||": self.status != 0}.get(step.joint, True):
                self._run_step(step)
        return self.status

    def _run_step(self, step: Step) -> None:
        """Run commands one after the other; what one wrote, the next reads."""
        kept = self.out, self.given, self.terminal
        try:
            with contextlib.ExitStack() as open_files:
                for simple in step.pipeline:
                    last = simple is step.pipeline[-1]
                    self.out = kept[0] if last else open_files.enter_context(_between())
                    self.terminal = kept[2] and last
                    self._run_into(simple)
                    if not last:
                        self.out.seek(0)
                        self.given = self.out
        finally:
            self.out, self.given, self.terminal = kept
            self.out.flush()

    def _run_into(self, simple: Simple) -> None:
        """Run one command into the file that its output goes to."""
        if simple.into is None:
            self._run_simple(simple)
            return
        kept, self._command = (self.out, self.terminal), "shell"
        name = plain_word(simple.into)
        with self.tries(name), self.files.open(self.here(name), "ab" if simple.append else "wb") as target:
            self.out, self.terminal = target, False
            try:
                self._run_simple(simple)
            finally:
                self.out, self.terminal = kept

    def _run_simple(self, simple: Simple) -> None:
        name, *words = [word for given in simple.words for word in self._expanded(given)]
        self._command, self.last, self.status = name, self.status, 0
        command = COMMANDS.get(name)
        if command is None:
            self.complain("command not found; `help` lists what there is", NOT_FOUND)
            return
        try:
            with self.tries(" ".join(words)):
                command(self, words)
        except Usage as error:
            self.complain(f"{error} (usage: {name} {command.usage})", MISTAKEN)
        except Detached as error:
            self.complain(str(error))
            raise Leave(1) from None
        except (CallError, ValueError, OverflowError) as error:
            self.complain(str(error))

    def _expanded(self, word: str) -> Names:
        """The words that a word stands for; a pattern without a match stands for itself."""
        if not has_magic(word):
            return [plain_word(word)]
        prefix = HOST_PREFIX if word.startswith(HOST_PREFIX) else ""
        found = matches(self.place(prefix or "."), word.removeprefix(prefix))
        return [prefix + path for path in found] or [plain_word(word)]

    # ---- reading lines

    def prompt(self) -> str:
        """What stands before a line that is typed."""
        try:
            where = label(self.files.getcwd())
        except OSError:
            where = "(removed)"
        return f"{self.name}:{where}{'$' if os.getuid() else '#'} "

    def converse(self) -> int:
        """Run what is typed until its end; the last status."""
        while True:
            try:
                self.run(input(self.prompt()))
            except EOFError:
                print()
                return self.status
            except Leave as leave:
                return leave.status
            except KeyboardInterrupt as stop:
                if type(stop) is not KeyboardInterrupt:  # a termination, which ends us
                    raise
                print()
                self.status = INTERRUPTED

    def script(self, lines: Iterator[str]) -> int:
        """Run lines until their end; the last status."""
        try:
            for line in lines:
                self.run(line)
        except Leave as leave:
            return leave.status
        return self.status


def _between() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)
