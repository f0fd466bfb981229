"""What every file operation of a client shares: paths and errors as they travel, request numbers, where it stands.

A client is what the file system takes it for: this process, through one attachment. Its state here is small, because
its open files live in tables that the core holds:

* request numbers, by which the file system tells a call issued again from a new one (`Lanes`);
* the current directory, a descriptor; the umask;
* which descriptors are devices, and by what handle the device manager knows them.

A forked child is a client of its own, which has no descriptors. It starts afresh: `epoch` is another object then,
and whoever holds a descriptor of the parent's can tell.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from corekernel.errors import ServiceError
from services.files import PATH_MAX, ROOT
from services.stubs.devmgr import DevmgrClient
from services.stubs.fs import FsClient

AnyPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
StrPath: TypeAlias = "str | os.PathLike[str]"
BytesPath: TypeAlias = "bytes | os.PathLike[bytes]"

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_REMOVEDIR: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000
U64: Final = 2**64 - 1  # a negative number under this mask is no descriptor, and the service says so
_NOBODY: Final = -2  # as a directory: what no descriptor is
_LANE_BITS: Final = 48


class HasFileno(Protocol):
    """An open file."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


def encoded(path: AnyPath) -> bytes:
    """A path as it travels: UTF-8, with what `os.fsdecode` could not decode as it was.

    Raises:
        TypeError: it is none.
        ValueError: it has a NUL in it.
    """
    flat = path if path.__class__ is str else os.fspath(path)
    raw = flat.encode("utf-8", "surrogateescape") if isinstance(flat, str) else flat
    if b"\0" in raw:
        raise ValueError("embedded null byte")
    return raw


def decoded(raw: bytes) -> str:
    """The reverse of `encoded`."""
    return raw.decode("utf-8", "surrogateescape")


def failure(error: ServiceError | int, name: object = None, other: object = None) -> OSError:
    """What a program gets: an `OSError` of the class that belongs to the errno, with the names it was about."""
    number = error if isinstance(error, int) else error.errno or errno.EIO
    if isinstance(name, os.PathLike):
        name = os.fspath(name)
    if isinstance(other, os.PathLike):
        other = os.fspath(other)
    if name is None:
        return OSError(number, os.strerror(number))
    if other is None:
        return OSError(number, os.strerror(number), name)
    return OSError(number, os.strerror(number), name, None, other)


# ---- request numbers


class _Lane:
    """A number among the client's threads; it goes to the next thread, which goes on counting."""

    def __init__(self, lanes: Lanes) -> None:
        self._free = lanes.free
        try:
            self._number, self.count = self._free.pop()
        except IndexError:
            self._number = next(lanes.numbers)
            self.count = itertools.count(self._number << _LANE_BITS | 1)

    def __del__(self) -> None:
        self._free.append((self._number, self.count))  # atomic: a finalizer must not wait for a lock


class Lanes(threading.local):
    """The calling thread's `request`: a function that gives the number of its next request.

    The lane is given back with the thread's last reference to it. Numbers of one lane ascend, but a finalizer or a
    signal handler may take and use one between another's making and its use: they arrive in any order.
    """

    free: list[tuple[int, itertools.count[int]]]
    numbers: itertools.count[int]

    def __init__(self, free: list[tuple[int, itertools.count[int]]], numbers: itertools.count[int]) -> None:
        # Once per thread, with the arguments that the object was made with.
        self.free, self.numbers = free, numbers
        self._lane = _Lane(self)
        self.request: Callable[[], int] = self._lane.count.__next__

    @classmethod
    def fresh(cls) -> Lanes:
        """Lanes of a client that has made no request yet."""
        return cls([], itertools.count())


# ---- the client

_clients: weakref.WeakSet[Calls] = weakref.WeakSet()


