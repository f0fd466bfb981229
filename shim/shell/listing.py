"""How files are shown: the long line of `ls -l`, names in columns, what `stat` prints."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import shutil
import stat
import time
from collections.abc import Sequence

from corekernel.cli.text import label
from shim.shell.places import Place

HALF_A_YEAR_SECONDS = 182 * 86400
_KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character special file",
    stat.S_IFBLK: "block special file",
    stat.S_IFSOCK: "socket",
}


@functools.lru_cache(256)
def owner(uid: int) -> str:
    """A user id as the host names it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@functools.lru_cache(256)
def group(gid: int) -> str:
    """A group id as the host names it."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _when(seconds: float) -> str:
    near = abs(time.time() - seconds) < HALF_A_YEAR_SECONDS
    return time.strftime("%b %e %H:%M" if near else "%b %e  %Y", time.localtime(seconds))


def _length(found: os.stat_result) -> str:
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        return f"{os.major(found.st_rdev)}, {os.minor(found.st_rdev)}"
    return str(found.st_size)


def _link(place: Place, found: os.stat_result) -> str:
    return f" -> {label(place.side.readlink(place.path))}" if stat.S_ISLNK(found.st_mode) else ""


def long_row(place: Place, name: str, found: os.stat_result) -> tuple[str, ...]:
    """The cells of a file's long line."""
    return (
        stat.filemode(found.st_mode),
        str(found.st_nlink),
        owner(found.st_uid),
        group(found.st_gid),
        _length(found),
        _when(found.st_mtime),
        label(name) + _link(place, found),
    )


def columns(names: Sequence[str], width: int | None = None) -> list[str]:
    """Names side by side, as many as fit, sorted downwards; lines."""
    if not names:
        return []
    shown = [label(name) for name in names]
    width = width if width is not None else shutil.get_terminal_size().columns
    for count in range(min(len(shown), max(1, width // 3)), 0, -1):
        height = -(-len(shown) // count)
        parts = [shown[at : at + height] for at in range(0, len(shown), height)]
        widths = [max(map(len, part)) for part in parts]
        if count == 1 or sum(widths) + 2 * (len(parts) - 1) <= width:
            break
    return [
        "  ".join(part[row].ljust(widths[index]) for index, part in enumerate(parts) if row < len(part)).rstrip()
        for row in range(height)
    ]


def _exactly(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = time.localtime(seconds)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', moment)}.{rest:09d} {time.strftime('%z', moment)}"


def described(place: Place, found: os.stat_result) -> str:
    """All that is known of a file."""
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "unknown")
    if kind == "regular file" and not found.st_size:
        kind = "regular empty file"
    uid, gid = f"{found.st_uid:>5}/{owner(found.st_uid):>8}", f"{found.st_gid:>5}/{group(found.st_gid):>8}"
    mode = f"{stat.S_IMODE(found.st_mode):04o}/{stat.filemode(found.st_mode)}"
    return "\n".join(
        (
            f"  File: {label(place.shown)}{_link(place, found)}",
            f"  Size: {_length(found):<12} Blocks: {found.st_blocks:<10} IO Block: {found.st_blksize:<6} {kind}",
            f"Device: {found.st_dev:<12} Inode: {found.st_ino:<11} Links: {found.st_nlink}",
            f"Access: ({mode})  Uid: ({uid})   Gid: ({gid})",
            f"Access: {_exactly(found.st_atime_ns)}",
            f"Modify: {_exactly(found.st_mtime_ns)}",
            f"Change: {_exactly(found.st_ctime_ns)}",
        )
    )
