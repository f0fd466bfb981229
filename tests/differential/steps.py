"""Steps: one operation each, by one client, with arguments that are mostly sensible and sometimes hostile.

Names are few, so that operations meet; a descriptor is a slot of the client, which may be empty. What is never asked
for is what would wait (a lock that is held, a pipe without another end): the other clients would wait with it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

SLOTS: Final = 4
O_TMPFILE: Final = 0o20200000
LOWER_UID: Final = 65534


class Step(NamedTuple):
    """One operation: number of the client, name of the operation, arguments as JSON has them."""

    client: int
    name: str
    arguments: tuple[Any, ...]


def _often(*usual: Any, seldom: tuple[Any, ...] = ()) -> SearchStrategy[Any]:
    """One of the usual values, or in one case of eight one of the others."""
    if not seldom:
        return st.sampled_from(usual)
    return st.sampled_from([True] * 7 + [False]).flatmap(lambda u: st.sampled_from(usual if u else seldom))


def _flags(*bits: int) -> SearchStrategy[int]:
    return st.lists(st.sampled_from(bits), max_size=3).map(lambda chosen: _or(chosen))


def _or(bits: list[int]) -> int:
    result = 0
    for bit in bits:
        result |= bit
    return result


# ---- paths

_component = _often("a", "b", "c", "d", seldom=("..", ".", "", "n" * 255, "n" * 256, "\udcff", "e\nf"))
_plain = st.lists(_component, min_size=1, max_size=3).map("/".join)
_strange = st.sampled_from(
    ["", "/", ".", "..", "//a", "/w/a", "a/.", "a/..", "b/", "c//", "a/" * 2047 + "a", "a/" * 2048]
)
_ended = st.tuples(_plain, st.sampled_from(["/", "//", "/.", "/.."])).map("".join)
paths: SearchStrategy[str] = st.sampled_from("ppppppppppes").flatmap(
    {"p": _plain, "e": _ended, "s": _strange}.__getitem__
)
targets = st.sampled_from("ppppa").flatmap(lambda kind: paths if kind == "p" else _plain.map("/w/".__add__))

# ---- other arguments

slot = st.integers(0, SLOTS - 1)
at = st.sampled_from([None] * 9 + [0, 1, 2])
follow = st.booleans()
mode = _often(0o777, 0o755, 0o700, 0o666, 0o644, 0o600, seldom=(0, 0o7777, 0o4755, 0o2775, 0o1777, 0o070, 0o007))
access_mode = st.sampled_from([os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_CREAT])
open_flags = st.tuples(
    access_mode,
    _flags(os.O_CREAT, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_NOATIME),
    _often(0, seldom=(os.O_PATH, O_TMPFILE, os.O_SYNC, 3, os.O_NONBLOCK, O_TMPFILE | os.O_EXCL)),
).map(lambda parts: parts[0] | parts[1] | parts[2])
size = _often(0, 1, 10, 4095, 4096, 4097, 10000, seldom=(-1, 70000))
offset = _often(0, 1, 4095, 4096, 8191, 10000, 100000, seldom=(-1, 2**31, 2**40 + 1, 2**63 - 1, -(2**63)))
length = _often(0, 1, 10, 4096, 5000, 100000, seldom=(-1, 2**40, 2**63 - 1))
extent = _often(1, 100, 4096, 10000, 65536, seldom=(0, -1, 2**62))
identity = _often(0, 1000, LOWER_UID, -1)
attribute = _often(
    "user.a", "user.b", seldom=("user.", "user", "trusted.a", "system.x", "nothing.a", "user." + "x" * 250)
)
value = _often(0, 1, 100, 4000, seldom=(65536, 65537)).map(lambda n: "v" * n)
time_ns = st.sampled_from([0, 1, 1_500_000_000, 10**17 + 7, -1, -(10**9) - 1])
lock_kind = st.sampled_from([fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_EX, fcntl.LOCK_UN])
span = st.tuples(_often(0, 1, 10, 100, seldom=(-5, 2**63 - 1)), _often(0, 5, 10, 50, seldom=(-1, 2**63 - 1)))

OPERATIONS: Final[dict[str, tuple[SearchStrategy[Any], ...]]] = {
    # descriptors
    "open": (slot, paths, open_flags, mode, at),
    "close": (slot,),
    "dup": (slot, slot),
    "dup2": (slot, slot),
    "getfl": (slot,),
    "setfl": (slot, _flags(os.O_APPEND, os.O_NONBLOCK, os.O_NOATIME)),
    "getfd": (slot,),
    "setfd": (slot, st.sampled_from([0, 1])),
    # data
    "read": (slot, size),
    "pread": (slot, size, offset),
    "write": (slot, size),
    "pwrite": (slot, size, offset),
    "lseek": (slot, offset, _often(0, 0, 1, 2, os.SEEK_DATA, os.SEEK_HOLE, seldom=(5, -1))),
    "ftruncate": (slot, length),
    "truncate": (paths, length),
    "fallocate": (slot, _often(0, 1, 3, seldom=(2, 0x10, 0x8, 0x80, 7)), offset, extent),
    "fsync": (slot,),
    # names
    "mkdir": (paths, mode, at),
    "mknod": (paths, st.sampled_from([stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR, 0]), mode),
    "unlink": (paths, at),
    "rmdir": (paths, at),
    "rename": (paths, paths, _often(0, 0, 1, 2, seldom=(3, 8)), at, at),
    "link": (paths, paths, follow, at, at),
    "symlink": (targets, paths, at),
    "readlink": (paths, at),
    # what is known of a file
    "stat": (paths, follow, at),
    "fstat": (slot,),
    "times": (paths,),
    "access": (paths, _often(0, 1, 2, 4, 6, 7, seldom=(8,)), at),
    "chmod": (paths, mode, at),
    "fchmod": (slot, mode),
    "chown": (paths, identity, identity, follow, at),
    "fchown": (slot, identity, identity),
    "utime": (paths, st.one_of(st.none(), st.tuples(time_ns, time_ns)), follow, at),
    "getxattr": (paths, attribute, follow),
    "setxattr": (paths, attribute, value, st.sampled_from([0, 0, 1, 2, 3]), follow),
    "listxattr": (paths, follow),
    "removexattr": (paths, attribute, follow),
    # directories
    "listdir": (paths,),
    "fdlistdir": (slot,),
    "chdir": (paths,),
    "fchdir": (slot,),
    "getcwd": (),
    "umask": (st.sampled_from([0, 0o022, 0o077, 0o777]),),
    # locks
    "flock": (slot, lock_kind),
    "lockf": (slot, lock_kind, span, _often(0, 0, 1, 2)),
    "getlk": (slot, st.sampled_from([fcntl.LOCK_SH, fcntl.LOCK_EX]), span),
}
_BASIS: Final = ("open", "open", "mkdir", "stat", "write", "symlink")


@st.composite
def sequences(draw: st.DrawFn, clients: int, longest: int) -> list[Step]:
    """Steps of so many clients; each sequence with a choice of operations of its own, so that rare ones meet."""
    chosen = draw(st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=3, max_size=12))
    names = st.sampled_from([*_BASIS, *chosen, *chosen])
    one = st.tuples(st.integers(0, clients - 1), names).flatmap(lambda pair: _step(*pair))
    length = draw(st.integers(1, longest))  # lists alone would be short
    return draw(st.lists(one, min_size=length, max_size=length))


def _step(client: int, name: str) -> SearchStrategy[Step]:
    return st.tuples(*OPERATIONS[name]).map(lambda arguments: Step(client, name, arguments))
