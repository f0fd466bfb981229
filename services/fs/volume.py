"""Volumes: what is mounted in the namespace and not on the device, such as a directory of the host, or `/proc`.

A volume may be another process, and no lock is held over a call to it. So a walk that needs an answer raises
`NeedVolume`, whoever runs it gets the answer with the lock released, and walks again with the answer in `Answers`.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.files import Attributes
from services.fs.fresh import Contents


class Walked(NamedTuple):
    """A volume's answer: how much of the path it walked, and what stands there; `target` of a symbolic link.

    If it is to be read: `refused` is the errno with which opening it fails, or 0; `contents` may have come along.
    """

    consumed: int
    attributes: Attributes
    target: bytes = b""
    refused: int = 0
    contents: Contents | None = None


class Volume(Protocol):
    """Something mounted that is not on the device; it is read-only. Its methods raise `ServiceError`."""

    number: int
    kind: str
    source: str
    covers: int

    def walk(self, path: bytes, who: Caller, size: int) -> Walked:
        """Walk a path without "." and "..", up to its end or the first symbolic link.

        With a size, a regular file is to be read next: contents of as many bytes may come with the answer.
        """
        ...

    def read(self, node: Remote, offset: int, size: int) -> bytes:
        """Contents of a file."""
        ...

    def entries(self, node: Remote, after: int, size: int) -> tuple[int, bool, bytes]:
        """Names in a directory beyond a position: position of the last one, whether that is all, packed entries."""
        ...

    def statfs(self, path: bytes) -> tuple[int, ...]:
        """The results of the operation `statfs`."""
        ...


@dataclass(slots=True, eq=False)
class Remote:
    """A file of a volume; it can be asked for its owner and mode like an `Inode`. The rest is as in `Walked`."""

    volume: Volume
    path: bytes
    found: Attributes
    target: bytes = b""
    refused: int = 0
    contents: Contents | None = None

    @property
    def ino(self) -> int:
        """Inode number."""
        return self.found.ino

    @property
    def mode(self) -> int:
        """Type and permissions."""
        return self.found.mode

    @property
    def uid(self) -> int:
        """Owner."""
        return self.found.uid

    @property
    def gid(self) -> int:
        """Group."""
        return self.found.gid

    @property
    def rdev(self) -> int:
        """Number of a device."""
        return self.found.rdev

    @property
    def size(self) -> int:
        """Bytes."""
        return self.found.size

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.found.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.found.mode)

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.found.mode)

    def attributes(self) -> Attributes:
        """For `stat`; the device number is its mount's."""
        return self.found._replace(dev=self.volume.number)


def root_of(volume: Volume) -> Remote:
    """The directory that a volume shows at its mount."""
    return Remote(volume, b"", VOLUME_ROOT)


VOLUME_ROOT = Attributes(1, 0, stat.S_IFDIR | 0o555, 2, 0, 0, 0, 0, 4096, 0, 0, 0, 0, 0)


class NeedVolume(Exception):
    """The walk cannot go on without a volume's answer."""

    def __init__(self, volume: Volume, path: bytes) -> None:
        super().__init__(path)
        self.volume = volume
        self.path = path


class Answers:
    """What volumes have answered during one operation, which will read up to `size` bytes of what it finds."""

    def __init__(self, who: Caller, size: int = 0) -> None:
        self._who = who
        self._size = size
        self._known: dict[tuple[int, bytes], Walked | ServiceError] = {}

    def of(self, volume: Volume, path: bytes) -> Walked:
        """A volume's answer.

        Raises:
            NeedVolume: it has not been asked.
            ServiceError: its answer was that.
        """
        known = self._known.get((volume.number, path))
        if known is None:
            raise NeedVolume(volume, path)
        if isinstance(known, ServiceError):
            raise ServiceError(known.errno or errno.EIO)
        return known

    def ask(self, volume: Volume, path: bytes) -> None:
        """Ask a volume; takes as long as it takes."""
        key = (volume.number, path)
        try:
            self._known[key] = volume.walk(path, self._who, self._size)
        except ServiceError as error:
            self._known[key] = error
