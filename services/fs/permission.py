"""Who may do what to a file: the classical rules of Linux, for a user id and a group id."""

from __future__ import annotations

import errno
import stat
from typing import Protocol

from corekernel.errors import ServiceError
from corekernel.port import Caller

READ, WRITE, EXECUTE = 4, 2, 1


class Owned(Protocol):
    """What the rules look at."""

    @property
    def mode(self) -> int:
        """Type and permissions."""
        ...

    @property
    def uid(self) -> int:
        """Owner."""
        ...

    @property
    def gid(self) -> int:
        """Group."""
        ...


def may(who: Caller, file: Owned, wanted: int) -> bool:
    """Whether a caller may do all of READ, WRITE, EXECUTE that `wanted` has.

    User id 0 may everything, except execute a regular file that nobody may execute.
    """
    uid, mode = who.uid, file.mode
    if uid == 0:
        return not wanted & EXECUTE or stat.S_ISDIR(mode) or mode & 0o111 != 0
    if uid == file.uid:
        mode >>= 6
    elif who.gid == file.gid:
        mode >>= 3
    return wanted & ~mode & 7 == 0


def require(who: Caller, file: Owned, wanted: int) -> None:
    """Refuse with EACCES unless `may`."""
    if not may(who, file, wanted):
        raise ServiceError(errno.EACCES)


def owns(who: Caller, file: Owned) -> bool:
    """Whether a caller may do what only a file's owner may."""
    return who.uid in (0, file.uid)


def require_owner(who: Caller, file: Owned) -> None:
    """Refuse with EPERM unless `owns`."""
    if not owns(who, file):
        raise ServiceError(errno.EPERM)


def kept_bits(mode: int) -> int:
    """A mode without the set-id bits that a change of contents or owner takes away."""
    lost = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
    return mode & ~lost


def new_mode(who: Caller, directory: Owned, mode: int) -> tuple[int, int]:
    """Mode and group of what a caller makes in a directory.

    A directory with the set-group-id bit hands its group on, and the bit to directories.
    """
    if not directory.mode & stat.S_ISGID:
        return mode, who.gid
    if stat.S_ISDIR(mode):
        return mode | stat.S_ISGID, directory.gid
    outsider = who.uid != 0 and who.gid != directory.gid
    if outsider and mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID | stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode, directory.gid
