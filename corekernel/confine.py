"""Least privilege for one process, applied after the fork and before its first thread.

Order of `apply`, each step while the process still may take it:

1. a network namespace of its own (root), resource limits, no_new_privs;
2. groups and user id; that clears the death signal, so it is armed again and the parent looked for;
3. not dumpable: no process of the same user id can trace it or read its memory;
4. Landlock: no path at all but, for reading, what is below `host_paths`; no TCP, no signal and no abstract socket
   outside (as far as the host's ABI goes);
5. the seccomp allow-list `service`: calls on descriptors already held, memory without PROT_EXEC, threads but
   no processes, signals to itself. All else fails with EPERM, so that a service that tries sees a plain
   error. With `host_paths` it may also open for reading, look at and list what it can name.

What such a process needs must be imported and warmed before (`preload`): nothing can be opened or imported
after. What the host or a missing privilege takes away is left out, and `weaknesses` says so in plain words; a
step that the host offers and that fails is an error, never ignored.

`Confinement.client` is for ordinary programs that `run` starts: own user id, no_new_privs and limits only.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import importlib
import linecache
import logging
import os
import re
import resource
import signal
import struct
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from corekernel import channel, namespaces

try:
    import pyseccomp
except (ImportError, RuntimeError):  # RuntimeError: the package is there, libseccomp is not
    pyseccomp = None

DEFAULT_NOFILE = 1024

_SECCOMP_MODE_FILTER = 2
_CLONE_THREAD_EXACTLY = 0x3D0F00  # what pthread_create asks for; anything else is a process or a namespace
_PROT_EXEC = 4
_FUTEX_OPTIONS = 0x180  # PRIVATE | CLOCK_REALTIME
_FUTEX_ALLOWED = (
    0,
    1,
    9,
    10,
)  # WAIT, WAKE and their BITSET forms: REQUEUE would strand another process's waiters
_FIONBIO, _FIOCLEX = 0x5421, 0x5451
_PR_SET_NAME = 15
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GET_SEALS
_FCNTL_ALLOWED = (0, 1, 2, 3, 4, 1030, 1034)
# O_DIRECTORY, O_NOFOLLOW, O_PATH, O_CLOEXEC, O_NONBLOCK, O_NOCTTY, O_LARGEFILE: nothing that writes or makes a file.
_OPEN_FLAGS = 0o200000 | 0o400000 | 0o10000000 | 0o2000000 | 0o4000 | 0o400 | 0o100000
_O_NOFOLLOW = 0o400000
_OWN_PID = 0x5EC0DE5  # stands for the process's own pid in the compiled filter

_CALLS = re.findall(
    r"\w+",
    """
    read write readv writev pread64 pwrite64 preadv pwritev lseek fstat fsync fdatasync ftruncate fallocate
    close close_range dup sendmsg recvmsg sendto recvfrom shutdown getsockopt getsockname getpeername
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait
    munmap mremap madvise msync brk membarrier
    sched_yield exit exit_group restart_syscall set_robust_list rseq getcpu
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrusage times
    getpid gettid getppid getuid geteuid getgid getegid getrandom
    """,
)

_HOST_READING_CALLS = ("newfstatat", "statx", "readlinkat", "getdents64", "fstatfs")

_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_PATH_BENEATH = 1
_LANDLOCK_READ = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR; not EXECUTE
_LANDLOCK_VERSION_FLAG = 1
_LANDLOCK_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one process is left with.

    Attributes:
        uid: host user id to run under; None keeps the caller's.
        gid: host group id; None means the same number as `uid`.
        memory_bytes: cap on private writable memory (heap, stacks; RLIMIT_DATA), so that Python raises
            MemoryError instead of being killed. What the process inherits from the zygote, and so from whoever
            launched the system, comes on top. Shared objects are limited elsewhere. None: no cap.
        nofile: most descriptors it may hold.
        processes: most processes and threads of its user id; None: no cap.
        landlock: deny the whole file system, TCP, and signals and abstract sockets outside.
        seccomp: "service" or "none".
        network: keep the host's network namespace; False gives an empty one (needs root).
        dumpable: may be traced and read by its own user id.
        host_paths: absolute host directories below which it may read, as far as its user id may.
    """

    uid: int | None = None
    gid: int | None = None
    memory_bytes: int | None = None
    nofile: int = DEFAULT_NOFILE
    processes: int | None = None
    landlock: bool = True
    seccomp: str = "service"
    network: bool = False
    dumpable: bool = False
    host_paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.seccomp not in ("service", "none"):
            raise ValueError(f"unknown seccomp profile {self.seccomp!r}")
        if self.uid == 0 or self.gid == 0:
            raise ValueError("a confined process cannot run as root: use None to keep the caller's user id")

    @classmethod
    def client(
        cls,
        uid: int | None,
        gid: int | None = None,
        processes: int | None = 256,
        nofile: int = DEFAULT_NOFILE,
    ) -> Confinement:
        """An ordinary program: own user id, no new privileges, limits; no filter."""
        return cls(uid, gid, None, nofile, processes, False, "none", network=True, dumpable=True)


