"""From a path to what it names, through directories, symbolic links and mounts.

What is on the device is looked up here; what a *volume* serves (`volume.py`) is asked of it.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.files import SYMLINKS_MAX
from services.fs.permission import EXECUTE, may, require
from services.fs.store import Inode, Store
from services.fs.volume import VOLUME_ROOT, Answers, Remote, Volume, root_of

Node: TypeAlias = Inode | Remote
_TYPE, _DIRECTORY, _LINK = 0o170000, stat.S_IFDIR, stat.S_IFLNK
_NO_NAMES = frozenset((b"", b".", b".."))


class Last(Enum):
    """What the last component of a path is."""

    NAME = 0
    ROOT = 1
    DOT = 2
    DOTDOT = 3


@dataclass(slots=True)
class Place:
    """Where a path leads.

    Attributes:
        parent: the directory that the last component stands in.
        name: the last component, unless `last` is another than NAME.
        node: what is there; None: nothing.
        slash: whether the path ended with a slash, and so must name a directory.
    """

    parent: Node
    name: bytes
    node: Node | None
    slash: bool
    last: Last = Last.NAME

    def existing(self) -> Node:
        """What is there.

        Raises:
            ServiceError: ENOENT, nothing; ENOTDIR, the path ended with a slash and it is no directory.
        """
        if self.node is None:
            raise ServiceError(errno.ENOENT)
        if self.slash and not self.node.is_directory:
            raise ServiceError(errno.ENOTDIR)
        return self.node


def place_of(place: Place) -> tuple[int, bytes] | None:
    """Number of the directory and name, of a place on the device."""
    return (place.parent.ino, place.name) if isinstance(place.parent, Inode) and place.last is Last.NAME else None


@dataclass(slots=True)
class _Walk:
    """One walk: where it is, what is still to be walked (the next component last), how many links it followed."""

    node: Node
    todo: list[bytes]
    slash: bool
    parent: Node
    creating: bool = False
    links: int = 0
    name: bytes = b""
    last: Last = Last.ROOT

    @property
    def refused(self) -> bool:
        """Whether the last name is up, and has a slash after it that a file to be made cannot have."""
        return self.creating and self.slash and len(self.todo) == 1


class Walker:
    """Walks paths in the namespace of a store and its mounts."""

    def __init__(self, store: Store, root: Callable[[], Node], mounted: Mapping[int, Volume]) -> None:
        """Make a walker; `mounted` is what is mounted on directories, by inode number."""
        self._store = store
        self._root = root
        self._mounted = mounted

    def walk(
        self, who: Caller, start: Node, path: bytes, follow: bool, answers: Answers, creating: bool = False
    ) -> Place:
        """Walk a path.

        Args:
            who: must be allowed to search each directory.
            start: where the path starts: the root, if it begins with a slash.
            path: not empty, and shorter than PATH_MAX.
            follow: whether a symbolic link at the end is followed (one in the middle always is).
            answers: of volumes.
            creating: for `open` with O_CREAT, which refuses a slash at the end before it looks what is there.

        Raises:
            ServiceError: ENOENT, ENOTDIR, EISDIR, EACCES, EINVAL, ELOOP, ENAMETOOLONG, or what a volume says.
            NeedVolume: see there.
        """
        if b"\0" in path:
            raise ServiceError(errno.EINVAL)
        if isinstance(start, Inode):
            place = self._straight(who, start, path, follow, answers)
            if place is not None:
                return place
        walk = _Walk(start, _components(path), path[-1] == 47, start, creating)
        here: Node | None = start
        while walk.todo:
            if here is None:
                raise ServiceError(errno.ENOENT)
            walk.node = here
            here = self._step(who, walk, follow, answers)
        return Place(walk.parent, walk.name, here, walk.slash, walk.last)

    def _straight(self, who: Caller, here: Inode, path: bytes, follow: bool, answers: Answers) -> Place | None:
        """Where a path leads, if that is past nothing but directories in the caches, perhaps into a volume.

        Most paths are like this, and most operations begin with one. None: it must be walked in steps.
        """
        names, inodes, mounted, root = self._store.names, self._store.inodes, self._mounted, who.uid == 0
        *above, last = path.split(b"/")
        if last in _NO_NAMES:
            return None
        for at, name in enumerate(above, 1):
            if name:
                found = inodes.get(names.get((here.ino, name), 0))
                if found is None or found.mode & _TYPE != _DIRECTORY:
                    return None
                if not root and not may(who, here, EXECUTE):
                    return None
                if found.ino in mounted:
                    return self._within(mounted[found.ino], [*above[at:], last], follow, answers)
                here = found
        if here.mode & _TYPE != _DIRECTORY or not here.nlink or not (root or may(who, here, EXECUTE)):
            return None
        found = self._store.lookup(here, last)
        if found is not None and (found.ino in mounted or (follow and found.mode & _TYPE == _LINK)):
            return None
        return Place(here, last, found, False)

    def _within(self, volume: Volume, names: list[bytes], follow: bool, answers: Answers) -> Place | None:
        """Where names lead in a volume that everybody may search, if it finds them all, past no link."""
        if not _NO_NAMES.isdisjoint(names):
            return None
        path = b"/".join(names)
        try:
            walked = answers.of(volume, path)
        except ServiceError:
            return None
        if walked.consumed != len(path) or (follow and walked.attributes.mode & _TYPE == _LINK):
            return None
        above, _, name = path.rpartition(b"/")
        return Place(Remote(volume, above, VOLUME_ROOT), name, Remote(volume, path, *walked[1:]), False)

    def _step(self, who: Caller, walk: _Walk, follow: bool, answers: Answers) -> Node | None:
        """Take the next component; what is there now."""
        node = walk.node
        if not node.is_directory:
            raise ServiceError(errno.ENOTDIR)
        require(who, node, EXECUTE)
        if walk.refused and walk.todo[-1] not in (b".", b".."):
            raise ServiceError(errno.EISDIR)
        name = walk.todo.pop()
        walk.parent, walk.name = node, name
        if name == b".":
            walk.last = Last.DOT
            return node
        if name == b"..":
            walk.last = Last.DOTDOT
            return self._above(node, answers)
        walk.last = Last.NAME
        found = self._local(node, name) if isinstance(node, Inode) else self._remote(walk, node, name, answers)
        if found is not None and found.is_symlink and (walk.todo or follow):
            return self._follow(walk, walk.parent, found)
        return found

    def _local(self, directory: Inode, name: bytes) -> Node | None:
        if not directory.nlink:  # removed: nothing is in it, whatever the name
            return None
        found = self._store.lookup(directory, name)
        if found is None or not found.is_directory:
            return found
        return self._covered(found)

    def _covered(self, directory: Inode) -> Node:
        """What is mounted on a directory, else it."""
        volume = self._mounted.get(directory.ino)
        return directory if volume is None else root_of(volume)

    def _remote(self, walk: _Walk, directory: Remote, name: bytes, answers: Answers) -> Node | None:
        """Walk as many names as there are in a row; the volume itself has searched the directories between."""
        names, todo = [name], walk.todo
        if b"." in todo or b".." in todo:
            while todo[-1] not in (b".", b".."):
                names.append(todo.pop())
        else:
            names += todo[::-1]
            todo.clear()
        volume, path = directory.volume, _joined(directory.path, names)
        try:
            walked = answers.of(volume, path)
        except ServiceError as error:
            if error.errno != errno.ENOENT:
                raise
            if len(names) > 1:
                answers.of(volume, _joined(directory.path, names[:-1]))  # or it is not only the last that is missing
            walk.name = names[-1]
            return None
        reached = path[: walked.consumed]
        if len(reached) < len(path):
            todo += _components(path[walked.consumed :])
        above, _, walk.name = reached.rpartition(b"/")
        walk.parent = Remote(volume, above, VOLUME_ROOT)
        return Remote(volume, reached, *walked[1:])

    def _above(self, node: Node, answers: Answers) -> Node:
        """The directory above one."""
        if isinstance(node, Remote):
            if not node.path:
                covered = self._store.inode(node.volume.covers)
                return self._covered(self._store.inode(covered.parent))
            path = node.path.rpartition(b"/")[0]
            return Remote(node.volume, path, answers.of(node.volume, path).attributes) if path else root_of(node.volume)
        root = self._root()
        return node if node is root else self._covered(self._store.inode(node.parent))

    def _follow(self, walk: _Walk, directory: Node, link: Node) -> Node:
        """Put a symbolic link's target before what is still to be walked; where to go on."""
        walk.links += 1
        target = link.target
        if walk.links > SYMLINKS_MAX:
            raise ServiceError(errno.ELOOP)
        if not target:
            raise ServiceError(errno.ENOENT)
        if not walk.todo and target[-1] == 47:
            walk.slash = True
        walk.todo += _components(target)
        here = directory
        if target[0] == 47:  # an absolute link of the host means the host's own root
            here = root_of(link.volume) if isinstance(link, Remote) else self._root()
        if not walk.todo:
            walk.last, walk.parent = Last.ROOT, here
        return here


def _joined(path: bytes, names: list[bytes]) -> bytes:
    return b"/".join([path, *names] if path else names)


def _components(path: bytes) -> list[bytes]:
    """The names in a path, the first one last."""
    return [name for name in path.split(b"/") if name][::-1]
