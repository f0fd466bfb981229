"""What this host offers, and what becomes weaker where it does not.

A check asks the host itself wherever that is possible (it opens, calls, probes) and reads version numbers
only where asking would change something. Nothing here decides: the mechanisms look for themselves, and a
check looks with the same eyes. A failed check names its consequence in plain words; no check but those of
`required` prevents a boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import resource
import shutil
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corekernel import cgroup_places, confine, namespaces
from corekernel.channel import Channel

FULL_KERNEL = (6, 6)
WANTED_NOFILE = 8192
WANTED_PIDS = 65536
WANTED_MAPPINGS = 65530
BENCH_PEERS = ("posix_ipc", "sysv_ipc", "zmq", "iceoryx2")

_SYS_USERFAULTFD = 323
_UFFD_USER_MODE_ONLY = 1
_UFFDIO_API = 0xC018AA3F
_UFFD_API = 0xAA
_UFFD_SIGBUS, _UFFD_MINOR_SHMEM, _UFFD_WP_SHMEM, _UFFD_POISON = 1 << 7, 1 << 10, 1 << 12, 1 << 14
_MFD_NOEXEC_SEAL = 8


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        ok: whether nothing is lost.
        detail: what was found.
        consequence: what is weaker without it; empty when `ok`.
        required: the system cannot boot without it.
    """

    name: str
    ok: bool
    detail: str
    consequence: str
    required: bool = False


def _check(name: str, ok: bool, detail: str, consequence: str, required: bool = False) -> Check:
    return Check(name, ok, detail, "" if ok else consequence, required)


def _number(path: str) -> int:
    """The number in a /proc file; 0 when it cannot be read."""
    try:
        return int(Path(path).read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or "0")


def _kernel() -> Iterator[Check]:
    release = os.uname().release
    yield _check(
        "kernel",
        kernel_version() >= FULL_KERNEL,
        release,
        "older than 6.6: the features below that fail are lost",
    )
    machine = os.uname().machine
    yield _check(
        "machine",
        machine == "x86_64",
        machine,
        "the dispatcher, the filters and the shim are x86-64",
        required=True,
    )


def _processes() -> Iterator[Check]:
    try:
        os.close(os.pidfd_open(os.getpid()))
        pidfd = True
    except OSError:
        pidfd = False
    yield _check("pidfd", pidfd, "pidfd_open", "the core cannot watch its services", required=True)
    left, right = Channel.pair()
    with left, right:
        peer = left.peer_pidfd()
    if peer is not None:
        os.close(peer)
    lost = "a client is known by its pid, which the host may use again after it dies"
    yield _check("SO_PEERPIDFD (6.5)", peer is not None, "socket option", lost)


def _privilege() -> Iterator[Check]:
    admin = namespaces.has_capability(namespaces.CAP_SYS_ADMIN)
    setuid = namespaces.has_capability(namespaces.CAP_SETUID)
    detail = f"user id {os.geteuid()}"
    lost = "services and clients share the core's user id: one that breaks out owns the core"
    yield _check("own user ids (CAP_SETUID)", setuid, detail, lost)
    lost = "no pid namespace (the death signal alone cleans up), no private view, no empty network"
    yield _check("namespaces (CAP_SYS_ADMIN)", admin, detail, lost)
    limit = _number("/proc/sys/user/max_user_namespaces")
    lost = "the driver container must run as root or not at all"
    yield _check("user namespaces", limit > 0, f"at most {limit}", lost)


def _confinement() -> Iterator[Check]:
    abi = confine.landlock_abi()
    lost = "below ABI 6 the filter alone stops signals and abstract sockets; at 0 it alone guards files, "
    lost += "and a service with host_paths can read whatever its user id may"
    yield _check("Landlock", abi >= 6, f"ABI {abi}", lost)
    found = confine.filter_available()
    lost = "services may make any system call that their user id allows: install libseccomp2"
    yield _check("seccomp", found, "libseccomp found" if found else "libseccomp missing", lost)
    for controller, lost in (
        ("memory", "memory limits are detected and punished, not enforced"),
        ("pids", "the number of a program's processes is limited by user id only"),
    ):
        place = cgroup_places.where(controller)
        yield _check(f"control group: {controller}", place is not None, str(place or "none writable"), lost)


def _userfaultfd_features() -> int:
    """Feature bits of a user-mode userfaultfd; -1 without one."""
    try:
        fd = namespaces.syscall(_SYS_USERFAULTFD, os.O_CLOEXEC | _UFFD_USER_MODE_ONLY)
    except OSError:
        return -1
    try:
        answer = fcntl.ioctl(fd, _UFFDIO_API, struct.pack("=QQQ", _UFFD_API, 0, 0))
        return int(struct.unpack("=QQQ", answer)[1])
    except OSError:
        return -1
    finally:
        os.close(fd)


