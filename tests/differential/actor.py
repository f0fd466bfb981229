"""One client: carries out steps on `os` or on `system.files`; the code is the same for both.

An answer is JSON: what the operation returned, with what must not be compared marked for `compare.py`; or what it
raised: an `OSError` by class and errno, anything else by class.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.differential.steps import SLOTS

HOME: Final = "/w"  # where every sequence starts
_CLOSED: Final = 999
_LARGEST_READ: Final = 1 << 20
_REALTIME_COARSE: Final = 5
_WAITING: Final = (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK)

Answer = list[Any]


class Actor:
    """A client with its descriptors, in slots."""

    def __init__(self, api: Any, whoami: int, kept: Sequence[str]) -> None:
        """Make a client.

        Args:
            api: `os` or `system.files`, as far as both are alike.
            whoami: what others call this client.
            kept: names in the root that are no sequence's.
        """
        self._api = api
        self.whoami = whoami
        self._kept = set(kept)
        self._slots = [_CLOSED] * SLOTS
        self._written = 0

    def answer(self, name: str, arguments: Sequence[Any]) -> Answer:
        """Carry out a step."""
        operation: Callable[..., Any] = getattr(self, f"do_{name}")
        try:
            return ["ok", operation(*arguments)]
        except OSError as error:
            number = error.errno or 0
            return ["error", type(error).__name__, errno.errorcode.get(number, str(number))]
        except (ValueError, TypeError, OverflowError) as error:
            return ["raised", type(error).__name__]

    # ---- before and after a sequence

    def do_enter(self) -> None:
        """Stand where every sequence starts, with nothing open."""
        for number in range(SLOTS):
            self._put(number, _CLOSED)
        self._written = 0
        self._api.umask(0o022)
        self._api.chdir(HOME)

    def do_clear(self) -> None:
        """Remove everything."""
        self._api.umask(0)
        for name in self._api.listdir("/"):
            if name not in self._kept:
                self._remove("/" + name)
        self._api.chmod("/", 0o755)
        self._api.chown("/", 0, 0)
        for name in self._api.listxattr("/"):
            self._api.removexattr("/", name)
        self._api.utime("/", ns=(0, 0))

    def do_found(self) -> None:
        """Make the directory where every sequence starts."""
        self._api.mkdir(HOME, 0o777)

    def _remove(self, path: str) -> None:
        if not stat.S_ISDIR(self._api.lstat(path).st_mode):
            self._api.unlink(path)
            return
        for name in self._api.listdir(path):
            self._remove(f"{path}/{name}")
        self._api.rmdir(path)

    def do_tree(self) -> dict[str, Any]:
        """Everything there is: attributes, contents, links, extended attributes."""
        found = {"/": self._described("/")}
        for name in sorted(set(self._api.listdir("/")) - self._kept):
            found["/" + name] = self._described("/" + name)
            if stat.S_ISLNK(self._api.lstat("/" + name).st_mode):
                continue
            for top, directories, others in self._api.walk("/" + name):
                for path in (os.path.join(top, name) for name in [*directories, *others]):
                    found[path] = self._described(path)
        return found

    def _described(self, path: str) -> list[Any]:
        found = self._api.lstat(path)
        kind = stat.S_IFMT(found.st_mode)
        contents: Any = None
        if kind == stat.S_IFREG:
            contents = self._contents(path, found.st_size)
        elif kind == stat.S_IFLNK:
            contents = self._api.readlink(path)
        names = sorted(self._api.listxattr(path, follow_symlinks=False))
        values = [_digest(self._api.getxattr(path, name, follow_symlinks=False)) for name in names]
        return [_stat(found), contents, names, values]

    def _contents(self, path: str, size: int) -> list[Any]:
        """The beginning and the end: a file may be enormous, and is empty between."""
        fd = self._api.open_descriptor(path, os.O_RDONLY | os.O_NOATIME)
        try:
            ends = self._api.pread(fd, 1 << 18, 0), self._api.pread(fd, 4096, max(0, size - 4096))
        finally:
            self._api.close(fd)
        return [_digest(data) for data in ends]

    # ---- descriptors

    def _put(self, number: int, fd: int) -> None:
        old, self._slots[number] = self._slots[number], fd
        if old != _CLOSED:
            self._api.close(old)

    def _dir(self, at: int | None) -> int | None:
        return None if at is None else self._slots[at]

    def _would_wait(self, path: str, at: int | None) -> bool:
        """Whether a path leads to what is not a file: opening it is not compared."""
        try:
            mode = self._api.stat(path, dir_fd=self._dir(at)).st_mode
        except OSError:
            return False
        return stat.S_IFMT(mode) in _WAITING

    def do_open(self, number: int, path: str, flags: int, mode: int, at: int | None) -> Any:
        if not flags & os.O_PATH and self._would_wait(path, at):
            return "not a file"
        self._put(number, self._api.open_descriptor(path, flags, mode, dir_fd=self._dir(at)))
        return None

    def do_close(self, number: int) -> None:
        fd, self._slots[number] = self._slots[number], _CLOSED
        self._api.close(fd)

    def do_dup(self, number: int, other: int) -> None:
        self._put(other, self._api.dup(self._slots[number]))

    def do_dup2(self, number: int, other: int) -> None:
        if self._slots[other] == _CLOSED:
            self._api.dup2(self._slots[number], _CLOSED)
            self._api.close(_CLOSED)
        else:
            self._api.dup2(self._slots[number], self._slots[other])

    def do_getfl(self, number: int) -> Any:
        return self._api.fcntl(self._slots[number], fcntl.F_GETFL)

    def do_setfl(self, number: int, flags: int) -> Any:
        return self._api.fcntl(self._slots[number], fcntl.F_SETFL, flags)

    def do_getfd(self, number: int) -> Any:
        return self._api.fcntl(self._slots[number], fcntl.F_GETFD)

    def do_setfd(self, number: int, flags: int) -> Any:
        return self._api.fcntl(self._slots[number], fcntl.F_SETFD, flags)

    # ---- data

    def _data(self, size: int) -> bytes:
        if size < 0:
            raise ValueError
        self._written += 1
        return bytes([self._written % 255 + 1]) * size

    def do_read(self, number: int, size: int) -> Any:
        return _digest(self._api.read(self._slots[number], size))

    def do_pread(self, number: int, size: int, offset: int) -> Any:
        return _digest(self._api.pread(self._slots[number], size, offset))

    def do_write(self, number: int, size: int) -> Any:
        return self._api.write(self._slots[number], self._data(size))

    def do_pwrite(self, number: int, size: int, offset: int) -> Any:
        return self._api.pwrite(self._slots[number], self._data(size), offset)

    def do_lseek(self, number: int, offset: int, whence: int) -> Any:
        fd = self._slots[number]
        if stat.S_ISDIR(self._api.fstat(fd).st_mode) and (offset or whence):
            return "of a directory"
        return self._api.lseek(fd, offset, whence)

    def do_ftruncate(self, number: int, length: int) -> None:
        self._api.ftruncate(self._slots[number], length)

    def do_truncate(self, path: str, length: int) -> None:
        self._api.truncate(path, length)

    def do_fallocate(self, number: int, mode: int, offset: int, length: int) -> None:
        self._api.fallocate(self._slots[number], mode, offset, length)

    def do_fsync(self, number: int) -> None:
        self._api.fsync(self._slots[number])

    def do_load(self, path: str) -> Any:
        if self._would_wait(path, None):
            return "not a file"
        with contextlib.suppress(OSError):
            if self._api.stat(path).st_size > _LARGEST_READ:
                return "enormous, and empty"
        return _digest(self._api.read_bytes(path))

    def do_save(self, path: str, size: int) -> Any:
        if self._would_wait(path, None):
            return "not a file"
        return self._api.write_bytes(path, self._data(size))

    def do_put(self, path: str, size: int) -> None:
        """Make a file."""
        if not self._would_wait(path, None):
            fd = self._api.open_descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                self._api.write(fd, self._data(size))
            finally:
                self._api.close(fd)

    # ---- names

    def do_mkdir(self, path: str, mode: int, at: int | None) -> None:
        self._api.mkdir(path, mode, dir_fd=self._dir(at))

    def do_mknod(self, path: str, kind: int, mode: int) -> None:
        self._api.mknod(path, kind | mode, os.makedev(1, 3) if kind == stat.S_IFCHR else 0)

    def do_unlink(self, path: str, at: int | None) -> None:
        self._api.unlink(path, dir_fd=self._dir(at))

    def do_rmdir(self, path: str, at: int | None) -> None:
        self._api.rmdir(path, dir_fd=self._dir(at))

    def do_rename(self, old: str, new: str, flags: int, old_at: int | None, new_at: int | None) -> None:
        self._api.renameat2(old, new, flags, src_dir_fd=self._dir(old_at), dst_dir_fd=self._dir(new_at))

    def do_link(self, old: str, new: str, follow: bool, old_at: int | None, new_at: int | None) -> None:
        places = {"src_dir_fd": self._dir(old_at), "dst_dir_fd": self._dir(new_at)}
        self._api.link(old, new, **places, follow_symlinks=follow)

    def do_symlink(self, target: str, path: str, at: int | None) -> None:
        self._api.symlink(target, path, dir_fd=self._dir(at))

    def do_readlink(self, path: str, at: int | None) -> Any:
        return self._api.readlink(path, dir_fd=self._dir(at))

    # ---- what is known of a file

    def do_stat(self, path: str, follow: bool, at: int | None) -> Any:
        return _stat(self._api.stat(path, dir_fd=self._dir(at), follow_symlinks=follow))

    def do_fstat(self, number: int) -> Any:
        return _stat(self._api.fstat(self._slots[number]))

    def do_times(self, path: str) -> Any:
        """Attributes with times, and no change can happen any more in the tick of the host's clock that they show."""
        found = self._api.lstat(path)
        seen = time.clock_gettime_ns(time.CLOCK_REALTIME)
        while time.clock_gettime_ns(_REALTIME_COARSE) <= seen:
            os.sched_yield()  # the tick is over within milliseconds
        return [*_stat(found), "times", found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns]

    def do_access(self, path: str, mode: int, at: int | None) -> Any:
        return self._api.access(path, mode, dir_fd=self._dir(at))

    def do_chmod(self, path: str, mode: int, at: int | None) -> None:
        self._api.chmod(path, mode, dir_fd=self._dir(at))

    def do_fchmod(self, number: int, mode: int) -> None:
        self._api.fchmod(self._slots[number], mode)

    def do_chown(self, path: str, uid: int, gid: int, follow: bool, at: int | None) -> None:
        self._api.chown(path, uid, gid, dir_fd=self._dir(at), follow_symlinks=follow)

    def do_fchown(self, number: int, uid: int, gid: int) -> None:
        self._api.fchown(self._slots[number], uid, gid)

    def do_utime(self, path: str, ns: Sequence[int] | None, follow: bool, at: int | None) -> None:
        chosen = {} if ns is None else {"ns": tuple(ns)}
        self._api.utime(path, **chosen, dir_fd=self._dir(at), follow_symlinks=follow)

    def do_getxattr(self, path: str, name: str, follow: bool) -> Any:
        return _digest(self._api.getxattr(path, name, follow_symlinks=follow))

    def do_setxattr(self, path: str, name: str, value: str, flags: int, follow: bool) -> None:
        self._api.setxattr(path, name, value.encode(), flags, follow_symlinks=follow)

    def do_listxattr(self, path: str, follow: bool) -> Any:
        return sorted(self._api.listxattr(path, follow_symlinks=follow))

    def do_removexattr(self, path: str, name: str, follow: bool) -> None:
        self._api.removexattr(path, name, follow_symlinks=follow)

    # ---- directories

    def do_listdir(self, path: str) -> Any:
        with self._api.scandir(path) as scan:
            found = [
                [e.name, e.is_symlink(), e.is_dir(follow_symlinks=False), e.is_file(follow_symlinks=False)]
                for e in scan
            ]
        return sorted(entry for entry in found if entry[0] not in self._kept)

    def do_fdlistdir(self, number: int) -> Any:
        fd = self._slots[number]
        if stat.S_ISREG(self._api.fstat(fd).st_mode):
            return "a file"
        return sorted(name for name in self._api.listdir(fd) if name not in self._kept)

    def do_chdir(self, path: str) -> None:
        self._api.chdir(path)

    def do_fchdir(self, number: int) -> None:
        self._api.fchdir(self._slots[number])

    def do_getcwd(self) -> Any:
        return self._api.getcwd()

    def do_umask(self, mask: int) -> Any:
        return self._api.umask(mask)

    # ---- locks

    def do_flock(self, number: int, kind: int) -> None:
        self._api.flock(self._slots[number], kind | fcntl.LOCK_NB)

    def do_lockf(self, number: int, kind: int, span: Sequence[int], whence: int) -> None:
        how = kind if kind == fcntl.LOCK_UN else kind | fcntl.LOCK_NB
        self._api.lockf(self._slots[number], how, span[1], span[0], whence)

    def do_getlk(self, number: int, kind: int, span: Sequence[int]) -> Any:
        found = self._api.getlk(self._slots[number], kind, span[1], span[0], 0)
        return None if found is None else ["lock", *found]


def _digest(data: bytes) -> list[int]:
    return [len(data), zlib.crc32(data)]


def _stat(found: os.stat_result) -> list[Any]:
    return [
        "stat", found.st_mode, found.st_ino, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, found.st_size,
        found.st_blocks,
    ]  # fmt: skip
