"""The names of one directory, in the order of their positions.

A position is a hash of its name. So it means the same after any change of the directory and after a death of this
service, and a listing that goes on behind a position neither repeats nor misses a name that stayed. Names with one
position are never parted.

Listings are kept in columns: a directory may have very many names.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from corekernel.errors import ServiceError
from services.files import Entry, pack_columns
from services.hostfs import host
from services.hostfs.cache import Recent
from services.hostfs.exports import Directory, MadeUp, Node, position

MOST_NAMES = 100_000  # in all listings that are kept; about 100 bytes each
MOST_LIKELY = 1000  # of a directory that nobody has listed
# A directory that changes again within one tick of its file system's clock looks as it did. So a listing is only
# believed later if the directory had been left alone for longer than any such clock's tick (FAT's is 2 s) before it.
TICK_NS = 3_000_000_000
_ENTRY_BYTES = 10  # of a packed entry, beside its name
_PACKED_BYTES = 3  # of the packed list: the count, less the slash that the last name does without


class Listing:
    """All names of a directory as they were at one moment."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        placed = sorted((position(entry.name), entry) for entry in entries)
        self._positions = array("Q", (at for at, _ in placed))
        self._names = [entry.name for _, entry in placed]
        self._inodes = array("Q", (entry.ino for _, entry in placed))
        self._types = bytes(entry.kind >> 12 for _, entry in placed)
        # How large the packed entries up to and including each one are.
        self._sizes = array("Q", itertools.accumulate(_ENTRY_BYTES + len(name) for name in self._names))
        self._regular: list[bytes] | None = None  # names of regular files, sorted; made when they are asked for

    def __len__(self) -> int:
        return len(self._names)

    def after(self, at: int, size: int) -> tuple[int, bool, bytes]:
        """The names behind a position, as many as fit `size` bytes packed.

        Returns:
            The position of the last of them, whether there are no more, and they themselves, packed.

        Raises:
            ServiceError: EINVAL: there are some, and not one fits.
        """
        start, count = bisect_right(self._positions, at), len(self)
        if start == count:
            return at, True, pack_columns((), b"", b"")
        before = self._sizes[start - 1] if start else 0
        end = bisect_right(self._sizes, before + size - _PACKED_BYTES) if size > _PACKED_BYTES else start
        while start < end < count and self._positions[end - 1] == self._positions[end]:
            end -= 1
        if end <= start:
            raise ServiceError(errno.EINVAL, f"no entry fits {size} bytes")
        packed = pack_columns(self._names[start:end], self._inodes[start:end].tobytes(), self._types[start:end])
        return self._positions[end - 1], end == count, packed

    def regular_after(self, name: bytes, count: int) -> list[bytes]:
        """Names of regular files that follow a name, in the order of bytes."""
        regular = self._regular
        if regular is None:
            kinds = zip(self._names, self._types, strict=True)
            self._regular = regular = sorted(name for name, kind in kinds if kind == stat.S_IFREG >> 12)
        start = bisect_right(regular, name)
        return regular[start : start + count]


def made_up(directory: MadeUp) -> Listing:
    """All names of a made-up directory.

    Raises:
        OSError: the host's.
    """
    return Listing(Entry(name, *_identity(node)) for name, node in directory.children.items())


def _identity(node: Node) -> tuple[int, int]:
    """Inode number and file type of what stands in a made-up directory."""
    if isinstance(node, MadeUp):
        return node.attributes.ino, stat.S_IFDIR
    if isinstance(node, Directory):
        return node.ino, stat.S_IFDIR
    return os.stat(node.name, dir_fd=node.parent.fd, follow_symlinks=False).st_ino, stat.S_IFLNK


class _Kept(NamedTuple):
    """A listing, none if there were too many names; `settled` says that a later change cannot have looked the same."""

    changed: tuple[int, int]
    settled: bool
    listing: Listing | None


class Listings:
    """Listings of directories of the host, kept as long as these have not changed."""

    def __init__(self) -> None:
        self._kept: Recent[tuple[int, int], _Kept] = Recent(MOST_NAMES)

    def of(self, directory: Directory) -> Listing:
        """All names of a directory, as they are now.

        Raises:
            OSError: the host's.
        """
        changed = _changed(directory)
        kept = self._kept.get((directory.dev, directory.ino))
        if kept is not None and kept.listing is not None and kept.settled and kept.changed == changed:
            return kept.listing
        now = time.time_ns()
        listing = Listing(_scan(host.open_directory(directory.fd)))
        settled = changed == _changed(directory) and max(changed) + TICK_NS < now
        self._keep(directory, _Kept(changed, settled, listing))
        return listing

    def likely(self, directory: Directory) -> tuple[Listing | None, bool]:
        """Names that are likely to be in a directory; of a large one only if they are kept, since it would take long.

        Returns:
            The listing, if there is one; whether it is certain, so that each name is of the kind that it says.

        Raises:
            OSError: the host's.
        """
        changed = _changed(directory)
        kept = self._kept.get((directory.dev, directory.ino))
        if kept is not None and kept.changed == changed:
            return kept.listing, kept.settled
        found = list(itertools.islice(_scan(host.open_directory(directory.fd)), MOST_LIKELY + 1))
        listing = Listing(found) if len(found) <= MOST_LIKELY else None
        self._keep(directory, _Kept(changed, False, listing))
        return listing, False

    def _keep(self, directory: Directory, kept: _Kept) -> None:
        self._kept.put((directory.dev, directory.ino), kept, 1 if kept.listing is None else len(kept.listing) + 1)


def _changed(directory: Directory) -> tuple[int, int]:
    status = os.fstat(directory.fd)
    return status.st_mtime_ns, status.st_ctime_ns


def _scan(opened: host.Descriptor) -> Iterator[Entry]:
    with os.scandir(opened.fd) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):  # gone since it was read
                yield Entry(os.fsencode(entry.name), entry.inode(), _kind(entry))


def _kind(entry: os.DirEntry[str]) -> int:
    """The file type; the host mostly tells it with the name."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
