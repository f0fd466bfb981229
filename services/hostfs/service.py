"""Host directories, read-only, for the namespace.

The service holds nothing that a caller relies on: descriptors of files and directories (`cache.py`) and listings
(`listing.py`) are kept for speed only, and believed only after the host was asked whether they still are what they
were. Contents are never kept: the host does that, and a read of an open file sees what it holds now. But those of a
small file come with the walk to it if that is asked for, so that a caller needs one call.

    paths.py     a path, taken apart
    exports.py   what is exported: a tree from the host's root
    walker.py    from a path to a name in a held directory
    listing.py   the names of a directory
    host.py      the host's calls
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from typing import Final

from corekernel.errors import ServiceError
from corekernel.port import MAX_BULK_BYTES, Caller
from corekernel.service import Environment
from services.files import LARGEST_WHOLE, Attributes, FileAhead
from services.hostfs import exports, host
from services.hostfs.cache import Recent, descriptors
from services.hostfs.exports import Directory, MadeUp
from services.hostfs.host import Descriptor, FileSystem
from services.hostfs.listing import Listings, made_up
from services.hostfs.paths import Path, parse
from services.hostfs.walker import ATTEMPTS, Found, Spot, Walker
from services.memory import keep_freed
from services.stubs.hostfs import AheadResult, EntriesResult, HostfsServer, StatfsResult, WalkResult

_UNSIZED: Final = 64 << 10  # as much is read without asking how much there is
_MOST_AHEAD: Final = 32  # files that come with the one that was asked for,
_AHEAD_BYTES: Final = 508 << 10  # as many bytes together, so that a buffer of half a mebibyte takes the answer,
_AHEAD_NS: Final = 10_000_000  # and no longer is the caller kept waiting for them
# What an open under a path may end with if the file is not there any more, or something else is: a link, a socket.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
_MADE_UP: Final = FileSystem(0x01021994, 4096, 0, 0, 0, 0, 0)  # as an empty tmpfs


class Service(HostfsServer):
    """Operations of the interface `hostfs`."""

    def __init__(self, environment: Environment) -> None:
        keep_freed()
        most = descriptors()
        self._walker = Walker(exports.build(environment.host_paths, environment.log), most)
        self._files: Recent[tuple[int, int], Descriptor] = Recent(most)
        self._walked: Recent[tuple[int, int], Spot] = Recent(most)
        self._listings = Listings()

    def walk(self, caller: Caller, size: int, path: memoryview) -> WalkResult:
        """See the interface."""
        return self._walk(size, path)[0]

    def ahead(self, caller: Caller, size: int, count: int, path: memoryview) -> AheadResult:
        """See the interface."""
        (consumed, attributes, refused, whole, found), spot = self._walk(size, path)
        following = self._following(spot, size, min(count, _MOST_AHEAD), _AHEAD_BYTES - len(found)) if spot else ()
        return AheadResult(consumed, attributes, refused, whole, len(found), b"".join((found, *following)))

    def _walk(self, size: int, path: memoryview) -> tuple[WalkResult, Spot | None]:
        """The answer to a walk, and where the regular file is that was opened."""
        try:
            parsed = parse(bytes(path))
            for _ in range(ATTEMPTS):
                found = self._walker.walk(parsed)
                if not size or found.spot is None or not stat.S_ISREG(found.attributes.mode):
                    return self._looked_at(found), None
                opened = self._opened(found.attributes, found.spot, size)
                if opened is not None:
                    return WalkResult(found.consumed, found.attributes.pack(), *opened), found.spot
        except OSError as error:
            raise host.refusal(error) from None
        raise ServiceError(errno.EIO, "it changes too fast to be opened")

    def _looked_at(self, found: Found) -> WalkResult:
        attributes = found.attributes
        if found.spot is not None and stat.S_ISREG(attributes.mode):
            self._walked.put((attributes.dev, attributes.ino), found.spot)
        return WalkResult(found.consumed, attributes.pack(), 0, False, found.target)

    def _opened(self, attributes: Attributes, spot: Spot, size: int) -> tuple[int, bool, bytes] | None:
        """Open what a walk has found: `refused`, `whole`, contents. None: it is not there any more."""
        wanted = attributes.dev, attributes.ino
        try:
            file = host.open_file(spot.directory.fd, spot.name)
            status = os.fstat(file.fd)
        except OSError as error:
            return None if error.errno in _GONE else (host.refusal(error).errno or errno.EIO, False, b"")
        if (status.st_dev, status.st_ino) != wanted or not stat.S_ISREG(status.st_mode):
            return None
        self._files.put(wanted, file)
        contents = _whole(file.fd, status.st_size, size)
        return (0, False, b"") if contents is None else (0, True, contents)

    def _following(self, spot: Spot, size: int, count: int, most: int) -> Iterator[bytes]:
        """The regular files behind a place, packed, each seen as a walk to it would see it; it takes no long time."""
        held, until = 0, time.monotonic_ns() + _AHEAD_NS
        names, certain = self._names_after(spot, count)
        for name in names:
            file = _seen(spot.directory, name, certain, size)
            if file is not None:
                parts = file.pack()
                held += len(parts[0]) + len(parts[1])
                if held > most:
                    return
                yield from parts
            if time.monotonic_ns() > until:
                return

    def _names_after(self, spot: Spot, count: int) -> tuple[list[bytes], bool]:
        """Names of regular files behind a place, and whether they certainly are."""
        try:
            listing, certain = self._listings.likely(spot.directory)
        except OSError:  # it may be searched, and not listed
            return [], False
        return listing.regular_after(spot.name, count) if listing is not None else [], certain

    def entries(self, caller: Caller, after: int, size: int, path: memoryview) -> EntriesResult:
        """See the interface."""
        try:
            directory = self._walker.directory(parse(bytes(path)))
            listing = self._listings.of(directory) if isinstance(directory, Directory) else made_up(directory)
        except OSError as error:
            raise host.refusal(error) from None
        return EntriesResult(*listing.after(after, min(size, MAX_BULK_BYTES)))

    def statfs(self, caller: Caller, path: memoryview) -> StatfsResult:
        """See the interface."""
        try:
            found = self._file_system(parse(bytes(path)))
        except OSError as error:
            raise host.refusal(error) from None
        sizes = found.kind, found.block, found.blocks, found.free, found.files, found.files_free
        return StatfsResult(*sizes, host.ST_RDONLY, found.identity)

    def _file_system(self, path: Path) -> FileSystem:
        spot = self._walker.directory(path) if path.directory else self._walker.locate(path)
        if isinstance(spot, MadeUp):
            return _MADE_UP
        if isinstance(spot, Directory):
            return host.file_system(spot.fd)
        if spot.consumed < len(path.raw):
            raise ServiceError(errno.ENOTDIR)
        held = spot.look()
        return host.file_system(held.fd)

    # ---- contents

    def read(self, caller: Caller, device: int, inode: int, offset: int, size: int, path: memoryview) -> bytes:
        """See the interface."""
        if offset >= 1 << 63:
            raise ServiceError(errno.EINVAL, "there is no such offset")
        wanted = device, inode
        try:
            file = self._files.get(wanted) or self._reopen(wanted)
            if file is None:
                file = self._open(wanted, parse(bytes(path)))
            return _read(file, offset, size)
        except OSError as error:
            if error.errno == errno.ESTALE and not isinstance(error, ServiceError):
                self._files.drop(wanted)  # a remote file system has forgotten it: the next call goes by the path
            raise host.refusal(error) from None

    def _reopen(self, wanted: tuple[int, int]) -> Descriptor | None:
        """Open a file where the last walk to it found it; None if it is not there any more."""
        spot = self._walked.get(wanted)
        if spot is None:
            return None
        try:
            status = os.stat(spot.name, dir_fd=spot.directory.fd, follow_symlinks=False)
            _check(status.st_mode, (status.st_dev, status.st_ino), wanted)
            return self._keep(host.open_file(spot.directory.fd, spot.name), wanted)
        except OSError:  # the path decides
            return None

    def _open(self, wanted: tuple[int, int], path: Path) -> Descriptor:
        """Open a file under its path."""
        try:
            spot = self._walker.locate(path)
            attributes = spot.attributes if isinstance(spot, MadeUp) else spot.look_at()
            _check(attributes.mode, (attributes.dev, attributes.ino), wanted)
            if isinstance(spot, MadeUp) or spot.consumed < len(path.raw):
                raise ServiceError(errno.ESTALE)
            return self._keep(host.open_file(spot.directory.fd, spot.name), wanted)
        except OSError as error:
            if error.errno in _GONE:
                raise ServiceError(errno.ESTALE) from None
            raise

    def _keep(self, file: Descriptor, wanted: tuple[int, int]) -> Descriptor:
        """A file that was opened, if it is the one that was asked for."""
        status = os.fstat(file.fd)
        _check(status.st_mode, (status.st_dev, status.st_ino), wanted)
        self._files.put(wanted, file)
        return file


def _check(mode: int, identity: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Refuse what is not the regular file that was asked for."""
    if identity != wanted:
        raise ServiceError(errno.ESTALE)
    if stat.S_ISDIR(mode):
        raise ServiceError(errno.EISDIR)
    if not stat.S_ISREG(mode):
        raise ServiceError(errno.EACCES, "only regular files can be read")


