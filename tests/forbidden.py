"""Everything that a service must not be able to do, each as an attempt."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Callable
from typing import Any

from corekernel import namespaces
from tests.forked import outcome

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, *[ctypes.c_size_t] * 5)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
memory = ctypes.create_string_buffer(64)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(memory), 64)
path = ctypes.create_string_buffer(b"/etc/passwd")


def raw(number: int, *arguments: int) -> Callable[[], int]:
    return lambda: namespaces.syscall(number, *arguments)


def checked(call: Callable[[], int | None]) -> Callable[[], None]:
    """An attempt through a C function that returns -1 or MAP_FAILED."""

    def attempt() -> None:
        ctypes.set_errno(0)
        result = call()
        if result in (-1, (1 << 64) - 1):
            raise OSError(ctypes.get_errno(), "refused")

    return attempt


def fork_and_report() -> None:
    if os.fork() == 0:
        os._exit(0)


def attacks(core: int, victim: int, page: int) -> dict[str, Callable[[], Any]]:
    """Everything a service must not be able to do; `core` and `victim` are processes outside."""
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = ctypes.addressof(vector)
    return {
        "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "open (old call)": raw(2, ctypes.addressof(path), 0),
        "openat2": raw(437, -100, ctypes.addressof(path), address, 24),
        "create": lambda: os.open("/tmp/hmk-attack", os.O_CREAT | os.O_WRONLY),
        "memory of the core": lambda: os.open(f"/proc/{core}/mem", os.O_RDONLY),
        "stat": lambda: os.stat("/etc/passwd"),
        "list": lambda: os.listdir("/"),
        "unlink": lambda: os.unlink("/tmp/hmk-attack"),
        "chdir": lambda: os.chdir("/"),
        "mount": raw(165, 0, 0, 0, 0, 0),
        "socket": raw(41, 1, 1, 0),
        "internet socket": raw(41, 2, 1, 0),
        "socketpair": raw(53, 1, 1, 0, ctypes.addressof(memory)),
        "connect": raw(42, 0, ctypes.addressof(path), 2),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "execveat": raw(322, -100, ctypes.addressof(path), 0, 0, 0),
        "fork": fork_and_report,
        "vfork": raw(58),
        "clone a process sharing memory": raw(56, 0x4111, 0),
        "clone a thread in a new user namespace": raw(56, 0x3D0F00 | 0x10000000, 0),
        "ptrace": raw(101, 16, victim, 0, 0),
        "read memory of the core": raw(310, core, address, 1, address, 1, 0),
        "write memory of the victim": raw(311, victim, address, 1, address, 1, 0),
        "kill": lambda: os.kill(victim, signal.SIGKILL),
        "kill with signal 0": lambda: os.kill(core, 0),
        "tkill": raw(200, victim, 9),
        "tgkill": raw(234, victim, victim, 9),
        "queue a signal": raw(129, victim, 9, address),
        "pidfd": lambda: os.pidfd_open(victim),
        "affinity of the victim": lambda: os.sched_setaffinity(victim, [0]),
        "priority of the victim": raw(141, 0, victim, 5),
        "limits of the victim": raw(302, victim, 7, 0, address),
        "raise own limits": raw(302, 0, 7, address, 0),
        "map executable": checked(lambda: libc.mmap(0, 4096, 5, anonymous, 2**64 - 1, 0)),
        "map descriptor executable": checked(lambda: libc.mmap(0, 4096, 4, mmap.MAP_PRIVATE, page, 0)),
        "make executable": checked(lambda: libc.mprotect(ctypes.addressof(memory) & ~4095, 4096, 7)),
        "pkey_mprotect": raw(329, ctypes.addressof(memory) & ~4095, 4096, 7, -1),
        "io_uring": raw(425, 1, address),
        "bpf": raw(321, 0, address, 8),
        "userfaultfd": raw(323, 0),
        "perf_event_open": raw(298, address, 0, -1, -1, 0),
        "keyctl": raw(250, 0, -3, 0),
        "memfd_create": lambda: os.memfd_create("attack"),
        "requeue waiters": raw(202, address, 3, 1, 1, address),
        "become root": lambda: os.setresuid(0, 0, 0),
        "prctl dumpable": raw(157, 4, 1),
        "forget the death signal": raw(157, 1, 0),
        "seal": raw(72, page, 1033, 1),
        "unshare": raw(272, 0x10000000),
        "chroot": lambda: os.chroot("/"),
        "ioctl": raw(16, 0, 0x5412, address),
        "setns": raw(308, page, 0),
    }


def attempt_all(core: int, victim: int, page: int) -> dict[str, str]:
    return {name: outcome(attempt) for name, attempt in attacks(core, victim, page).items()}
