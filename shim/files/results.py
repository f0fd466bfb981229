"""What the file system tells of a file, as the objects that `os` returns."""

from __future__ import annotations

import os

from services.files import ATTRIBUTE_BYTES, NAME_MAX, unpack_attributes
from services.stubs.fs import StatfsResult

_NS = 1e9


def stat_result(raw: bytes) -> os.stat_result:
    """Attributes that came, as `os.stat` gives them.

    Raises:
        ValueError: these are no attributes.
    """
    if len(raw) != ATTRIBUTE_BYTES:
        raise ValueError(f"{len(raw)} bytes are no attributes")
    ino, dev, mode, nlink, uid, gid, rdev, size, blksize, blocks, atime, mtime, ctime, _ = unpack_attributes(raw)
    return os.stat_result((
        mode, ino, dev, nlink, uid, gid, size,
        atime // 10**9, mtime // 10**9, ctime // 10**9,
        atime / _NS, mtime / _NS, ctime / _NS,
        atime, mtime, ctime,
        blksize, blocks, rdev,
    ))  # fmt: skip


def statvfs_result(found: StatfsResult) -> os.statvfs_result:
    """A file system as `os.statvfs` gives it; no blocks are kept back for user id 0."""
    return os.statvfs_result((
        found.block, found.block, found.blocks, found.free, found.free,
        found.files, found.files_free, found.files_free, found.flags, NAME_MAX, found.identity,
    ))  # fmt: skip