def _memory() -> Iterator[Check]:
    features = _userfaultfd_features()
    wanted = _UFFD_SIGBUS | _UFFD_MINOR_SHMEM | _UFFD_WP_SHMEM
    detail = "none" if features < 0 else f"features {features:#x}"
    lost = "no policy-free paging: every managed page fault is a call"
    yield _check("userfaultfd", features >= 0 and features & wanted == wanted, detail, lost)
    poison = features >= 0 and bool(features & _UFFD_POISON)
    lost = "a token is revoked by truncating its object for all holders, not for one"
    yield _check("UFFDIO_POISON (6.6)", poison, detail, lost)
    try:
        os.close(os.memfd_create("probe", _MFD_NOEXEC_SEAL))
        noexec = True
    except OSError:
        noexec = False
    lost = "objects are not sealed against execution; the filters still deny it to services"
    yield _check("memfd noexec seal (6.3)", noexec, "memfd_create", lost)


def _limits() -> Iterator[Check]:
    pids = min(_number("/proc/sys/kernel/pid_max"), _number("/proc/sys/kernel/threads-max"))
    lost = "each pre-bound stack is a thread: 10,000 client threads with 3 stacks each do not fit"
    yield _check("threads in all", pids >= WANTED_PIDS, str(pids), lost)
    mappings = _number("/proc/sys/vm/max_map_count")
    lost = "each stack costs two mappings of its service: fewer stacks per service"
    yield _check("mappings of a process", mappings >= WANTED_MAPPINGS, str(mappings), lost)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= WANTED_NOFILE
    lost = "fewer cached inodes can be mapped by programs at a time"
    yield _check("descriptors of a process", enough, str(hard), lost)


def _processor() -> Iterator[Check]:
    cpus = len(os.sched_getaffinity(0))
    yield _check("CPUs", cpus >= 2, str(cpus), "isolation class IC1 degrades to IC2: its poller needs a CPU")
    flags: set[str] = set()
    with contextlib.suppress(OSError, StopIteration):
        text = Path("/proc/cpuinfo").read_text()
        flags = set(next(line for line in text.splitlines() if line.startswith("flags")).split())
    steady = {"constant_tsc", "nonstop_tsc"} & flags
    detail = " ".join(sorted(steady)) or "none"
    lost = "time stamps may drift between CPUs: spin bounds and traces are approximate"
    yield _check("steady time stamp counter", "constant_tsc" in flags, detail, lost)
    yield _check("rdtscp", "rdtscp" in flags, "CPU flag", "the CPU id of a caller costs a slower instruction")


def _tools() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield _check("Python", sys.version_info >= (3, 11), version, "3.11 is needed", required=True)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    lost = "the dispatcher cannot be built: install the Python development package"
    yield _check("Python headers", header.exists(), str(header), lost, required=True)
    compiler = shutil.which("cc") or shutil.which("gcc")
    lost = "the dispatcher and the shim cannot be built: install gcc"
    yield _check("C compiler", compiler is not None, compiler or "none", lost, required=True)
    missing = [name for name in BENCH_PEERS if importlib.util.find_spec(name) is None]
    detail = "missing: " + " ".join(missing) if missing else "all there"
    yield _check("bench peers", not missing, detail, "the benchmark leaves these peers out")


_GROUPS: tuple[Callable[[], Iterator[Check]], ...] = (
    _kernel,
    _processes,
    _privilege,
    _confinement,
    _memory,
    _limits,
    _processor,
    _tools,
)


def checks() -> list[Check]:
    """Look at everything; takes a few milliseconds and changes nothing."""
    return [check for group in _GROUPS for check in group()]


def report(found: list[Check] | None = None) -> str:
    """A table of the checks, one line each, and below a failed one what it costs.

    Args:
        found: the result of `checks`; None looks now.
    """
    found = checks() if found is None else found
    width = max(len(check.name) for check in found)
    lines = []
    for check in found:
        mark = "ok  " if check.ok else "FAIL" if check.required else "weak"
        lines.append(f"{mark}  {check.name:<{width}}  {check.detail}")
        if check.consequence:
            lines.append(f"      {'':<{width}}  -> {check.consequence}")
    weak = sum(not check.ok for check in found)
    lines.append("nothing is weaker than designed" if weak == 0 else f"{weak} of {len(found)} weaker than designed")
    return "\n".join(lines)