def filter_available() -> bool:
    """Whether the host's libseccomp was found; without it the profile `service` filters nothing."""
    return pyseccomp is not None


@functools.cache
def landlock_abi() -> int:
    """The host's Landlock ABI version; 0 when it has none."""
    try:
        return namespaces.syscall(_LANDLOCK_CREATE, 0, 0, _LANDLOCK_VERSION_FLAG)
    except OSError:
        return 0


def _let_read(ruleset: int, path: str) -> None:
    """Let what is below a directory be read. One that this user id cannot reach needs no rule."""
    try:
        directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", _LANDLOCK_READ, directory), 12)
        namespaces.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, ctypes.addressof(rule), 0)
    finally:
        os.close(directory)


def _apply_landlock(host_paths: Iterable[str]) -> None:
    abi = landlock_abi()
    if abi == 0:
        return
    handled_fs = (1 << _LANDLOCK_FS_BITS.get(abi, 16)) - 1
    words = [handled_fs, *([0b11] if abi >= 4 else []), *([0b11] if abi >= 6 else [])]
    attributes = ctypes.create_string_buffer(struct.pack(f"={len(words)}Q", *words), 8 * len(words))
    ruleset = namespaces.syscall(_LANDLOCK_CREATE, ctypes.addressof(attributes), 8 * len(words), 0)
    try:
        for path in host_paths:
            _let_read(ruleset, path)
        namespaces.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _add_conditional_rules(rules: Any, allow: Callable[..., None]) -> None:
    arg, equal, masked = rules.Arg, rules.EQ, rules.MASKED_EQ
    for operation in _FUTEX_ALLOWED:
        allow("futex", arg(1, masked, 0xFFFFFFFF & ~_FUTEX_OPTIONS, operation))
    for name in ("mmap", "mprotect"):
        allow(name, arg(2, masked, _PROT_EXEC, 0))
    for command in _FCNTL_ALLOWED:
        allow("fcntl", arg(1, equal, command))
    for request in (_FIONBIO, _FIOCLEX):
        allow("ioctl", arg(1, equal, request))
    for name in ("sched_setaffinity", "sched_getaffinity"):
        allow(name, arg(0, equal, 0))
    allow("clone", arg(0, masked, 0xFFFFFFFF, _CLONE_THREAD_EXACTLY))
    allow("tgkill", arg(0, equal, _OWN_PID))
    allow("prctl", arg(0, equal, _PR_SET_NAME))
    allow("prlimit64", arg(0, equal, 0), arg(2, equal, 0))


def _add_host_reading_rules(rules: Any, allow: Callable[..., None]) -> None:
    for name in _HOST_READING_CALLS:
        allow(name)
    allow("openat", rules.Arg(2, rules.MASKED_EQ, 0xFFFFFFFF & ~_OPEN_FLAGS | _O_NOFOLLOW, _O_NOFOLLOW))


@functools.cache
def _service_filter(reads_host: bool) -> bytes:
    """The service profile as BPF instructions of 8 bytes, with `_OWN_PID` where the process's pid belongs."""
    rules = pyseccomp
    program = rules.SyscallFilter(rules.ERRNO(errno.EPERM))
    program.set_attr(rules.Attr.ACT_BADARCH, rules.KILL_PROCESS)
    program.syscall_priority("futex", 255)
    for name in _CALLS:
        program.add_rule(rules.ALLOW, name)
    allow = functools.partial(program.add_rule, rules.ALLOW)
    _add_conditional_rules(rules, allow)
    if reads_host:
        _add_host_reading_rules(rules, allow)
    # glibc hides clone3's flags behind a pointer; told ENOSYS it falls back to clone, whose flags can be
    # seen.
    program.add_rule(rules.ERRNO(errno.ENOSYS), "clone3")
    with os.fdopen(os.memfd_create("filter", os.MFD_CLOEXEC), "w+b") as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


@functools.lru_cache(maxsize=1)
def _filter_for(pid: int, reads_host: bool) -> bytes:
    """The service profile for one process: the constant in the tgkill comparison becomes its pid."""
    patched, found = bytearray(_service_filter(reads_host)), 0
    for offset in range(4, len(patched), 8):
        if struct.unpack_from("=I", patched, offset)[0] == _OWN_PID:
            struct.pack_into("=I", patched, offset, pid)
            found += 1
    if found != 1:
        raise RuntimeError(f"compiled filter names its own pid {found} times, not once")
    return bytes(patched)


