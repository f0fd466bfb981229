"""`open`, as the builtin one is, on the files of a running system."""

from __future__ import annotations

import functools
import io
import warnings
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, overload

from services.files import LARGEST_WHOLE
from shim.files.calls import AnyPath
from shim.files.directories import Directories
from shim.files.raw import RawFile

if TYPE_CHECKING:
    from _typeshed import OpenBinaryMode, OpenTextMode

BUFFER_BYTES: Final = 128 << 10  # a call costs as much as copying about so many bytes


class Opening(Directories):
    """`open`, and what it is mostly needed for."""

    def read_bytes(self, file: AnyPath) -> bytes:
        """Contents of a file, as reading all of `open(file, "rb")` gives them; those of a small one in one call.

        Raises:
            OSError: it cannot be opened or read.
        """
        found = self._fetch(file)
        if isinstance(found, bytes):
            return found
        with RawFile(self, file, "r", opened=found) as opened:
            return opened.readall()

    def write_bytes(self, file: AnyPath, data: Any) -> int:
        """Make a file, or replace its contents, as writing to `open(file, "wb")` does; how many bytes.

        A small one is made in one call, and never found half written.

        Raises:
            OSError: it cannot be opened or written.
        """
        flat = memoryview(data).cast("B")
        if len(flat) <= LARGEST_WHOLE and self._store(file, flat):
            return len(flat)
        with self.open(file, "wb") as opened:
            return opened.write(flat)

    @overload
    def open(
        self,
        file: int | AnyPath,
        mode: OpenTextMode = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
    ) -> io.TextIOWrapper: ...
    @overload
    def open(
        self,
        file: int | AnyPath,
        mode: OpenBinaryMode,
        buffering: int = -1,
        encoding: None = None,
        errors: None = None,
        newline: None = None,
        closefd: bool = True,
    ) -> BinaryIO: ...
    @overload
    def open(
        self,
        file: int | AnyPath,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
    ) -> IO[Any]: ...
    def open(
        self,
        file: int | AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
    ) -> Any:
        """Open a file, given by path or descriptor; all arguments are those of the builtin `open`.

        Raises:
            OSError: it cannot be opened.
            ValueError: the arguments contradict each other.
        """
        binary = "b" in mode
        _check(mode)
        if binary:
            _check_binary(buffering, encoding, errors, newline)
        elif buffering == 0:
            raise ValueError("can't have unbuffered text I/O")
        else:
            encoding = io.text_encoding(encoding)
        raw = RawFile(self, file, mode.replace("b", "").replace("t", ""), closefd)
        result: Any = raw
        try:
            if buffering == 0:
                return raw
            result = _buffered(raw, BUFFER_BYTES if buffering in (-1, 1) else buffering)
            if not binary:
                result = io.TextIOWrapper(result, encoding, errors, newline, buffering == 1 or raw.isatty())
                result._CHUNK_SIZE = BUFFER_BYTES  # else it reads 8 KiB with each call
                result.mode = mode
        except BaseException:
            result.close()
            raise
        return result


@functools.lru_cache(64)
def _check(mode: str) -> None:
    """Refuse modes that the builtin `open` refuses."""
    if len(set(mode)) != len(mode) or set(mode) - set("rwxabt+"):
        raise ValueError(f"invalid mode: {mode!r}")
    if "b" in mode and "t" in mode:
        raise ValueError("can't have text and binary mode at once")


def _check_binary(buffering: int, encoding: str | None, errors: str | None, newline: str | None) -> None:
    """Refuse arguments that only a text file has."""
    for value, name in ((encoding, "an encoding"), (errors, "an errors"), (newline, "a newline")):
        if value is not None:
            raise ValueError(f"binary mode doesn't take {name} argument")
    if buffering == 1:
        warnings.warn("line buffering isn't supported in binary mode", RuntimeWarning, stacklevel=3)


def _buffered(raw: RawFile, size: int) -> Any:
    if raw.readable() and raw.writable():
        return io.BufferedRandom(raw, size)
    return io.BufferedWriter(raw, size) if raw.writable() else io.BufferedReader(raw, size)
