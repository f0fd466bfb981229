"""Steps: one operation each, by one client, with arguments that are mostly sensible and sometimes hostile.

Names are few, so that operations meet; a descriptor is a slot of the client, which may be empty. What is never asked
for is what would wait (a lock that is held, a pipe without another end): the other clients would wait with it.

Everything comes from a seeded `random.Random`. A library that searches for failing examples repeats itself with small
changes; here sequences are to be as unlike each other as they can be, and `sides.shortest` makes a failing one short.
(One test lets hypothesis choose all the same, step by step, with the same arguments to choose from.)
"""

from __future__ import annotations

import fcntl
import functools
import operator
import os
import stat
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple, TypeAlias

SLOTS: Final = 4
O_TMPFILE: Final = 0o20200000
LOWER_UID: Final = 65534

Draw: TypeAlias = Callable[[Random], Any]


class Step(NamedTuple):
    """One operation: number of the client, name of the operation, arguments as JSON has them."""

    client: int
    name: str
    arguments: tuple[Any, ...]


def often(*usual: Any, seldom: tuple[Any, ...] = ()) -> Draw:
    """One of the usual values, or in one case of ten one of the others."""
    return lambda random: random.choice(seldom if seldom and random.random() < 0.1 else usual)


def several(draw: Draw, least: int, most: int) -> Draw:
    """A list."""
    return lambda random: [draw(random) for _ in range(random.randint(least, most))]


def both(*draws: Draw) -> Draw:
    """A tuple."""
    return lambda random: tuple(draw(random) for draw in draws)


def bits(*draws: Draw) -> Draw:
    """Flags together."""
    return lambda random: functools.reduce(operator.or_, (draw(random) for draw in draws), 0)


def any_of(*flags: int) -> Draw:
    """No, one or two flags."""
    return lambda random: functools.reduce(operator.or_, random.sample(flags, random.choice((0, 0, 1, 1, 2))), 0)


# ---- paths

_component = often("a", "b", "c", "d", seldom=("..", ".", "", "n" * 255, "n" * 256, "\udcff", "e\nf", "..."))
_strange = ("", "/", ".", "..", "//a", "/w/a", "a/.", "a/..", "b/", "c//", "a/" * 2047 + "a", "a/" * 2048)
_ends = ("/", "//", "/.", "/..", "/../a")


def _plain(random: Random) -> str:
    return "/".join(_component(random) for _ in range(random.choice((1, 1, 1, 1, 2, 2, 3))))


def paths(random: Random) -> str:
    """Mostly names that may be there."""
    kind = random.random()
    if kind < 0.05:
        return random.choice(_strange)
    return _plain(random) + (random.choice(_ends) if kind < 0.15 else "")


def targets(random: Random) -> str:
    """Where symbolic links point."""
    return "/w/" + _plain(random) if random.random() < 0.2 else paths(random)


# ---- other arguments

slot = often(0, 1, 2, 3)
at = often(None, seldom=(3, 3, 3, 0))  # in the last slot there is a directory at first
yes_or_no = often(True, False)
mode = often(0o777, 0o755, 0o700, 0o666, 0o644, 0o600, seldom=(0, 0o7777, 0o4755, 0o2775, 0o1777, 0o070, 0o007))
open_flags = bits(
    often(os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY),
    often(0, os.O_CREAT),
    any_of(os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_NOATIME),
    often(0, seldom=(os.O_PATH, os.O_PATH, O_TMPFILE, os.O_SYNC, 3, os.O_NONBLOCK, O_TMPFILE | os.O_EXCL)),
)
size = often(0, 1, 10, 4095, 4096, 4097, 10000, seldom=(-1, 70000))
offset = often(0, 1, 4095, 4096, 8191, 10000, 100000, seldom=(-1, 2**31, 2**40 + 1, 2**63 - 1, -(2**63)))
length = often(0, 1, 10, 4096, 5000, 100000, seldom=(-1, 2**40, 2**63 - 1))
extent = often(1, 100, 4096, 10000, 65536, seldom=(0, -1, 2**62))
identity = often(0, 1000, LOWER_UID, -1)
attribute = often(
    "user.a", "user.b", seldom=("user.", "user", "trusted.a", "system.x", "nothing.a", "user." + "x" * 250)
)
value = often("", "v", "v" * 100, "w" * 4000, seldom=("v" * 65536, "v" * 65537))
time_ns = often(0, 1, 1_500_000_000, 10**17 + 7, -1, -(10**9) - 1)
lock_kind = often(fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_EX, fcntl.LOCK_UN)
span = both(often(0, 1, 10, 100, seldom=(-5, 2**63 - 1)), often(0, 5, 10, 50, seldom=(-1, 2**63 - 1)))
node = often(stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFLNK, 0)

