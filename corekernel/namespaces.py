"""What a process may see of the host: pid, mount and network namespaces, orphans, and death with the parent.

Protocol, as root: the launcher calls `fork_init`; its child is init of a new pid namespace and becomes the
core. When the core dies, by whatever signal, the host kills all that live in the namespace: nothing is left
behind. Without privilege there is no namespace; the core is a child subreaper instead, and every process of
the system asks for SIGKILL at the death of its parent. User namespaces are not used: hosts often forbid them,
and nothing needs them.

The host's /proc stays mounted, so a process of the namespace has two pids: `os.getpid()` is the namespace's,
`host_pid()` the one that the host's tools and /proc show.

`private_view` lets processes of other user ids run the interpreter and the checkout when these lie under a
directory that only its owner may traverse (a 0700 home), and shows them nothing else of that directory. It is
for a mount namespace of its own: outside, nothing changes.

`leave_terminal` takes the place of setsid(2), for one reason: the host may schedule each session as a group (see
sched(7), autogroup), and switching between threads of different groups costs half as much again.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import stat
import sys
import termios
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

CAP_SETUID = 7
CAP_SYS_ADMIN = 21

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_MS_RDONLY = 0x1
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_SIGKILL = 9
_MAX_LINKS = 40

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long, *[ctypes.c_ulong] * 6)


def leave_terminal() -> None:
    """No controlling terminal for this process and its children, nor its signals; in the session it was started in."""
    os.setpgid(0, 0)
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENXIO:  # there is one, and we cannot say that we do not want it
            os.setsid()
        return
    fcntl.ioctl(terminal, termios.TIOCNOTTY)
    os.close(terminal)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def readable(fd: int) -> bool:
    """Whether a descriptor is readable now; of a pidfd: whether its process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def prctl(option: int, *arguments: int) -> int:
    """Set a property of this process or thread; arguments are integers or addresses."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return _checked(_libc.prctl(option, *padded), f"prctl {option}")


def syscall(number: int, *arguments: int) -> int:
    """A system call that the C library does not wrap; arguments are integers or addresses."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    return _checked(_libc.syscall(number, *(a & (1 << 64) - 1 for a in padded)), f"system call {number}")


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for new ones."""
    _checked(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, flags: int) -> None:
    """Enter the namespace that `fd` names."""
    _checked(_libc.setns(fd, flags), f"setns {flags:#x}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    source_, target_, kind_, options_ = encoded
    _checked(_libc.mount(source_, target_, kind_, flags, options_), target)


def has_capability(number: int) -> bool:
    """Whether this process holds a capability now (root in a container often lacks CAP_SYS_ADMIN)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        line = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> number & 1)


def host_pid() -> int:
    """This process's pid as the host's /proc shows it."""
    return int(os.readlink("/proc/self"))


def host_parent_pid() -> int:
    """The pid of this process's parent as the host's /proc shows it."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as stat_file:
        return int(stat_file.read().rpartition(")")[2].split()[1])


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the parent dies; exit at once when it is no longer `parent` (a pid) already.

    A change of user id clears the request: call again after one.
    """
    prctl(PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def enter_pid_namespace() -> bool:
    """Prepare this process's end of the system's life cycle.

    Returns:
        True with privilege: the child of the caller's next fork is init of a new pid namespace, in private
        mount and IPC namespaces. False without: the caller itself now adopts orphans, and there is no
        namespace.
    """
    if not has_capability(CAP_SYS_ADMIN):
        adopt_orphans()
        return False
    unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    return True


def fork_init() -> int | None:
    """Enter a pid namespace and fork its init, which dies with the caller.

    Returns:
        The child's pid in the caller, 0 in the child, None without privilege (nothing was forked).
    """
    if not enter_pid_namespace():
        return None
    launcher = os.pidfd_open(os.getpid())
    child = os.fork()
    if child == 0:
        # Init's getppid() is 0 whether its parent lives or not: ask the pidfd instead.
        prctl(PR_SET_PDEATHSIG, _SIGKILL)
        if readable(launcher):
            os._exit(1)
    os.close(launcher)
    return child


def private_mounts() -> None:
    """Give this process, which must have one thread, a mount namespace from which nothing propagates."""
    unshare(CLONE_NEWNS)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def interpreter_paths() -> list[Path]:
    """Directories needed to run this interpreter and import what this process can import."""
    checkout = Path(__file__).resolve().parent.parent
    named = [sys.prefix, sys.base_prefix, *sys.path]
    return [checkout, *(Path(name) for name in named if name and os.path.isdir(name))]


def _traversable(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IXOTH)


def _blocked_at(path: Path) -> Path | None:
    """The topmost directory above `path` that other user ids cannot traverse."""
    return next((above for above in reversed(path.parents) if not _traversable(above)), None)


def _follow(path: Path) -> tuple[Path, list[tuple[Path, str]]]:
    """Resolve `path`; also list the symbolic links met, so that a view can hold them too."""
    links: list[tuple[Path, str]] = []
    while len(links) <= _MAX_LINKS:
        link = next((p for p in (*reversed(path.parents), path) if p.is_symlink()), None)
        if link is None:
            return path, links
        target = os.readlink(link)
        links.append((link, target))
        path = Path(os.path.normpath(os.path.join(link.parent.resolve(), target, path.relative_to(link))))
    raise OSError(f"too many symbolic links: {path}")


def _outermost(paths: Iterable[Path]) -> list[Path]:
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(outer) for outer in kept):
            kept.append(path)
    return kept


def _bind_read_only(source: int, target: Path) -> None:
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    _mount(f"/proc/self/fd/{source}", str(target), None, _MS_BIND)
    _mount(None, str(target), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _cover(blocked: Path, needed: list[Path], links: dict[Path, str]) -> None:
    """Replace `blocked` by a directory that holds only `needed`, read-only, and `links`."""
    sources = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in needed}
    try:
        _mount("tmpfs", str(blocked), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
        for path, source in sources.items():
            _bind_read_only(source, path)
        for link, target in links.items():
            if link.is_relative_to(blocked) and not os.path.lexists(link):
                link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                link.symlink_to(target)
        _mount(None, str(blocked), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    finally:
        for source in sources.values():
            os.close(source)


def _reenter_directory() -> None:
    # The current directory is a reference behind the cover, from which ".." would climb.
    try:
        os.chdir(os.getcwd())
    except OSError:
        os.chdir("/")


def private_view(paths: Iterable[Path]) -> list[Path]:
    """Make `paths` reachable for every user id in this mount namespace, and hide what surrounds them.

    Each directory that others cannot traverse is covered by a tmpfs (mode 0755) in which only the needed
    directories are mounted back, read-only, nosuid, nodev. Paths that everybody can reach already are left
    alone. Needs CAP_SYS_ADMIN and a mount namespace of one's own (`private_mounts`, `enter_pid_namespace`).

    Args:
        paths: existing directories.

    Returns:
        Directories that stay unreachable because they themselves are closed to others: to open those would
        show more than what was asked for.
    """
    old_umask = os.umask(0o022)
    try:
        resolved = [_follow(Path(os.path.abspath(path))) for path in paths]
        links = {link: target for _, found in resolved for link, target in found}
        closed = sorted({path for path, _ in resolved if not _traversable(path)})
        covers: dict[Path, list[Path]] = {}
        for path in _outermost(path for path, _ in resolved if path not in closed):
            blocked = _blocked_at(path)
            if blocked is not None:
                covers.setdefault(blocked, []).append(path)
        for blocked, needed in covers.items():
            _cover(blocked, needed, links)
        if covers:
            _reenter_directory()
        return closed
    finally:
        os.umask(old_umask)
