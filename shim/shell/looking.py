"""Commands that only look: ls, tree, find, stat, cat, head, wc, sha256sum."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING

from corekernel.cli.text import table
from shim.shell.listing import columns, described, long_row
from shim.shell.places import Place
from shim.shell.table import Names, Options, Usage, command

if TYPE_CHECKING:
    from shim.shell.shell import Shell

CHUNK_BYTES = 1 << 20
KINDS = {"f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK, "p": stat.S_IFIFO, "c": stat.S_IFCHR}

# ---- names


@command("[-ald1] [PATH]...", "ald1")
def ls(shell: Shell, options: Options, names: Names) -> None:
    """List directories.

    -a: hidden names, too; -l: owner, size and so on; -d: the directory itself; -1: one name per line.
    """
    files: list[Place] = []
    directories: list[Place] = []
    for name in names or ["."]:
        with shell.tries(name):
            place = shell.place(name)
            found = place.side.lstat(place.path)
            follow = stat.S_ISLNK(found.st_mode) and "l" not in options and place.is_directory()
            listed = (follow or stat.S_ISDIR(found.st_mode)) and "d" not in options
            (directories if listed else files).append(place)
    _show(shell, options, [(place, place.shown) for place in files])
    for index, place in enumerate(directories):
        if files or len(directories) > 1:
            shell.say(("\n" if files or index else "") + f"{place.shown}:")
        with shell.tries(place.shown):
            _list(shell, options, place)


def _list(shell: Shell, options: Options, place: Place) -> None:
    hidden = "a" in options
    present = sorted(name for name in place.side.listdir(place.path) if hidden or not name.startswith("."))
    _show(shell, options, [(place.below(name), name) for name in [*([".", ".."] if hidden else []), *present]])


def _show(shell: Shell, options: Options, found: list[tuple[Place, str]]) -> None:
    """Show files under the names given with them."""
    if "l" in options:
        rows = []
        for place, name in found:
            with shell.tries(place.shown):
                rows.append(long_row(place, name, place.side.lstat(place.path)))
        lines = table(rows, right=(1, 4)) if rows else []
    elif shell.terminal and "1" not in options:
        lines = columns([name for _, name in found])
    else:
        lines = [name for _, name in found]
    for line in lines:
        shell.say(line)


@command("[-a] [-L DEPTH] [DIRECTORY]...", "aL:")
def tree(shell: Shell, options: Options, names: Names) -> None:
    """Draw what is below directories.

    -a: hidden names, too; -L: so many levels of it.
    """
    depth = _number(options.get("L", "1000"))
    counts = {True: 0, False: 0}
    for name in names or ["."]:
        with shell.tries(name):
            place = shell.place(name)
            place.side.listdir(place.path)
            shell.say(name)
            _branch(shell, place, "", depth, "a" in options, counts)
    shell.say(f"\n{_counted(counts[True], 'directory', 'directories')}, {_counted(counts[False], 'file', 'files')}")


def _branch(shell: Shell, place: Place, stem: str, depth: int, hidden: bool, counts: dict[bool, int]) -> None:
    present = sorted(name for name in place.side.listdir(place.path) if hidden or not name.startswith("."))
    for index, name in enumerate(present):
        last, below = index == len(present) - 1, place.below(name)
        with shell.tries(below.shown):
            mode = below.side.lstat(below.path).st_mode
            counts[stat.S_ISDIR(mode)] += 1
            target = f" -> {below.side.readlink(below.path)}" if stat.S_ISLNK(mode) else ""
            shell.say(f"{stem}{'└── ' if last else '├── '}{name}{target}")
            if stat.S_ISDIR(mode) and depth > 1:
                _branch(shell, below, stem + ("    " if last else "│   "), depth - 1, hidden, counts)


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


@command("[PATH]... [-name PATTERN] [-type KIND]", None)
def find(shell: Shell, options: Options, names: Names) -> None:
    """Print the paths of all that is below directories.

    -name: of what matches, which wants quotes; -type: of f files, d directories, l links, p pipes, c devices.
    """
    paths, pattern, kind = _wanted(names)
    for name in paths or ["."]:
        for place, mode in _below(shell, shell.place(name)):
            base = os.path.basename(place.shown.rstrip("/")) or place.shown
            if fnmatch.fnmatchcase(base, pattern) and (not kind or stat.S_IFMT(mode) == kind):
                shell.say(place.shown)


def _wanted(words: Names) -> tuple[Names, str, int]:
    """Paths, pattern and kind, of the words of a `find`."""
    paths, pattern, kind = [], "*", 0
    waiting = iter(words)
    for word in waiting:
        if word == "-name":
            pattern = next(waiting, "")
        elif word == "-type":
            kind = KINDS.get(next(waiting, ""), -1)
        elif word.startswith("-"):
            raise Usage(f"unknown predicate {word}")
        else:
            paths.append(word)
    if kind < 0 or not pattern:
        raise Usage("missing or unknown argument")
    return paths, pattern, kind


def _below(shell: Shell, place: Place) -> Iterator[tuple[Place, int]]:
    """A place and all below it, with their modes."""
    mode, names = 0, []
    with shell.tries(place.shown):
        mode = place.side.lstat(place.path).st_mode
        if stat.S_ISDIR(mode):
            names = sorted(place.side.listdir(place.path))
    if mode:
        yield place, mode
    for name in names:
        yield from _below(shell, place.below(name))


@command("PATH...")
def stat_(shell: Shell, options: Options, names: Names) -> None:
    """Print all that is known of files, or of links themselves."""
    for name in names:
        with shell.tries(name):
            place = shell.place(name)
            shell.say(described(place, place.side.lstat(place.path)))


# ---- contents


def _each(shell: Shell, names: Names, work: Callable[[str, IO[bytes]], None]) -> None:
    """Have work done on the files named, one after the other; without any, on what the shell is given."""
    if not names:
        work("", shell.given)
    for name in names:
        with shell.tries(name):
            place = shell.place(name)
            with place.side.open(place.path, "rb") as file:
                work(name, file)


def _chunks(file: IO[bytes]) -> Iterable[bytes]:
    return iter(lambda: file.read(CHUNK_BYTES), b"")


@command("[FILE]...")
def cat(shell: Shell, options: Options, names: Names) -> None:
    """Print files."""

    def copy(name: str, file: IO[bytes]) -> None:
        for chunk in _chunks(file):
            shell.write(chunk)

    _each(shell, names, copy)


@command("[-n LINES] [-c BYTES] [FILE]...", "n:c:")
def head(shell: Shell, options: Options, names: Names) -> None:
    """Print the first 10 lines of files.

    -n: so many lines; -c: so many bytes.
    """
    lines, size = _number(options.get("n", "10")), _number(options.get("c", "0"))

    def begin(name: str, file: IO[bytes]) -> None:
        if len(names) > 1:
            shell.say(f"==> {name} <==")
        if "c" in options:
            shell.write(file.read(size))
        else:
            for line in itertools.islice(file, lines):
                shell.write(line)

    _each(shell, names, begin)


@command("[-lwc] [FILE]...", "lwc")
def wc(shell: Shell, options: Options, names: Names) -> None:
    """Count lines, words and bytes of files.

    -l, -w, -c: only those.
    """
    rows: list[tuple[list[int], str]] = []
    _each(shell, names, lambda name, file: rows.append((_counts(file), name)))
    if len(rows) > 1:
        rows.append(([sum(column) for column in zip(*(counts for counts, _ in rows), strict=True)], "total"))
    wanted = [index for index, letter in enumerate("lwc") if letter in options] or [0, 1, 2]
    cells = [(*(str(counts[index]) for index in wanted), name) for counts, name in rows]
    for line in table(cells, right=range(len(wanted))) if cells else []:
        shell.say(line)


def _counts(file: IO[bytes]) -> list[int]:
    """Lines, words and bytes."""
    counts = [0, 0, 0]
    for line in file:
        counts[0] += line.endswith(b"\n")
        counts[1] += len(line.split())
        counts[2] += len(line)
    return counts


@command("[FILE]...")
def sha256sum(shell: Shell, options: Options, names: Names) -> None:
    """Print SHA-256 digests of files."""

    def digest(name: str, file: IO[bytes]) -> None:
        made = hashlib.sha256()
        for chunk in _chunks(file):
            made.update(chunk)
        shell.say(f"{made.hexdigest()}  {name or '-'}")

    _each(shell, names, digest)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise Usage(f"{text!r} is not a number")
    return int(text)
