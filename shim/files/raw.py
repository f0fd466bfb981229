"""An open file as an object: `io.RawIOBase`, so that everything in `io` and the library can be put upon it.

Where the position is, the file system knows. It is known here, too, as long as all that has happened to the open file
is what this object did, one thing after the other: then `tell` costs nothing, and the buffers of `io` ask it a lot.
Each thing done takes two numbers, one at its beginning and one at its end (taking one is atomic). Two things that
overlap, or one that failed, leave a gap in the numbers, and the position is unknown until the next `seek`. Once the
descriptor has been handed out, by `fileno`, others may move the position, and it is asked for each time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import itertools
import os
import stat
import warnings
from typing import TYPE_CHECKING, Any, Final

from corekernel.errors import CallError
from corekernel.port import MAX_BULK_BYTES
from shim.files.calls import AnyPath, failure
from shim.files.descriptors import DEVMGR, Opened

if TYPE_CHECKING:
    from shim.files.directories import Directories

_UNKNOWN: Final = (-2, 0)
_FLAGS: Final = {
    "r": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}


@functools.lru_cache(64)
def flags_of(mode: str) -> int:
    """O_ flags of a mode such as "rb", "w+b", "a".

    Raises:
        ValueError: it is none.
    """
    kinds = [letter for letter in mode if letter in _FLAGS]
    if len(kinds) != 1 or mode.count("+") > 1 or set(mode) - set("rwxab+"):
        raise ValueError("Must have exactly one of create/read/write/append mode and at most one plus")
    flags = _FLAGS[kinds[0]]
    return flags & ~os.O_ACCMODE | os.O_RDWR if "+" in mode else flags


class RawFile(io.RawIOBase):
    """An open file without a buffer; like `io.FileIO`.

    A read or write of up to 16 MiB is one call. After a fork the child's copy is dead: what is done to it is EBADF.
    """

    _fd = -1
    name: Any

    def __init__(
        self,
        files: Directories,
        file: int | AnyPath,
        mode: str = "r",
        closefd: bool = True,
        opened: Opened | None = None,
    ) -> None:
        """Open a file, or take a descriptor that is open; with `opened`, a path has been opened already.

        Raises:
            OSError: it cannot be opened; IsADirectoryError for a directory.
            ValueError: `mode` is none; `closefd` is False with a path.
        """
        flags = flags_of(mode)
        access = flags & os.O_ACCMODE
        self._files, self._epoch = files, files.epoch
        self._readable, self._writable = access != os.O_WRONLY, access != os.O_RDONLY
        self._appending, self._created = bool(flags & os.O_APPEND), "x" in mode
        self._tickets = itertools.count(1)
        self._known = 0, 0  # the last number taken when the position was known; the position
        self._shared = False
        self._seekable: bool | None = None
        self._closefd = closefd
        self.name = file
        if isinstance(file, int):
            self._take(file)
        elif not closefd:
            raise ValueError("Cannot use closefd=False with file name")
        else:
            self._open(file, flags, opened)
        if self._appending:
            with contextlib.suppress(OSError):  # a device has no end
                self.seek(0, os.SEEK_END)

    def _take(self, fd: int) -> None:
        if fd < 0:
            raise ValueError("negative file descriptor")
        self._shared, self._known = True, _UNKNOWN
        if stat.S_ISDIR(self._files.stat(fd).st_mode):
            raise failure(errno.EISDIR, fd)
        self._fd = fd

    def _open(self, path: AnyPath, flags: int, opened: Opened | None) -> None:
        fd, server, kind = opened or self._files._open(path, flags | os.O_CLOEXEC, 0o666)
        if server == DEVMGR:
            self._known = _UNKNOWN
        elif stat.S_ISDIR(kind):
            self._files.close(fd)
            raise failure(errno.EISDIR, path)
        else:
            self._seekable = True
        self._fd = fd

    # ---- reading and writing

    def _number(self) -> int:
        """The descriptor.

        Raises:
            ValueError: the file is closed.
            OSError: EBADF, it was open in the process that this one was forked from.
        """
        fd = self._fd
        if fd < 0:
            raise ValueError("I/O operation on closed file")
        if self._epoch is not self._files.epoch:
            raise failure(errno.EBADF)
        return fd

    def _moved(self, start: int, by: int) -> None:
        """Something that began with number `start` has moved the position by so many bytes."""
        end = next(self._tickets)
        last, position = self._known
        if last + 1 == start and start + 1 == end:
            self._known = end, position + by

    def read(self, size: int | None = -1, /) -> bytes:
        """Read once, at most `size` bytes and at most 16 MiB; without a size, up to the end of the file."""
        if size is None or size < 0:
            return self.readall()
        fd = self._number()
        if not self._readable:
            raise io.UnsupportedOperation("File not open for reading")
        start = next(self._tickets)
        data = self._files.read(fd, size)
        self._moved(start, len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Read once, into a buffer; how many bytes."""
        view = memoryview(buffer)
        if view.ndim != 1 or view.format != "B":
            view = view.cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Read up to the end of the file."""
        parts = [self.read(MAX_BULK_BYTES)]
        # A regular file answers with less than was asked for only at its end.
        while len(parts[-1]) == MAX_BULK_BYTES or (parts[-1] and not self._seekable):
            parts.append(self.read(MAX_BULK_BYTES))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, data: Any, /) -> int:
        """Write, 16 MiB with each call; how many bytes: fewer than given when the device fills up."""
        fd = self._number()
        if not self._writable:
            raise io.UnsupportedOperation("File not open for writing")
        start = next(self._tickets)
        count = written = self._files.write(fd, data)
        while written == MAX_BULK_BYTES:  # there may be more
            rest = memoryview(data).cast("B")[count:]
            written = self._files.write(fd, rest) if rest else 0
            count += written
        if not self._appending:
            self._moved(start, count)
        return count

    # ---- the position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position; where it is then."""
        if not offset and whence == os.SEEK_CUR:
            return self.tell()
        fd = self._number()
        start = next(self._tickets)
        position = self._files.lseek(fd, offset, whence)
        self._found(start, position)
        return position

    def tell(self) -> int:
        """The position."""
        fd = self._number()
        last, position = self._known
        start = next(self._tickets)
        if last + 1 == start and not self._shared:
            self._known = start, position
            return position
        position = self._files.lseek(fd, 0, os.SEEK_CUR)
        self._found(start, position)
        return position

    def _found(self, start: int, position: int) -> None:
        """What began with number `start` has found out the position."""
        end = next(self._tickets)
        if start + 1 == end:
            self._known = end, position

    def truncate(self, size: int | None = None, /) -> int:
        """Set the file's length, to the position if no size is given; the length. The position stays."""
        fd = self._number()
        if not self._writable:
            raise io.UnsupportedOperation("File not open for writing")
        length = self.tell() if size is None else size
        self._files.ftruncate(fd, length)
        return length

    # ---- what it is

    def fileno(self) -> int:
        """The descriptor: a number for the functions of `system.files`, and no descriptor of the host's."""
        fd = self._number()
        self._shared = True
        return fd

    def readable(self) -> bool:
        """Opened for reading."""
        self._number()
        return self._readable

    def writable(self) -> bool:
        """Opened for writing."""
        self._number()
        return self._writable

    def seekable(self) -> bool:
        """Whether it has a position."""
        fd = self._number()
        if self._seekable is None:
            try:
                self._files.lseek(fd, 0, os.SEEK_CUR)
                self._seekable = True
            except OSError:
                self._seekable = False
        return self._seekable

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._files.isatty(self._number())

    @property
    def closefd(self) -> bool:
        """Whether the descriptor is closed with this object."""
        return self._closefd

    @property
    def mode(self) -> str:
        """The mode as `io.FileIO` writes it."""
        if self._created:
            return "xb+" if self._readable else "xb"
        if self._appending:
            return "ab+" if self._readable else "ab"
        if self._readable:
            return "rb+" if self._writable else "rb"
        return "wb"

    def __repr__(self) -> str:
        state = "[closed]" if self._fd < 0 else f"name={self.name!r} mode={self.mode!r} closefd={self._closefd!r}"
        return f"<{type(self).__module__}.{type(self).__qualname__} {state}>"

    def __getstate__(self) -> object:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    # ---- the end

    def close(self) -> None:
        """Close the file; again does nothing."""
        fd, self._fd = self._fd, -1
        super().close()
        if fd >= 0 and self._closefd and self._epoch is self._files.epoch:
            self._files.close(fd)

    def _dealloc_warn(self, source: object) -> None:
        """Called by a buffer on this file that nobody has closed."""
        if self._fd >= 0 and self._closefd and self._epoch is self._files.epoch:
            warnings.warn(f"unclosed file {source!r}", ResourceWarning, stacklevel=2, source=source)

    def __del__(self) -> None:
        if self._fd >= 0:
            self._dealloc_warn(self)
            with contextlib.suppress(CallError):  # the system may have gone before
                self.close()
