"""Directories of the host in the namespace, as the service `hostfs` serves them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from corekernel.errors import CallError, ServiceError
from corekernel.port import Caller, Port
from services.files import Attributes, FileAhead, unpack_ahead
from services.fs.ahead import Ahead
from services.fs.fresh import Contents, lasting
from services.fs.volume import Remote, Walked
from services.stubs.hostfs import HostfsClient

T = TypeVar("T")


class HostVolume:
    """A mount of the host's directories; what it keeps is for a moment and for speed only (`ahead.py`)."""

    kind = "hostfs"
    source = "host"

    def __init__(self, number: int, covers: int, port: Port) -> None:
        self.number = number
        self.covers = covers
        self._client = HostfsClient(port)
        self._ahead = Ahead()

    def walk(self, path: bytes, who: Caller, size: int) -> Walked:
        """See `volume.Volume`; the answer to an open may be one that came with an earlier one."""
        count = 0
        if size:
            kept, count = self._ahead.take(path)
            if kept is not None:
                return kept
        until = lasting()
        try:
            walked, following = _answered(lambda: self._asked(path, size, count, until))
        except ServiceError:
            self._ahead.drop(path)
            raise
        if count:
            self._ahead.keep(path, following, until)
        else:
            self._ahead.drop(path, walked.attributes)
        return walked

    def _asked(self, path: bytes, size: int, count: int, until: int) -> tuple[Walked, list[FileAhead]]:
        """What `hostfs` says to a path, and the files that came along, at most as many."""
        following: list[FileAhead] = []
        if count:
            consumed, raw, refused, whole, own, found = self._client.ahead(size, count, path)
            if own > len(found):
                raise ServiceError(errno.EIO)
            following = unpack_ahead(found, own) if consumed == len(path) else []
            found = found[:own]
        else:
            consumed, raw, refused, whole, found = self._client.walk(size, path)
        attributes = Attributes.unpack(raw)
        if consumed > len(path):
            raise ServiceError(errno.EIO)
        if refused:
            refused = errno.EACCES if refused == errno.EACCES else errno.EIO
            return Walked(consumed, attributes, refused=refused), following
        if whole:
            return Walked(consumed, attributes, contents=Contents(bytes(found), until)), following
        return Walked(consumed, attributes, bytes(found)), following

    def read(self, node: Remote, offset: int, size: int) -> bytes:
        """See `volume.Volume`."""
        found = node.found
        return bytes(_answered(lambda: self._client.read(found.dev, found.ino, offset, size, node.path)))

    def entries(self, node: Remote, after: int, size: int) -> tuple[int, bool, bytes]:
        """See `volume.Volume`."""
        reply = _answered(lambda: self._client.entries(after, size, node.path))
        return reply.last, reply.finished, bytes(reply.entries)

    def statfs(self, path: bytes) -> tuple[int, ...]:
        """See `volume.Volume`."""
        return tuple(_answered(lambda: self._client.statfs(path)))


def _answered(call: Callable[[], T]) -> T:
    """A call's result; a service that does not answer, or not sensibly, is an input/output error."""
    try:
        return call()
    except ServiceError:
        raise
    except (CallError, ValueError) as error:
        raise ServiceError(errno.EIO, str(error)) from error
