"""The files of a running system: `system.files`, with the names and the manners of `os`, `open` and `pathlib`.

    files = system.files
    with files.open("/tmp/notes", "w") as file:
        print("hello", file=file)
    files.stat("/tmp/notes").st_size
    for path in files.path("/usr/lib").rglob("*.py"):
        ...

Everything that `os` would say about a file of the host is said here of a file of the system: the same signatures, the
same `OSError`s. What concerns the process is kept here, per client: the current directory and the umask. A
descriptor is a number of the system's, not of the host's: `os.fstat(file.fileno())` would ask about something else.

The classes are stacked, one file each; `Files` is the top.

    calls.py          paths, errors, request numbers, the current directory
    descriptors.py    what takes a descriptor              raw.py      an open file as an object
    names.py          what makes, strikes and moves names  opening.py  `open`
    attributes.py     what is known of a file              trees.py    copying from and to the host
    locks.py          locks                                path.py     paths as objects
    directories.py    listing                              namespace.py  mounts, noted changes
"""

from __future__ import annotations

import os

from shim.files.directories import DirEntry, Scan
from shim.files.locks import RangeLock
from shim.files.namespace import Change, Mount, Namespace
from shim.files.path import Path
from shim.files.raw import RawFile
from shim.files.trees import Trees

__all__ = ["Change", "DirEntry", "Files", "Mount", "Path", "RangeLock", "RawFile", "Scan"]


class Files(Trees, Namespace):
    """The files of a system as one client sees them. Made once, by `shim.System.files`; threads share it."""

    def path(self, *parts: str | os.PathLike[str]) -> Path:
        """A path as an object, like `pathlib.Path`."""
        return self._path_class(*parts)

    @property
    def _path_class(self) -> type[Path]:
        """The class of this system's paths; all that is derived from a path has its class."""
        made: type[Path] | None = self.__dict__.get("_made_path_class")
        return made or self.__dict__.setdefault("_made_path_class", type("Path", (Path,), {"files": self}))
