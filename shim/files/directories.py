"""Listing directories: `listdir`, `scandir`, `walk`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, AnyStr, Final, Generic, overload

from corekernel.errors import ServiceError
from services.files import Entry, pack_entries, unpack_entries, unpack_names
from shim.files.calls import U64, AnyPath, BytesPath, StrPath, decoded, failure
from shim.files.locks import Locks
from shim.files.names import Names

CHUNK_BYTES: Final = 256 << 10


class DirEntry(os.PathLike[AnyStr], Generic[AnyStr]):
    """One name in a directory, like `os.DirEntry`: what the directory itself does not say is asked for once.

    Attributes:
        name: the name.
        path: the same below what was listed.
    """

    __slots__ = ("_dir_fd", "_directory", "_inode", "_kind", "_lstat", "_stat", "name", "path")

    name: AnyStr
    path: AnyStr

    def __init__(
        self, directory: Directories, name: AnyStr, path: AnyStr, inode: int, kind: int, dir_fd: int | None
    ) -> None:
        self.name = name
        self.path = path
        self._directory = directory
        self._inode = inode
        self._kind = kind
        self._dir_fd = dir_fd
        self._stat: os.stat_result | None = None
        self._lstat: os.stat_result | None = None

    def __fspath__(self) -> AnyStr:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def inode(self) -> int:
        """Inode number."""
        return self._inode

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Describe the file, or the symbolic link itself."""
        if follow_symlinks and stat.S_ISLNK(self._kind):
            if self._stat is None:
                self._stat = self._ask(True)
            return self._stat
        if self._lstat is None:
            self._lstat = self._ask(False)
        return self._lstat

    def _ask(self, follow: bool) -> os.stat_result:
        if self._dir_fd is not None:
            return self._directory.stat(self.name, dir_fd=self._dir_fd, follow_symlinks=follow)
        return self._directory.stat(self.path, follow_symlinks=follow)

    def _is(self, kind: int, follow_symlinks: bool) -> bool:
        if not follow_symlinks or not stat.S_ISLNK(self._kind):
            return self._kind == kind
        try:
            return stat.S_IFMT(self.stat().st_mode) == kind
        except FileNotFoundError:
            return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory, or a link to one."""
        return self._is(stat.S_IFDIR, follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file, or a link to one."""
        return self._is(stat.S_IFREG, follow_symlinks)

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self._kind)


