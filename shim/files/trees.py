"""Copying between the host's files and those of a running system."""

from __future__ import annotations

import os
import shutil
import stat
from typing import Final

from shim.files.opening import Opening

CHUNK_BYTES: Final = 4 << 20


class Trees(Opening):
    """`copy_in`, `copy_out`: contents, permissions and times of modification; links as links; nothing else."""

    def copy_in(self, host: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
        """Copy a file, link or directory of the host to `path`; directories that are there are filled.

        Raises:
            OSError: what stopped it, on either side.
            ValueError: it is a device, a pipe or a socket.
        """
        host, path = os.fspath(host), os.fspath(path)
        found = os.lstat(host)
        if stat.S_ISLNK(found.st_mode):
            self.symlink(os.readlink(host), path)
            return
        if stat.S_ISDIR(found.st_mode):
            self.makedirs(path, exist_ok=True)
            for name in sorted(os.listdir(host)):
                self.copy_in(os.path.join(host, name), os.path.join(path, name))
        elif stat.S_ISREG(found.st_mode):
            with open(host, "rb") as source, self.open(path, "wb", buffering=CHUNK_BYTES) as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
        else:
            raise ValueError(f"{host} is neither file, directory nor link")
        self.chmod(path, stat.S_IMODE(found.st_mode))
        self.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    def copy_out(self, path: str | os.PathLike[str], host: str | os.PathLike[str]) -> None:
        """The same in the other direction."""
        path, host = os.fspath(path), os.fspath(host)
        found = self.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            os.symlink(self.readlink(path), host)
            return
        if stat.S_ISDIR(found.st_mode):
            os.makedirs(host, exist_ok=True)
            for name in sorted(self.listdir(path)):
                self.copy_out(os.path.join(path, name), os.path.join(host, name))
        elif stat.S_ISREG(found.st_mode):
            with self.open(path, "rb", buffering=CHUNK_BYTES) as source, open(host, "wb") as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
        else:
            raise ValueError(f"{path} is neither file, directory nor link")
        os.chmod(host, stat.S_IMODE(found.st_mode))
        os.utime(host, ns=(found.st_atime_ns, found.st_mtime_ns))