class Calls:
    """What the operations share; the operations are in the classes deriving from it."""

    def __init__(self, fs: FsClient, devices: Callable[[], DevmgrClient]) -> None:
        """Make a client.

        Args:
            fs: the file system.
            devices: gives the device manager, once a device is open; may raise `NoSuchService`.
        """
        self._fs = fs
        self._device_manager = devices
        self._umask = 0o022
        self._cwd_path = b"/"
        self._start_afresh()
        _clients.add(self)

    def _start_afresh(self) -> None:
        self.epoch = object()
        self._lanes = Lanes.fresh()
        self._devices: dict[int, int] = {}  # descriptor -> handle, of those that are devices
        self._path_only: set[int] = set()  # descriptors that were opened with O_PATH
        self._cwd: int | None = ROOT if self._cwd_path == b"/" else None  # None: still to be opened, by its path

    # ---- paths

    def _at(self, path: AnyPath, dir_fd: int | None = None) -> tuple[int, bytes]:
        """Where a path starts, and the path; of one that is too long, as much as the service needs to say so.

        Raises:
            TypeError, ValueError: it is none.
        """
        raw = encoded(path)[:PATH_MAX]
        if dir_fd is None or dir_fd == AT_FDCWD:
            directory = self._cwd
            return self._return() if directory is None else directory, raw
        return (dir_fd if dir_fd >= 0 else _NOBODY), raw

    def _target(self, path: int | AnyPath, dir_fd: int | None, follow: bool = True) -> tuple[int, int, bytes]:
        """Directory, AT_ flags and path of what is given as a path or as a descriptor."""
        if isinstance(path, int):
            if dir_fd is not None or not follow:
                raise ValueError("a descriptor needs neither dir_fd nor follow_symlinks")
            return (path if path >= 0 else _NOBODY), AT_EMPTY_PATH, b""
        directory, raw = self._at(path, dir_fd)
        return directory, 0 if follow else AT_SYMLINK_NOFOLLOW, raw

    def _changed(self, path: int | AnyPath, dir_fd: int | None, follow: bool = True) -> tuple[int, int, bytes]:
        """The same for what may not be done to a descriptor of O_PATH.

        Raises:
            OSError: EBADF, it is one.
        """
        if isinstance(path, int) and path in self._path_only:
            raise failure(errno.EBADF, path)
        return self._target(path, dir_fd, follow)

    def _two(
        self, first: AnyPath, second: AnyPath, first_fd: int | None, second_fd: int | None
    ) -> tuple[int, int, int, bytes]:
        """Two paths as they travel: both directories, the length of the first path, both paths."""
        from_directory, old = self._at(first, first_fd)
        to_directory, new = self._at(second, second_fd)
        return from_directory, to_directory, len(old), old + new

    def _whole(self, path: AnyPath) -> bytes:
        """A path from the root, for operations that know no other."""
        directory, raw = self._at(path)
        if directory == ROOT or not raw or raw.startswith(b"/"):
            return raw
        try:
            return (self._fs.path_of(directory) + b"/" + raw)[:PATH_MAX]
        except ServiceError as error:
            raise failure(error, path) from None

    # ---- where it stands

    def chdir(self, path: int | AnyPath) -> None:
        """Make a directory the current one; it may be given as a descriptor."""
        directory, flags, raw = self._target(path, None)
        if flags:
            directory, raw = path if isinstance(path, int) and path >= 0 else _NOBODY, b"."
        self._enter(directory, raw, path)

    def fchdir(self, fd: int) -> None:
        """Make an open directory the current one."""
        self.chdir(fd)

    def _enter(self, directory: int, raw: bytes, name: object) -> None:
        request = self._lanes.request
        try:
            entered = self._fs.open(request(), directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, raw).descriptor
            try:
                self._fs.access(entered, os.X_OK, AT_EMPTY_PATH, b"")
                where = self._path_of(entered)
            except ServiceError:
                self._fs.close(request(), entered)
                raise
        except ServiceError as error:
            raise failure(error, name) from None
        left, self._cwd, self._cwd_path = self._cwd, entered, where
        if left is not None and left != ROOT:
            self._fs.close(request(), left)

    def _path_of(self, directory: int) -> bytes:
        """Path of a directory; nothing if it has been removed."""
        try:
            return self._fs.path_of(directory)
        except ServiceError as error:
            if error.errno != errno.ENOENT:
                raise
            return b""

    def _return(self) -> int:
        """In a forked child: open the directory again that was the parent's current one."""
        self._enter(ROOT, self._cwd_path, self._cwd_path)
        assert self._cwd is not None
        return self._cwd

    def getcwdb(self) -> bytes:
        """Path of the current directory.

        Raises:
            FileNotFoundError: it has been removed.
        """
        directory = self._cwd if self._cwd is not None else self._return()
        if directory == ROOT:
            return b"/"
        try:
            return self._fs.path_of(directory)
        except ServiceError as error:
            raise failure(error) from None

    def getcwd(self) -> str:
        """Path of the current directory, as text."""
        return decoded(self.getcwdb())

    def umask(self, mask: int) -> int:
        """Set which permissions new files do not get; what was set before. It starts as 0o022."""
        before, self._umask = self._umask, mask & 0o777
        return before


def _after_fork() -> None:
    for client in list(_clients):
        client._start_afresh()


os.register_at_fork(after_in_child=_after_fork)
