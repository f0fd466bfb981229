"""Paths as callers send them: bytes, taken apart before anything is looked up."""

from __future__ import annotations

import errno
from typing import NamedTuple

from corekernel.errors import ServiceError
from services.files import PATH_MAX

_SLASH = ord("/")


class Path(NamedTuple):
    """A path from the host's root.

    Attributes:
        raw: as it came.
        names: its components; none of them is empty, `.` or `..`, or holds a slash or a NUL.
        directory: whether a slash stands at the end, so that it must be a directory.
    """

    raw: bytes
    names: list[bytes]
    directory: bool

    def end(self, index: int) -> int:
        """Where a component ends in the path as it came, in bytes."""
        at = 0
        for name in self.names[: index + 1]:
            while self.raw[at] == _SLASH:
                at += 1
            at += len(name)
        return at


def parse(raw: bytes) -> Path:
    """Take a path apart.

    Raises:
        ServiceError: EINVAL: it holds a NUL, or a component `.` or `..`; ENAMETOOLONG.
    """
    if len(raw) >= PATH_MAX:
        raise ServiceError(errno.ENAMETOOLONG)
    if 0 in raw:
        raise ServiceError(errno.EINVAL, "a path holds no NUL")
    names = raw.split(b"/")
    if b"" in names:
        names = [name for name in names if name]
    if b"." in names or b".." in names:
        raise ServiceError(errno.EINVAL, "a path holds no . or ..")
    return Path(raw, names, raw[-1:] == b"/")
