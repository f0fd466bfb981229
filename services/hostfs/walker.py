"""Walking a path: from one held directory to the next, never through a symbolic link.

Directories on the way are kept, each under the directory that it was found in and its name. Each step still asks
the host what the name is now, and what was kept is only used if it is that. The host's calls that use the result
start from a held directory too; so whatever is moved or replaced in between, they meet a file of that name in that
directory, or fail. A directory that leaves the exports while it is held takes nothing along: Landlock looks where a
file is when it is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from corekernel.errors import ServiceError
from services.files import NAME_MAX, Attributes
from services.hostfs import host
from services.hostfs.cache import Recent
from services.hostfs.exports import Directory, Link, MadeUp, Node
from services.hostfs.host import Descriptor
from services.hostfs.paths import Path

ATTEMPTS = 100  # to see one name the same way twice, while somebody replaces it all the time


class Spot(NamedTuple):
    """Where on the host a walk has come to: a name in a held directory; an empty one is that directory itself.

    `consumed` is the length of the path up to here; `link` says that the name was seen to be a symbolic link, so that
    the walk went no further.
    """

    directory: Directory
    name: bytes
    consumed: int
    link: bool

    def look_at(self) -> Attributes:
        """What is there now; of a symbolic link its own. Raises the host's OSError."""
        return host.attributes(self.directory.fd, self.name)

    def look(self) -> Descriptor:
        """Hold what is there now; a symbolic link itself. Raises the host's OSError."""
        return host.look(self.directory.fd, self.name) if self.name else self.directory.held


class Found(NamedTuple):
    """What a walk has found; `target` is that of a symbolic link, `spot` none for a made-up directory."""

    consumed: int
    attributes: Attributes
    target: bytes
    spot: Spot | None


class Walker:
    """Walks paths below one root. Safe to use from several threads."""

    def __init__(self, root: Node, most: int) -> None:
        self._root = root
        self._kept: Recent[tuple[int, bytes], Directory] = Recent(most)

    def walk(self, path: Path) -> Found:
        """See the interface.

        Raises:
            ServiceError: the path leads nowhere.
            OSError: the host's.
        """
        spot = self.locate(path)
        if isinstance(spot, MadeUp):
            return Found(len(path.raw), spot.attributes, b"", None)
        for _ in range(ATTEMPTS):
            attributes = spot.look_at()
            if stat.S_ISLNK(attributes.mode):
                attributes, target = _read_link(spot)
                if target:
                    return Found(spot.consumed, attributes, target, spot)
            elif spot.link:  # it is none any more
                return self.walk(path)
            elif path.directory and not stat.S_ISDIR(attributes.mode):
                raise ServiceError(errno.ENOTDIR)
            else:
                return Found(len(path.raw), attributes, b"", spot)
        raise ServiceError(errno.EIO, "it changes too fast to be described")

    def directory(self, path: Path) -> Directory | MadeUp:
        """The directory that a path names.

        Raises:
            ServiceError: ENOTDIR, also for a symbolic link; or the path leads nowhere.
            OSError: the host's.
        """
        spot = self.locate(path)
        if isinstance(spot, MadeUp):
            return spot
        if not spot.name:
            return spot.directory
        below = None if spot.link else self._enter(spot.directory, spot.name)
        if below is None:
            raise ServiceError(errno.ENOTDIR)
        return below

    def locate(self, path: Path) -> Spot | MadeUp:
        """The place of a path's last name, or of the first symbolic link before it; the last name need not exist.

        Raises:
            ServiceError: a name before the last leads nowhere.
            OSError: the host's.
        """
        node, at, names = self._root, 0, path.names
        while isinstance(node, MadeUp) and at < len(names):
            child = node.children.get(names[at])
            if child is None:
                raise ServiceError(errno.ENAMETOOLONG if len(names[at]) > NAME_MAX else errno.ENOENT)
            node, at = child, at + 1
        if isinstance(node, MadeUp):
            return node
        if isinstance(node, Link):
            return self._at_link(node, path, at - 1)
        return self._descend(node, path, at) if at < len(names) else Spot(node, b"", len(path.raw), False)

    def _at_link(self, link: Link, path: Path, index: int) -> Spot:
        status = os.stat(link.name, dir_fd=link.parent.fd, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            raise ServiceError(errno.ENOENT, "what stands there now is not exported")
        return Spot(link.parent, link.name, path.end(index), True)

    def _descend(self, node: Directory, path: Path, index: int) -> Spot:
        """From a directory of the host on; `index` is of the next name."""
        names = path.names
        for at in range(index, len(names) - 1):
            below = self._enter(node, names[at])
            if below is None:
                return Spot(node, names[at], path.end(at), True)
            node = below
        return Spot(node, names[-1], path.end(len(names) - 1) if path.directory else len(path.raw), False)

    def _enter(self, node: Directory, name: bytes) -> Directory | None:
        """The directory of a name, held; None if it is a symbolic link.

        Raises:
            ServiceError: ENOTDIR: it is neither.
            OSError: the host's.
        """
        status = os.stat(name, dir_fd=node.fd, follow_symlinks=False)
        below = self._kept.get((node.serial, name))
        if below is not None and below.ino == status.st_ino and below.dev == status.st_dev:
            return below
        for _ in range(ATTEMPTS):
            if stat.S_ISLNK(status.st_mode):
                return None
            if not stat.S_ISDIR(status.st_mode):
                raise ServiceError(errno.ENOTDIR)
            try:
                below = Directory.of(host.look(node.fd, name, only_directory=True))
            except NotADirectoryError:  # it was one a moment ago
                status = os.stat(name, dir_fd=node.fd, follow_symlinks=False)
                continue
            self._kept.put((node.serial, name), below)
            return below
        raise ServiceError(errno.EIO, "it changes too fast to be entered")


def _read_link(spot: Spot) -> tuple[Attributes, bytes]:
    """Attributes and target of one and the same symbolic link; no target if it is none any more."""
    link = spot.look()
    attributes = host.attributes(link.fd, b"")
    if not stat.S_ISLNK(attributes.mode):
        return attributes, b""
    return attributes, os.readlink(b"", dir_fd=link.fd)
