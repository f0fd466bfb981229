"""Operations that make, strike and move names, under the names that `os` gives them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import overload

from corekernel.errors import ServiceError
from services.files import PATH_MAX
from shim.files.calls import (
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    U64,
    AnyPath,
    BytesPath,
    Calls,
    StrPath,
    decoded,
    encoded,
    failure,
)


class Names(Calls):
    """mkdir, unlink, rename, link and so on. Any may raise `OSError`, with the names it was about."""

    # ---- making

    def mkdir(self, path: AnyPath, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        """Make a directory."""
        directory, raw = self._at(path, dir_fd)
        try:
            self._fs.make_directory(self._lanes.request(), directory, mode & 0o7777 & ~self._umask, raw)
        except ServiceError as error:
            raise failure(error, path) from None

    def makedirs(self, name: AnyPath, mode: int = 0o777, exist_ok: bool = False) -> None:
        """Make a directory and those above it that are missing."""
        head, tail = os.path.split(os.fspath(name))
        if not tail:
            head, tail = os.path.split(head)
        if head and tail and not self._is_there(head):
            with contextlib.suppress(FileExistsError):  # somebody else was faster
                self.makedirs(head, exist_ok=exist_ok)
            if tail in (".", b"."):
                return
        try:
            self.mkdir(name, mode)
        except OSError:
            if not exist_ok or not self._is_there(name, directory=True):
                raise

    def _is_there(self, path: AnyPath, directory: bool = False) -> bool:
        place, raw = self._at(path)
        try:
            mode = int.from_bytes(self._fs.stat(place, 0, raw)[16:24], "little")
        except ServiceError:
            return False
        return stat.S_ISDIR(mode) or not directory

    def mknod(self, path: AnyPath, mode: int = 0o600, device: int = 0, *, dir_fd: int | None = None) -> None:
        """Make a file, a pipe's name or a device; `mode` has the type."""
        directory, raw = self._at(path, dir_fd)
        try:
            self._fs.make_node(self._lanes.request(), directory, mode & ~self._umask & U64, device, raw)
        except ServiceError as error:
            raise failure(error, path) from None

    def mkfifo(self, path: AnyPath, mode: int = 0o666, *, dir_fd: int | None = None) -> None:
        """Make a pipe's name."""
        self.mknod(path, stat.S_IFIFO | stat.S_IMODE(mode), dir_fd=dir_fd)

    def symlink(
        self, src: AnyPath, dst: AnyPath, target_is_directory: bool = False, *, dir_fd: int | None = None
    ) -> None:
        """Make a symbolic link `dst` that points to `src`; `target_is_directory` means nothing here."""
        target = encoded(src)[:PATH_MAX]
        directory, raw = self._at(dst, dir_fd)
        try:
            self._fs.make_symlink(self._lanes.request(), directory, len(target), target + raw)
        except ServiceError as error:
            raise failure(error, src, dst) from None

    def link(
        self,
        src: AnyPath,
        dst: AnyPath,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = False,
    ) -> None:
        """Give a file one more name; of a symbolic link `src`, to itself, as `os.link` does on Linux."""
        places = self._two(src, dst, src_dir_fd, dst_dir_fd)
        from_directory, to_directory, first, paths = places
        flags = AT_SYMLINK_FOLLOW if follow_symlinks else 0
        try:
            self._fs.link(self._lanes.request(), from_directory, to_directory, flags, first, paths)
        except ServiceError as error:
            raise failure(error, src, dst) from None

    # ---- striking

    def unlink(self, path: AnyPath, *, dir_fd: int | None = None) -> None:
        """Remove a name that is no directory's."""
        self._strike(path, 0, dir_fd)

    def remove(self, path: AnyPath, *, dir_fd: int | None = None) -> None:
        """The same as `unlink`."""
        self._strike(path, 0, dir_fd)

    def rmdir(self, path: AnyPath, *, dir_fd: int | None = None) -> None:
        """Remove an empty directory."""
        self._strike(path, AT_REMOVEDIR, dir_fd)

    def _strike(self, path: AnyPath, flags: int, dir_fd: int | None) -> None:
        directory, raw = self._at(path, dir_fd)
        try:
            self._fs.unlink(self._lanes.request(), directory, flags, raw)
        except ServiceError as error:
            raise failure(error, path) from None

    # ---- moving

    def rename(
        self, src: AnyPath, dst: AnyPath, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        """Give a file another name; what had it goes."""
        self.renameat2(src, dst, 0, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def replace(
        self, src: AnyPath, dst: AnyPath, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        """The same as `rename`."""
        self.renameat2(src, dst, 0, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def renameat2(
        self,
        src: AnyPath,
        dst: AnyPath,
        flags: int,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        """The same with flags: RENAME_NOREPLACE (1), RENAME_EXCHANGE (2)."""
        from_directory, to_directory, first, paths = self._two(src, dst, src_dir_fd, dst_dir_fd)
        try:
            self._fs.rename(self._lanes.request(), from_directory, to_directory, flags & U64, first, paths)
        except ServiceError as error:
            raise failure(error, src, dst) from None

    # ---- contents

    @overload
    def readlink(self, path: StrPath, *, dir_fd: int | None = None) -> str: ...
    @overload
    def readlink(self, path: BytesPath, *, dir_fd: int | None = None) -> bytes: ...
    def readlink(self, path: AnyPath, *, dir_fd: int | None = None) -> str | bytes:
        """Where a symbolic link points; as text unless the path is bytes."""
        directory, raw = self._at(path, dir_fd)
        try:
            target = self._fs.read_symlink(directory, raw)
        except ServiceError as error:
            raise failure(error, path) from None
        return target if isinstance(os.fspath(path), bytes) else decoded(target)

    def truncate(self, path: int | AnyPath, length: int) -> None:
        """Set the length of a file, in bytes; it may be given as a descriptor."""
        if length < 0:
            raise failure(errno.EINVAL, path)
        directory, flags, raw = self._target(path, None)
        if not raw and not flags:
            raise failure(errno.ENOENT, path)  # to the service, an empty path means the descriptor
        try:
            self._fs.truncate(self._lanes.request(), directory, length, raw)
        except ServiceError as error:
            raise failure(error, path) from None