def _apply_seccomp(profile: str, reads_host: bool) -> None:
    if profile == "none" or not filter_available():
        return
    code = _filter_for(os.getpid(), reads_host)
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    header = ctypes.create_string_buffer(program, len(program))
    namespaces.prctl(namespaces.PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def _limit(kind: int, value: int | None) -> None:
    if value is None:
        return
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _private_bytes() -> int:
    """Private writable memory of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        line = next(line for line in status if line.startswith("VmData:"))
    return int(line.split()[1]) << 10


def _apply_limits(wanted: Confinement) -> None:
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, wanted.nofile)
    _limit(resource.RLIMIT_DATA, None if wanted.memory_bytes is None else wanted.memory_bytes + _private_bytes())
    _limit(resource.RLIMIT_NPROC, wanted.processes)


def _become(uid: int, gid: int | None) -> None:
    gid = uid if gid is None else gid
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def apply(wanted: Confinement) -> None:
    """Confine the calling process, which must have one thread; there is no way back.

    Its death signal is armed for its present parent, which must be the core.

    Raises:
        OSError: a step that this host offers failed; the process must not go on.
    """
    parent = os.getppid()
    if not wanted.network and namespaces.has_capability(namespaces.CAP_SYS_ADMIN):
        namespaces.unshare(namespaces.CLONE_NEWNET)
    _apply_limits(wanted)
    namespaces.prctl(namespaces.PR_SET_NO_NEW_PRIVS, 1)
    if wanted.uid is not None:
        _become(wanted.uid, wanted.gid)
    namespaces.die_with_parent(parent)
    namespaces.prctl(namespaces.PR_SET_DUMPABLE, int(wanted.dumpable))
    if wanted.landlock:
        _apply_landlock(wanted.host_paths)
    _apply_seccomp(wanted.seccomp, bool(wanted.host_paths))


def weaknesses() -> list[str]:
    """What is weaker here than designed, one plain sentence each; empty when nothing is."""
    admin = namespaces.has_capability(namespaces.CAP_SYS_ADMIN)
    abi = landlock_abi()
    found = {
        "services run under the core's own user id: a service that breaks out owns all that the core owns": (
            not namespaces.has_capability(namespaces.CAP_SETUID)
        ),
        "no pid namespace: after kill -9 of the core, only the death signal cleans up": not admin,
        "no private view: other user ids cannot run an interpreter in a directory closed to them": not admin,
        "no network namespace: only the system-call filter keeps services off the network": not admin,
        "no Landlock: only the system-call filter keeps services off the file system, and one with host_paths can read "
        "whatever its user id may": abi == 0,
        "Landlock is older than ABI 6: signals and abstract sockets are left to the system-call filter": (0 < abi < 6),
        "no libseccomp: services may make any system call their user id allows": not filter_available(),
    }
    return [text for text, weak in found.items() if weak]


def rehearse() -> None:
    """Do ahead, in the process that will call `apply`, what does not depend on the confinement."""
    if filter_available():
        _filter_for(os.getpid(), False)


def _cache_source(module: ModuleType) -> None:
    # Tracebacks in a confined process show source lines only if they are here; no mtime means never
    # re-checked.
    name = getattr(module, "__file__", None)
    if name and name.endswith(".py"):
        lines = linecache.getlines(name)
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)


def _warm_error_paths() -> None:
    try:
        raise LookupError("warm")
    except LookupError as error:
        record = logging.LogRecord("warm", logging.ERROR, "", 0, "%s", (error,), None)
        traceback.format_exception(error)
        logging.Formatter("%(asctime)s %(message)s").format(record)
    for codec in ("utf-8", "ascii", "latin-1", "utf-16-le", "unicode_escape"):
        "warm".encode(codec).decode(codec)
    "wärm.example".encode("idna").decode("idna")  # also loads punycode
    b"\xff".decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace")
    channel.decode(channel.encode({"warm": [1, 2.5, None]}))
    signal.strsignal(signal.SIGSEGV)


def preload(modules: Iterable[str]) -> None:
    """Import `modules` and touch whatever Python loads lazily, so that a confined process needs no file.

    Raises:
        ImportError: a module is missing; better now than inside a service.
    """
    for name in modules:
        _cache_source(importlib.import_module(name))
    _warm_error_paths()
    landlock_abi()
    if filter_available():
        _service_filter(False)
        _service_filter(True)
