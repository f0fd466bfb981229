"""Places: a path in the system, or, with "host:" before it, on the host. Both sides are read by the same functions."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal, Protocol

HOST_PREFIX: Final = "host:"


class Side(Protocol):
    """What reading and copying need; `shim.files.Files` has it all, and `Host` the same of the host."""

    def stat(self, path: str, /) -> os.stat_result:
        """As `os` has it."""
        ...

    def lstat(self, path: str, /) -> os.stat_result:
        """As `os` has it."""
        ...

    def listdir(self, path: str, /) -> list[str]:
        """As `os` has it."""
        ...

    def readlink(self, path: str, /) -> str:
        """As `os` has it."""
        ...

    def mkdir(self, path: str, mode: int, /) -> None:
        """As `os` has it."""
        ...

    def symlink(self, target: str, path: str, /) -> None:
        """As `os` has it."""
        ...

    def open(self, path: str, mode: Literal["rb"], /) -> BinaryIO:
        """As it is built in."""
        ...

    def read_bytes(self, path: str, /) -> bytes:
        """Contents of a file."""
        ...

    def open_descriptor(self, path: str, flags: int, mode: int, /) -> int:
        """`os.open`."""
        ...

    def read(self, descriptor: int, size: int, /) -> bytes:
        """As `os` has it."""
        ...

    def write(self, descriptor: int, data: memoryview, /) -> int:
        """As `os` has it."""
        ...

    def close(self, descriptor: int, /) -> None:
        """As `os` has it."""
        ...


class Host:
    """The host's files."""

    stat = staticmethod(os.stat)
    lstat = staticmethod(os.lstat)
    listdir = staticmethod(os.listdir)
    readlink = staticmethod(os.readlink)
    mkdir = staticmethod(os.mkdir)
    symlink = staticmethod(os.symlink)
    open_descriptor = staticmethod(os.open)
    read = staticmethod(os.read)
    write = staticmethod(os.write)
    close = staticmethod(os.close)

    @staticmethod
    def read_bytes(path: str) -> bytes:
        """Contents of a file."""
        with open(path, "rb", buffering=0) as file:
            return file.read()

    @staticmethod
    def open(path: str, mode: Literal["rb"]) -> BinaryIO:
        """As it is built in."""
        return open(path, mode)


class PlaceError(OSError):
    """An error with the name of the place that it is about, as the user wrote it."""


@dataclass(frozen=True)
class Place:
    """A path, its side, and how to show it."""

    side: Side
    path: str
    shown: str

    def below(self, name: str) -> Place:
        """A name in this directory."""
        return Place(self.side, os.path.join(self.path, name), os.path.join(self.shown, name))

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Have errors within it name this place."""
        try:
            yield
        except OSError as error:
            raise PlaceError(error.errno, error.strerror, self.shown) from None

    def found(self) -> os.stat_result | None:
        """What there is, links followed; None: nothing, or no way to it."""
        try:
            return self.side.stat(self.path)
        except OSError:
            return None

    def is_directory(self) -> bool:
        """Whether it is a directory, or a link to one."""
        found = self.found()
        return found is not None and stat.S_ISDIR(found.st_mode)

    def one_side(self, other: Place) -> bool:
        """Whether both are here, or both on the host."""
        return type(self.side) is type(other.side)