def _seen(directory: Directory, name: bytes, certain: bool, size: int) -> FileAhead | None:
    """The regular file of a name; None: there is none, or it cannot be opened.

    Only what is a regular file is opened: a device may do something when it is. `certain`: the listing knows.
    Nothing is kept open, for most files that are read ahead are read at once or not at all.
    """
    try:
        if not certain and not stat.S_ISREG(os.stat(name, dir_fd=directory.fd, follow_symlinks=False).st_mode):
            return None
        file = host.open_file(directory.fd, name)
        attributes = host.attributes(file.fd, b"")
    except OSError:
        return None
    if not stat.S_ISREG(attributes.mode):
        return None
    return FileAhead(name, attributes, _whole(file.fd, attributes.size, size))


def _whole(file: int, length: int, size: int) -> bytes | None:
    """All of a file that is said to be so long; None if it is longer than wanted, or another length is found."""
    if length > size or length > LARGEST_WHOLE:
        return None
    try:
        data = os.pread(file, length + 1, 0)  # one more, to see that this is the end
    except OSError:  # whoever reads it will be told
        return None
    return data if len(data) == length else None  # some files of the host's kernel have no size, or another one


def _read(file: Descriptor, offset: int, size: int) -> bytes:
    """Read into one new buffer that is hardly larger than it must be."""
    if size > _UNSIZED:
        left = os.fstat(file.fd).st_size - offset
        size = min(size, MAX_BULK_BYTES, max(left, _UNSIZED))
    return os.pread(file.fd, size, offset)
