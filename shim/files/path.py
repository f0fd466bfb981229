"""Paths as objects, like `pathlib.Path`, on the files of a running system."""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ClassVar

from shim.files.calls import AnyPath, failure

if TYPE_CHECKING:
    from typing import Self

    from shim.files import Files


class Path(PurePosixPath):
    """A path in the namespace of one system. Made by `Files.path`, whose class knows which.

    It is `os.PathLike`, and no more than a string to whoever opens files of the host.
    """

    files: ClassVar[Files]

    # ---- what is there

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Describe the file."""
        return self.files.stat(self, follow_symlinks=follow_symlinks)

    def lstat(self) -> os.stat_result:
        """Describe the file, or the symbolic link itself."""
        return self.files.stat(self, follow_symlinks=False)

    def exists(self) -> bool:
        """Whether there is such a file."""
        return self.files.exists(self)

    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.files.isdir(self)

    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.files.isfile(self)

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.files.islink(self)

    def samefile(self, other: AnyPath) -> bool:
        """Whether both are the same file."""
        mine, others = self.stat(), self.files.stat(other)
        return (mine.st_dev, mine.st_ino) == (others.st_dev, others.st_ino)

    def absolute(self) -> Self:
        """The path from the root, of one that starts in the current directory."""
        return self if self.is_absolute() else type(self)(self.files.getcwd(), self)

    # ---- directories

    def iterdir(self) -> Iterator[Self]:
        """What is in the directory."""
        for name in self.files.listdir(self):
            yield self / name

    def glob(self, pattern: str) -> Iterator[Self]:
        """What is below and matches, name by name; "**" is any number of directories."""
        parts = PurePosixPath(pattern).parts
        if not parts or pattern.startswith("/"):
            raise ValueError(f"unacceptable pattern: {pattern!r}")
        seen: set[Self] = set()
        for found in self._matching(parts):
            if found not in seen:
                seen.add(found)
                yield found

    def rglob(self, pattern: str) -> Iterator[Self]:
        """What is anywhere below and matches."""
        return self.glob(f"**/{pattern}")

    def _matching(self, parts: tuple[str, ...]) -> Iterator[Self]:
        if not parts:
            yield self
            return
        first, rest = parts[0], parts[1:]
        if first == "**":
            yield from self._matching(rest)
            for below in self._children("*", directories=True):
                yield from below._matching(parts)
        elif set(first) & set("*?["):
            for found in self._children(first, directories=bool(rest)):
                yield from found._matching(rest)
        elif self.files.lexists(self / first):
            yield from (self / first)._matching(rest)

    def _children(self, pattern: str, directories: bool) -> list[Self]:
        """Matching names in this directory; `directories`: only what can be gone down into, which no link is."""
        try:
            with self.files.scandir(self) as scan:
                return [
                    self / entry.name
                    for entry in scan
                    if fnmatch.fnmatchcase(entry.name, pattern)
                    and (not directories or entry.is_dir(follow_symlinks=False))
                ]
        except OSError:
            return []

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Make the directory; with `parents`, also what is missing above it."""
        try:
            self.files.mkdir(self, mode)
        except FileNotFoundError:
            if not parents or self.parent == self:
                raise
            self.parent.mkdir(parents=True, exist_ok=True)
            self.mkdir(mode, exist_ok=exist_ok)
        except OSError:
            if not exist_ok or not self.is_dir():
                raise

    def rmdir(self) -> None:
        """Remove the empty directory."""
        self.files.rmdir(self)

    # ---- contents

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open the file, as the builtin `open` does."""
        return self.files.open(self, mode, buffering, encoding, errors, newline)

    def read_bytes(self) -> bytes:
        """Contents of the file."""
        return self.files.read_bytes(self)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Contents of the file as text."""
        with io.TextIOWrapper(io.BytesIO(self.read_bytes()), io.text_encoding(encoding), errors) as text:
            return text.read()

    def write_bytes(self, data: bytes | bytearray | memoryview) -> int:
        """Make the file, or replace its contents; how many bytes."""
        return self.files.write_bytes(self, data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        """The same with text; how many characters."""
        with self.files.open(self, "w", -1, encoding, errors, newline) as file:
            return file.write(data)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make the file if there is none, else set its times to now."""
        flags = os.O_CREAT | os.O_WRONLY
        try:
            self.files.close(self.files.open_descriptor(self, flags | os.O_EXCL, mode))
        except FileExistsError:
            if not exist_ok:
                raise
            self.files.utime(self)

    # ---- names

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the name."""
        try:
            self.files.unlink(self)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: str | os.PathLike[str]) -> Self:
        """Give the file another name; its path."""
        self.files.rename(self, target)
        return type(self)(target)

    def replace(self, target: str | os.PathLike[str]) -> Self:
        """The same as `rename`."""
        return self.rename(target)

    def symlink_to(self, target: str | os.PathLike[str], target_is_directory: bool = False) -> None:
        """Make this a symbolic link to `target`."""
        self.files.symlink(target, self)

    def hardlink_to(self, target: str | os.PathLike[str]) -> None:
        """Make this one more name of `target`."""
        self.files.link(target, self)

    def readlink(self) -> Self:
        """Where the symbolic link points."""
        return type(self)(self.files.readlink(self))

    def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
        """Set permissions."""
        self.files.chmod(self, mode, follow_symlinks=follow_symlinks)

    def rmtree(self) -> None:
        """Remove the directory with everything below it."""
        if not stat.S_ISDIR(self.lstat().st_mode):
            raise failure(errno.ENOTDIR, self)
        self.files.rmtree(self)
