"""Directories of the host in the namespace, as the service `hostfs` serves them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from corekernel.errors import CallError, ServiceError
from corekernel.port import Caller, Port
from services.files import Attributes
from services.fs.fresh import Contents, lasting
from services.fs.walk import Remote, Walked
from services.stubs.hostfs import HostfsClient

T = TypeVar("T")


class HostVolume:
    """A mount of the host's directories; stateless, so that a death of `hostfs` costs nothing."""

    kind = "hostfs"
    source = "host"

    def __init__(self, number: int, covers: int, port: Port) -> None:
        self.number = number
        self.covers = covers
        self._client = HostfsClient(port)

    def walk(self, path: bytes, who: Caller, size: int) -> Walked:
        """See `walk.Volume`."""
        until = lasting()
        try:
            consumed, raw, refused, whole, found = self._client.walk(size, path)
            attributes = Attributes.unpack(raw)
        except ServiceError:
            raise
        except (CallError, ValueError) as error:
            raise ServiceError(errno.EIO, str(error)) from error
        if consumed > len(path):
            raise ServiceError(errno.EIO)
        if refused:
            return Walked(consumed, attributes, refused=errno.EACCES if refused == errno.EACCES else errno.EIO)
        if whole:
            return Walked(consumed, attributes, contents=Contents(bytes(found), until))
        return Walked(consumed, attributes, bytes(found))

    def read(self, node: Remote, offset: int, size: int) -> bytes:
        """See `walk.Volume`."""
        found = node.found
        return bytes(_answered(lambda: self._client.read(found.dev, found.ino, offset, size, node.path)))

    def entries(self, node: Remote, after: int, size: int) -> tuple[int, bool, bytes]:
        """See `walk.Volume`."""
        reply = _answered(lambda: self._client.entries(after, size, node.path))
        return reply.last, reply.finished, bytes(reply.entries)

    def statfs(self, path: bytes) -> tuple[int, ...]:
        """See `walk.Volume`."""
        return tuple(_answered(lambda: self._client.statfs(path)))


def _answered(call: Callable[[], T]) -> T:
    """A call's result; a service that does not answer, or not sensibly, is an input/output error."""
    try:
        return call()
    except ServiceError:
        raise
    except (CallError, ValueError) as error:
        raise ServiceError(errno.EIO, str(error)) from error
