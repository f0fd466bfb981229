"""Copying files and trees between places, with progress on a terminal.

Contents and permissions are copied, the latter less the umask; links as links. What cannot be copied is said, and the
rest goes on.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from corekernel.cli.text import amount, label
from shim.shell.places import Place, PlaceError

if TYPE_CHECKING:
    from typing import Self

CHUNK_BYTES = 4 << 20
FIRST_SHOWN_SECONDS = 0.5
SHOWN_EACH_SECONDS = 0.1
_WIDTH = 79


class Tries(Protocol):
    """`Shell.tries`."""

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """Errors within it are said."""
        ...


class Progress:
    """One line on the terminal that says how far a long work is; none when standard error is no terminal."""

    def __init__(self) -> None:
        self.files = self.bytes = 0
        self._began = time.monotonic()
        self._next = self._began + FIRST_SHOWN_SECONDS if sys.stderr.isatty() else float("inf")
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def at(self, name: str) -> None:
        """Show how far it is, and where, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next, self._shown = now + SHOWN_EACH_SECONDS, True
        rate = self.files / (now - self._began)
        line = f"{self.files:,} files, {amount(self.bytes)}, {rate:,.0f} files/s  {label(name)}"
        print(f"\r{line[:_WIDTH]}\033[K", end="", file=sys.stderr, flush=True)


class Copy:
    """One `cp`: it goes through trees."""

    def __init__(self, tries: Tries, recursive: bool, progress: Progress) -> None:
        self._tries = tries
        self._recursive = recursive
        self._progress = progress
        self._made: set[tuple[int, int]] = set()  # directories that are being copied into, by device and inode

    def one(self, source: Place, target: Place) -> None:
        """Copy a file, a link or, if recursive, a directory."""
        with self._tries(source.shown):
            with source.named():
                look = source.side.lstat if self._recursive else source.side.stat
                found = look(source.path)
            self._progress.at(source.shown)
            if stat.S_ISDIR(found.st_mode):
                self._directory(source, target, found)
            elif stat.S_ISLNK(found.st_mode):
                link = source.side.readlink(source.path)
                with target.named():
                    target.side.symlink(link, target.path)
            elif stat.S_ISREG(found.st_mode):
                self._file(source, target, found)
            else:
                raise PlaceError(0, "neither a file, a directory nor a link", source.shown)

    def _directory(self, source: Place, target: Place, found: os.stat_result) -> None:
        if not self._recursive:
            raise PlaceError(0, "is a directory; -r copies it", source.shown)
        if (found.st_dev, found.st_ino) in self._made and source.one_side(target):
            raise PlaceError(0, "cannot be copied into itself", source.shown)
        names = sorted(source.side.listdir(source.path))
        if not target.is_directory():
            with target.named():
                target.side.mkdir(target.path, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)
        if source.one_side(target):
            made = target.side.stat(target.path)
            if os.path.samestat(found, made):
                raise PlaceError(0, f"is {target.shown} itself", source.shown)
            self._made.add((made.st_dev, made.st_ino))
        for name in names:
            self.one(source.below(name), target.below(name))

    def _file(self, source: Place, target: Place, found: os.stat_result) -> None:
        there = target.found() if source.one_side(target) else None
        if there is not None and os.path.samestat(found, there):
            raise PlaceError(0, f"is {target.shown} itself", source.shown)
        with source.named():
            reading = source.side.open_descriptor(source.path, os.O_RDONLY | os.O_CLOEXEC, 0)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with target.named():
                if not target.path or target.path.endswith("/"):
                    raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
                writing = target.side.open_descriptor(target.path, flags, stat.S_IMODE(found.st_mode))
            try:
                self._contents(source, reading, target, writing)
            finally:
                target.side.close(writing)
        finally:
            source.side.close(reading)
        self._progress.files += 1

    def _contents(self, source: Place, reading: int, target: Place, writing: int) -> None:
        while data := source.side.read(reading, CHUNK_BYTES):
            rest = memoryview(data)
            while rest:
                with target.named():
                    rest = rest[target.side.write(writing, rest) :]
            self._progress.bytes += len(data)
            self._progress.at(source.shown)