class Scan(Generic[AnyStr]):
    """The names in a directory, as they are asked for; closes it at the end, or with its `with` block."""

    def __init__(self, directory: Directories, path: int | AnyPath, flat: AnyStr) -> None:
        self._directory = directory
        self._base: AnyStr = os.path.join(flat, flat[:0]) if flat else flat  # a slash at its end
        self._given = path if isinstance(path, int) else None
        flags = os.O_RDONLY | os.O_DIRECTORY
        self._fd = path if isinstance(path, int) else directory.open_descriptor(path, flags)
        self._waiting: Iterator[Entry] = iter(())
        self._finished = False

    def __iter__(self) -> Iterator[DirEntry[AnyStr]]:
        return self

    def __next__(self) -> DirEntry[AnyStr]:
        for entry in self._waiting:
            name = self._name(entry.name)
            path = self._base + name if self._given is None else name
            return DirEntry(self._directory, name, path, entry.ino, entry.kind, self._given)
        if self._finished or self._fd < 0:
            self.close()
            raise StopIteration
        self._finished, entries = self._directory._entries(self._fd)
        self._waiting = iter(entries)
        return self.__next__()

    def names(self) -> list[AnyStr]:
        """All names still to come, at once."""
        found = [self._name(entry.name) for entry in self._waiting]
        while not self._finished and self._fd >= 0:
            self._finished, packed = self._directory._packed(self._fd)
            found += map(self._name, unpack_names(packed))
        return found

    def _name(self, raw: bytes) -> AnyStr:
        if isinstance(self._base, str):
            return decoded(raw)
        return raw

    def close(self) -> None:
        """Close the directory; one that was given as a descriptor is set back to its beginning."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._given is None:
            self._directory.close(fd)
        elif fd >= 0:
            self._directory.lseek(fd, 0, os.SEEK_SET)

    def __enter__(self) -> Scan[AnyStr]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self.__dict__.get("_fd", -1) >= 0:
            with contextlib.suppress(Exception):
                self.close()


class Directories(Locks, Names):
    """listdir, scandir, walk. Any may raise `OSError`."""

    def _entries(self, fd: int) -> tuple[bool, list[Entry]]:
        """Whether these are the last, and what comes next in an open directory; an empty list: nothing."""
        finished, packed = self._packed(fd)
        return finished, unpack_entries(packed)

    def _packed(self, fd: int) -> tuple[bool, bytes]:
        """The same, as it came."""
        try:
            finished, packed = self._fs.entries(self._lanes.request(), fd & U64, CHUNK_BYTES)
        except ServiceError as error:
            if error.errno == errno.ENOENT:  # it has been removed, and is empty
                return True, pack_entries([])
            raise failure(error) from None
        return finished or not any(packed[:4]), bytes(packed)

    @overload
    def scandir(self, path: StrPath | int | None = None) -> Scan[str]: ...
    @overload
    def scandir(self, path: BytesPath) -> Scan[bytes]: ...
    def scandir(self, path: Any = None) -> Any:
        """Iterate over a directory, given by path or descriptor; None: the current one."""
        path = "." if path is None else path
        return Scan(self, path, "" if isinstance(path, int) else os.fspath(path))

    @overload
    def listdir(self, path: StrPath | int | None = None) -> list[str]: ...
    @overload
    def listdir(self, path: BytesPath) -> list[bytes]: ...
    def listdir(self, path: Any = None) -> Any:
        """Names in a directory, given by path or descriptor; None: the current one."""
        with self.scandir(path) as scan:
            return scan.names()

    def walk(
        self,
        top: AnyStr | os.PathLike[AnyStr],
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[AnyStr, list[AnyStr], list[AnyStr]]]:
        """Directories below `top` with the names of directories and of other files in each, like `os.walk`."""
        waiting: list[AnyStr | tuple[AnyStr, list[AnyStr], list[AnyStr]]] = [os.fspath(top)]
        while waiting:
            here = waiting.pop()
            if isinstance(here, tuple):
                yield here
                continue
            found = self._listed(here, onerror)
            if found is None:
                continue
            directories, others, real = found
            if topdown:
                yield here, directories, others
                real = {name for name in directories if followlinks or not self.islink(os.path.join(here, name))}
            else:
                waiting.append((here, directories, others))
            below = [name for name in directories if followlinks or name in real]
            waiting += [os.path.join(here, name) for name in reversed(below)]

    def _listed(
        self, path: AnyStr, onerror: Callable[[OSError], object] | None
    ) -> tuple[list[AnyStr], list[AnyStr], set[AnyStr]] | None:
        """Directories, other names, and those of the directories that are no links; None: it cannot be read."""
        directories: list[AnyStr] = []
        others: list[AnyStr] = []
        real: set[AnyStr] = set()
        try:
            with Scan(self, path, path) as scan:
                for entry in scan:
                    if not _leads_to_directory(entry):
                        others.append(entry.name)
                        continue
                    directories.append(entry.name)
                    if not entry.is_symlink():
                        real.add(entry.name)
        except OSError as error:
            if onerror is not None:
                onerror(error)
            return None
        return directories, others, real

    # ---- trees

    def rmtree(self, path: AnyPath, ignore_errors: bool = False, *, dir_fd: int | None = None) -> None:
        """Remove a directory with everything below it; symbolic links are removed, not followed.

        Raises:
            OSError: what stopped it; with `ignore_errors`, nothing does, and what can be removed is.
        """
        try:
            mode = self.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                raise OSError("Cannot call rmtree on a symbolic link")
            if not stat.S_ISDIR(mode):
                raise failure(errno.ENOTDIR, path)
            self._empty(path, ignore_errors, dir_fd)
            self.rmdir(path, dir_fd=dir_fd)
        except OSError:
            if not ignore_errors:
                raise

    def _empty(self, path: AnyPath, ignore_errors: bool, dir_fd: int | None) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        fd = self.open_descriptor(path, flags, dir_fd=dir_fd)
        try:
            for name in [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in self.scandir(fd)]:
                self._drop(name[0], name[1], fd, ignore_errors)
        finally:
            self.close(fd)

    def _drop(self, name: str, directory: bool, dir_fd: int, ignore_errors: bool) -> None:
        try:
            if directory:
                self._empty(name, ignore_errors, dir_fd)
                self.rmdir(name, dir_fd=dir_fd)
            else:
                self.unlink(name, dir_fd=dir_fd)
        except OSError:
            if not ignore_errors:
                raise


def _leads_to_directory(entry: DirEntry[Any]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
