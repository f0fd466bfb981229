"""Commands that change files: cp, mv, rm, mkdir, rmdir, ln, touch, chmod, chown."""

from __future__ import annotations

import contextlib
import grp
import os
import posixpath
import pwd
import re
import stat
from typing import TYPE_CHECKING

from shim.shell.copying import Copy, Progress
from shim.shell.places import Place
from shim.shell.table import Names, Options, Usage, command

if TYPE_CHECKING:
    from shim.shell.shell import Shell

_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def _base(path: str) -> str:
    return posixpath.basename(path.rstrip("/"))


def _destinations(place: Place, sources: Names) -> list[Place]:
    """Where each source goes: into the place, if that is a directory, else it itself.

    Raises:
        Usage: there are several sources, and no directory.
    """
    if place.is_directory():
        return [place.below(_base(source.removeprefix("host:"))) for source in sources]
    if len(sources) > 1:
        raise Usage(f"{place.shown} is not a directory")
    return [place]


# ---- copying, moving, removing


@command("[-r] SOURCE... TARGET", "rR")
def cp(shell: Shell, options: Options, names: Names) -> None:
    """Copy files, also from and to the host.

    -r: directories with all below them. Either side may be host:PATH.
    """
    *sources, target = names
    with Progress() as progress:
        copy = Copy(shell.tries, bool(options), progress)
        for source, place in zip(sources, _destinations(shell.place(target), sources), strict=True):
            copy.one(shell.place(source), place)


@command("SOURCE... TARGET")
def mv(shell: Shell, options: Options, names: Names) -> None:
    """Give files another name, or move them into a directory."""
    *sources, target = names
    with shell.tries(target):
        for source, place in zip(sources, _destinations(shell.place(shell.here(target)), sources), strict=True):
            with shell.tries(f"{source} to {place.shown}"):
                shell.files.rename(shell.here(source), place.path)


@command("[-rf] FILE...", "rRf")
def rm(shell: Shell, options: Options, names: Names) -> None:
    """Remove files.

    -r: directories with all below them; -f: say nothing of what is not there.
    """
    recursive = bool(options.keys() & set("rR"))
    for name in names:
        with shell.tries(name), contextlib.suppress(*[FileNotFoundError] * ("f" in options)):
            path = shell.here(name)
            if _base(path) in ("", ".", ".."):
                shell.complain(f"{name}: not by this name")
            elif recursive and stat.S_ISDIR(shell.files.lstat(path).st_mode):
                shell.files.rmtree(path)
            else:
                shell.files.unlink(path)


# ---- making


@command("[-p] DIRECTORY...", "p")
def mkdir(shell: Shell, options: Options, names: Names) -> None:
    """Make directories.

    -p: those above them, too, and it is no mistake if they are there.
    """
    for name in names:
        with shell.tries(name):
            if "p" in options:
                shell.files.makedirs(shell.here(name), exist_ok=True)
            else:
                shell.files.mkdir(shell.here(name))


@command("DIRECTORY...")
def rmdir(shell: Shell, options: Options, names: Names) -> None:
    """Remove empty directories."""
    for name in names:
        with shell.tries(name):
            shell.files.rmdir(shell.here(name))


@command("[-s] TARGET NAME", "s")
def ln(shell: Shell, options: Options, names: Names) -> None:
    """Give a file one more name.

    -s: make a symbolic link to it.
    """
    target, name = names
    with shell.tries(f"{name} to {target}"):
        place = _destinations(shell.place(shell.here(name)), [target])[0]
        if "s" in options:
            shell.files.symlink(target, place.path)
        else:
            shell.files.link(shell.here(target), place.path)


@command("FILE...")
def touch(shell: Shell, options: Options, names: Names) -> None:
    """Make files, or set the times of those that are there to now."""
    for name in names:
        with shell.tries(name):
            shell.files.path(shell.here(name)).touch()


# ---- permissions and owners


@command("[-R] MODE FILE...", None)
def chmod(shell: Shell, options: Options, names: Names) -> None:
    """Set permissions: 644, u+x, go-w,a=rX.

    -R: of all that is below, too.
    """
    recursive, (mode, *paths) = _recursive(names, 2)
    if not re.fullmatch(r"[0-7]{1,4}", mode) and not all(map(_CLAUSE.fullmatch, mode.split(","))):
        raise Usage(f"{mode!r} is no mode")
    for path in _all(shell, paths, recursive):
        with shell.tries(path):
            shell.files.chmod(path, changed_mode(shell.files.stat(path).st_mode, mode))


def changed_mode(before: int, change: str) -> int:
    """Permissions after a change such as "644" or "u+x,go-w"; `before` has the type, too."""
    if change.isdecimal():
        return int(change, 8)
    mode = stat.S_IMODE(before)
    for clause in change.split(","):
        found = _CLAUSE.fullmatch(clause)
        assert found
        whose, how, letters = found[1].replace("a", "ugo") or "ugo", found[2], found[3]
        bits = _bits(whose, letters, bool(stat.S_ISDIR(before) or mode & 0o111))
        if how == "=":
            mode &= ~_bits(whose, "rwxst", False)
        mode = mode & ~bits if how == "-" else mode | bits
    return mode


def _bits(whose: str, letters: str, executable: bool) -> int:
    """The bits that letters are for u, g, o; "X" is "x" of what is executable already, and of directories."""
    rwx = sum(
        bit for letter, bit in _BITS.items() if letter in letters or (letter == "x" and "X" in letters * executable)
    )
    bits = sum(rwx << _SHIFTS[who] for who in set(whose))
    if "s" in letters:
        bits |= stat.S_ISUID * ("u" in whose) | stat.S_ISGID * ("g" in whose)
    return bits | (stat.S_ISVTX if "t" in letters else 0)


@command("[-R] USER[:GROUP] FILE...", None)
def chown(shell: Shell, options: Options, names: Names) -> None:
    """Give files to a user.

    By number or name; :GROUP: to a group only. -R: all that is below, too.
    """
    recursive, (whom, *paths) = _recursive(names, 2)
    user, _, group = whom.partition(":")
    try:
        uid = -1 if not user else int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise Usage(f"{whom!r} is nobody here") from None
    for path in _all(shell, paths, recursive):
        with shell.tries(path):
            shell.files.chown(path, uid, gid, follow_symlinks=not recursive)


def _recursive(words: Names, least: int) -> tuple[bool, Names]:
    """Whether the first word is -R, and the other words: a mode such as -x is no option."""
    recursive = words[:1] == ["-R"]
    if len(words) < least + recursive:
        raise Usage("missing operand")
    return recursive, words[recursive:]


def _all(shell: Shell, names: Names, recursive: bool) -> Names:
    """Paths of the files named and, if recursive, of all below them; no links then."""
    found = []
    for name in names:
        with shell.tries(name):
            found.append(shell.here(name))
            if recursive and stat.S_ISDIR(shell.files.lstat(name).st_mode):
                for top, directories, others in shell.files.walk(name):
                    found += [os.path.join(top, below) for below in directories + others]
    return [path for path in found if not (recursive and shell.files.islink(path))]
