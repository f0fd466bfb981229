"""What the composition exports, as a tree from the host's root: made-up directories, and below them the host's own.

An exported path is followed once, when the service starts. Symbolic links on it, its last name included, are exported
as links, and the directory that it leads to under its real path: `/bin` on most hosts is the link `/bin` and the
directory `/usr/bin`. Whatever is within another exported directory needs no place of its own.

The directories of the exports are held open, as the Landlock rules are theirs: one that is replaced by another
directory stays what it was until the service starts again. What is below them is looked up anew with each call.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.files import SYMLINKS_MAX, Attributes
from services.hostfs import host
from services.hostfs.host import Descriptor

FIRST_POSITION = 256
_serials = itertools.count()

Names = tuple[bytes, ...]


@dataclass(eq=False, slots=True)
class Directory:
    """A directory of the host that is held; `serial` is its own, so that caches can tell it from a later one."""

    held: Descriptor
    fd: int
    dev: int
    ino: int
    serial: int

    @classmethod
    def of(cls, held: Descriptor) -> Directory:
        """The directory that is held: to look names up in, not for reading."""
        status = os.fstat(held.fd)
        return cls(held, held.fd, status.st_dev, status.st_ino, next(_serials))


@dataclass(eq=False, slots=True)
class Link:
    """A symbolic link on the way to an export, in a directory that is not exported itself."""

    parent: Directory
    name: bytes


@dataclass(eq=False, slots=True)
class MadeUp:
    """A directory that leads to exports and shows nothing else."""

    attributes: Attributes
    children: dict[bytes, MadeUp | Directory | Link] = field(default_factory=dict)


Node = MadeUp | Directory | Link


def position(name: bytes) -> int:
    """Of a name in a listing: the same always and everywhere, 256 to 2**63-1, so that smaller ones are free."""
    number = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1
    return max(number, FIRST_POSITION)


def build(paths: Iterable[str], say: Callable[[str], None]) -> Node:
    """The root of the tree for the exported paths; `say` hears of each that cannot be reached."""
    found: dict[Names, Node] = {}
    for path in paths:
        try:
            _follow(os.fsencode(path), found)
        except OSError as error:
            say(f"{path} is left out: {error.strerror}")
    root: Node = found.get((), MadeUp(_made_up_attributes(())))
    for names in sorted(found):
        if names:
            _plant(root, names, found[names])
    _count_children(root)
    return root


def _plant(root: Node, names: Names, node: Node) -> None:
    """Put a node in its place, unless that is within an exported directory."""
    at = root
    for depth, name in enumerate(names[:-1], 1):
        if not isinstance(at, MadeUp):
            return
        at = at.children.setdefault(name, MadeUp(_made_up_attributes(names[:depth])))
    if isinstance(at, MadeUp):
        at.children.setdefault(names[-1], node)


def _follow(path: bytes, found: dict[Names, Node]) -> None:
    """Enter the directory that a path leads to, and the links on the way.

    Raises:
        OSError: the host's.
    """
    root = Directory.of(host.look(None, b"/", only_directory=True))
    links: dict[Names, Node] = {}
    trail: list[tuple[bytes, Directory]] = [(b"", root)]
    ahead, followed = path.split(b"/")[::-1], 0
    while ahead:
        name, here = ahead.pop(), trail[-1][1]
        if name in (b"", b"."):
            continue
        if name == b"..":
            del trail[max(1, len(trail) - 1) :]
            continue
        status = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            trail.append((name, Directory.of(host.look(here.fd, name, only_directory=True))))
            continue
        followed += 1
        if followed > SYMLINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        links[(*(step for step, _ in trail[1:]), name)] = Link(here, name)
        target = os.readlink(name, dir_fd=here.fd)
        if target.startswith(b"/"):
            del trail[1:]
        ahead += target.split(b"/")[::-1]
    found.update(links)
    found[tuple(step for step, _ in trail[1:])] = trail[-1][1]


def _made_up_attributes(names: Names) -> Attributes:
    """Of a made-up directory: those of one that never changes, on a device that no file of the host has."""
    ino = position(b"/".join(names)) if names else 1
    return Attributes(ino, 0, stat.S_IFDIR | 0o555, 2, 0, 0, 0, 0, 4096, 0, 0, 0, 0, 0)


def _count_children(node: Node) -> None:
    if isinstance(node, MadeUp):
        directories = sum(not isinstance(child, Link) for child in node.children.values())
        node.attributes = node.attributes._replace(nlink=2 + directories)
        for child in node.children.values():
            _count_children(child)
