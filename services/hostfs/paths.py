"""Paths as callers send them: bytes, taken apart before anything is looked up."""

from __future__ import annotations

import errno
from typing import NamedTuple

from corekernel.errors import ServiceError
from services.files import PATH_MAX


class Path(NamedTuple):
    """A path from the host's root.

    Attributes:
        names: its components; none of them is empty, `.` or `..`, or holds a slash or a NUL.
        ends: for each, where it ends in the path that came, in bytes.
        length: of the path that came.
        directory: a slash stands at the end, so that it must be a directory.
    """

    names: list[bytes]
    ends: list[int]
    length: int
    directory: bool


def parse(raw: bytes) -> Path:
    """Take a path apart.

    Raises:
        ServiceError: EINVAL: it holds a NUL, or a component `.` or `..`; ENAMETOOLONG.
    """
    if len(raw) >= PATH_MAX:
        raise ServiceError(errno.ENAMETOOLONG)
    if 0 in raw:
        raise ServiceError(errno.EINVAL, "a path holds no NUL")
    names, ends, at = [], [], 0
    for part in raw.split(b"/"):
        at += len(part)
        if part:
            names.append(part)
            ends.append(at)
        at += 1
    if b"." in names or b".." in names:
        raise ServiceError(errno.EINVAL, "a path holds no . or ..")
    return Path(names, ends, len(raw), raw.endswith(b"/"))