OPERATIONS: Final[dict[str, tuple[Draw, ...]]] = {
    # descriptors
    "open": (slot, paths, open_flags, mode, at),
    "close": (slot,),
    "dup": (slot, slot),
    "dup2": (slot, slot),
    "getfl": (slot,),
    "setfl": (slot, any_of(os.O_APPEND, os.O_NONBLOCK, os.O_NOATIME)),
    "getfd": (slot,),
    "setfd": (slot, often(0, 1)),
    # data
    "read": (slot, size),
    "pread": (slot, size, offset),
    "write": (slot, size),
    "pwrite": (slot, size, offset),
    "lseek": (slot, offset, often(0, 0, 1, 2, os.SEEK_DATA, os.SEEK_HOLE, seldom=(5, -1))),
    "ftruncate": (slot, length),
    "truncate": (paths, length),
    "fallocate": (slot, often(0, 1, 3, seldom=(2, 0x10, 0x8, 0x80, 7)), offset, extent),
    "fsync": (slot,),
    "put": (paths, size),
    "load": (paths,),
    "save": (paths, often(0, 1, 4096, 10000, seldom=(-1, 131072, 131073, 200000))),
    # names
    "mkdir": (paths, mode, at),
    "mknod": (paths, node, mode),
    "unlink": (paths, at),
    "rmdir": (paths, at),
    "rename": (paths, paths, often(0, 0, 1, 2, seldom=(3, 8)), at, at),
    "link": (paths, paths, yes_or_no, at, at),
    "symlink": (targets, paths, at),
    "readlink": (paths, at),
    # what is known of a file
    "stat": (paths, yes_or_no, at),
    "fstat": (slot,),
    "times": (paths,),
    "access": (paths, often(0, 1, 2, 4, 6, 7, seldom=(8,)), at),
    "chmod": (paths, mode, at),
    "fchmod": (slot, mode),
    "chown": (paths, identity, identity, yes_or_no, at),
    "fchown": (slot, identity, identity),
    "utime": (paths, often(None, (0, 1), seldom=((1_500_000_000, 10**17 + 7), (-1, -(10**9) - 1))), yes_or_no, at),
    "getxattr": (paths, attribute, yes_or_no),
    "setxattr": (paths, attribute, value, often(0, 0, 1, 2, 3), yes_or_no),
    "listxattr": (paths, yes_or_no),
    "removexattr": (paths, attribute, yes_or_no),
    # directories
    "listdir": (paths,),
    "fdlistdir": (slot,),
    "chdir": (paths,),
    "fchdir": (slot,),
    "getcwd": (),
    "umask": (often(0, 0o022, 0o077, 0o777),),
    # locks
    "flock": (slot, lock_kind),
    "lockf": (slot, lock_kind, span, often(0, 0, 1, 2)),
    "getlk": (slot, often(fcntl.LOCK_SH, fcntl.LOCK_EX), span),
}
_BASIS: Final = ("open", "mkdir", "put", "symlink", "stat")


def sequence(random: Random, clients: int, longest: int) -> list[Step]:
    """Steps of so many clients; each sequence with a choice of operations of its own, so that rare ones meet."""
    chosen = random.choices(sorted(OPERATIONS), k=random.randint(3, 12))
    names = [*_BASIS, *chosen, *chosen, *chosen]
    steps = [Step(random.randrange(clients), *_made(random)) for _ in range(random.randint(0, 8))]
    steps += [Step(client, *_opened(random, place)) for client in range(clients) for place in range(SLOTS)]
    for _ in range(random.randint(longest // 3, longest)):
        name = random.choice(names)
        arguments = tuple(draw(random) for draw in OPERATIONS[name])
        steps.append(Step(random.randrange(clients), name, arguments))
    if any(step.name == "fallocate" for step in steps):  # what is reserved may count as data, or not
        return [step for step in steps if step.name != "lseek" or step.arguments[2] not in (os.SEEK_DATA, os.SEEK_HOLE)]
    return steps


_simple = often("a", "b", "c", "d", "a/a", "a/b", "b/a", "b/b", "a/a/a")


def _made(random: Random) -> tuple[str, tuple[Any, ...]]:
    """What is there at first."""
    path, kind = _simple(random), random.random()
    if kind < 0.5:
        return "mkdir", (path, 0o777 if kind < 0.3 else mode(random), None)
    return ("put", (path, size(random))) if kind < 0.8 else ("symlink", (_simple(random), path, None))


def _opened(random: Random, place: int) -> tuple[str, tuple[Any, ...]]:
    """What is open in a slot at first: in the last one a directory."""
    if place == SLOTS - 1:
        return "open", (place, random.choice((".", "..", "a", "b")), os.O_RDONLY, 0, None)
    flags = random.choice((os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_APPEND, os.O_RDONLY))
    return "open", (place, _simple(random), flags, 0o666, None)
