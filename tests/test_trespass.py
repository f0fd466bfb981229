"""What a hostile client cannot do with what it was given, nor without: descriptors, other processes, other names.

Each attempt must be refused by the host, or harm nobody: afterwards the service still answers others rightly.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corekernel._dispatcher import ffi
from corekernel.errors import CallError
from corekernel.shared import Frames
from shim.client import System
from tests.attacker import Body, Forger, bound_links, result_of, stranger, unharmed
from tests.processes import Facts, Tell, until
from tests.systems import Box, Keeps


@pytest.fixture
def box(kept: Keeps) -> Box:
    """A system to attack."""
    return kept()


# ---- descriptors


def descriptors(system: System) -> dict[str, int]:
    """One descriptor of each kind that a client gets."""
    ask = system.attachment.ask
    opened, frames = ask({"do": "open", "service": "echo", "after": -1})
    generation = opened["generation"]
    ask({"do": "bind", "services": {"echo": {"generation": generation, "slots": [4000]}}})
    _, buffer = ask({"do": "buffer", "service": "echo", "generation": generation, "slot": 4000, "size": 64 << 10})
    _, token = ask({"do": "token", "object": "processes"})
    return {"frames": frames[0], "buffer": buffer[0], "token": token[0]}


def refusal(attempt: Callable[[], object]) -> str:
    """The name of the host's error, or "done"."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except ValueError as error:
        return f"ValueError: {error}"
    return "done"


def libc_call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(argument) for argument in arguments]
    if getattr(libc, name)(*words) == -1:
        raise OSError(ctypes.get_errno(), name)


def tamperings(fd: int) -> dict[str, Callable[[], object]]:
    """What a holder may try on a descriptor."""
    keep_size, punch = 1, 2
    return {
        "truncate": lambda: os.ftruncate(fd, 4096),
        "grow": lambda: os.ftruncate(fd, 1 << 30),
        "extend": lambda: libc_call("fallocate", fd, 0, 0, 1 << 30),
        "seal write": lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        "seal future write": lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0x10),
        "chmod": lambda: os.fchmod(fd, 0o777),
        "chown": lambda: os.fchown(fd, os.getuid(), -1),
        "reopen": lambda: os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR)),
        "punch": lambda: libc_call("fallocate", fd, keep_size | punch, 0, 4096),
        "write": lambda: os.pwrite(fd, b"\0", 0),
        "map writable": lambda: mmap.mmap(fd, 4096).close(),
        "map writable and executable": lambda: mmap.mmap(fd, 4096, prot=7).close(),
        "make a read-only mapping writable": lambda: reprotect(fd),
    }


def reprotect(fd: int) -> None:
    memory = mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
    libc_call("mprotect", address, 4096, mmap.PROT_READ | mmap.PROT_WRITE)


def tampers(system: System, tell: Tell) -> dict[str, dict[str, str]]:
    return {
        kind: {name: refusal(attempt) for name, attempt in tamperings(fd).items()}
        for kind, fd in descriptors(system).items()
    }


ALWAYS_REFUSED = (
    "truncate", "grow", "extend", "seal write", "seal future write", "chmod", "chown", "reopen",
)  # fmt: skip
REFUSED_ON_A_TOKEN = (
    "punch", "write", "map writable", "map writable and executable", "make a read-only mapping writable",
)  # fmt: skip


def test_no_descriptor_can_be_resized_sealed_reopened_or_taken_over(box: Box) -> None:
    with unharmed(box):
        tried = result_of(box, tampers)
    for kind, results in tried.items():
        assert {name: results[name] for name in ALWAYS_REFUSED if results[name] == "done"} == {}, kind
    assert {name: tried["token"][name] for name in REFUSED_ON_A_TOKEN if tried["token"][name] == "done"} == {}


def punches(system: System, tell: Tell) -> list[str]:
    """Punches its frames away between calls and under a running one; each call gets an answer."""
    _, links = bound_links(system, "echo", 2)
    fd = descriptors(system)["frames"]
    forgers = list(map(Forger, links))
    ends = []
    for round_ in range(20):
        for forger in forgers:
            forger.request(operation=2)
        libc_call("fallocate", fd, 3, 0, Frames.SIZE)
        for forger in forgers:
            forger.request(operation=round_ % 2 + 1)
            ends.append("none" if forger.answer() is None else "answered")
    return ends


def test_punched_frames_read_as_zero_and_the_service_goes_on(box: Box) -> None:
    with unharmed(box):
        assert set(result_of(box, punches)) == {"answered"}


def trespasses(pid: int) -> Body:
    """Goes for the service's process itself."""

    def body(system: System, tell: Tell) -> dict[str, str]:
        word = ffi.new("uint64_t[2]")
        vector = int(ffi.cast("uintptr_t", word))
        word[0], word[1] = vector, 16
        return {
            "memory file": refusal(lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))),
            "maps": refusal(lambda: Path(f"/proc/{pid}/maps").read_text()),
            "descriptors": refusal(lambda: os.listdir(f"/proc/{pid}/fd")),
            "ptrace": refusal(lambda: libc_call("ptrace", 0x4206, pid, 0, 0)),
            "process_vm_writev": refusal(lambda: libc_call("process_vm_writev", pid, vector, 1, vector, 1, 0)),
            "pidfd_getfd": refusal(lambda: libc_call("syscall", 438, os.pidfd_open(pid), 4, 0)),
            "prlimit": refusal(lambda: libc_call("prlimit", pid, 7, 0, vector)),
            "affinity": refusal(lambda: os.sched_setaffinity(pid, {0})),
            "renice": refusal(lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)),
            **{f"signal {n}": refusal(lambda n=n: os.kill(pid, n)) for n in (0, 9, 19, 36)},  # type: ignore[misc]
        }

    return body


def test_no_client_can_trace_signal_or_write_to_a_service(box: Box) -> None:
    for service in ("echo", "core"):
        pid = box.process(service)["pid"]
        with unharmed(box, ("echo",)):
            tried = result_of(box, trespasses(pid))
        assert {name: end for name, end in tried.items() if end == "done"} == {}, service


# ---- the channel


def claims_to_be_another(system: System, tell: Tell) -> dict[str, Any]:
    """Says it is somebody else in every request that a client may make."""
    ask = system.attachment.ask
    other = {"client": 1, "uid": 0, "pid": 1, "owner": True, "trusted": True}
    opened, _ = ask({"do": "open", "service": "echo", "after": -1, **other})
    ask({"do": "bind", "services": {"echo": {"generation": opened["generation"], "slots": [0], **other}}, **other})
    refused = {}
    for what in ("status", "statistics", "trace", "observe", "logs", "input", "run", "result", "down"):
        try:
            ask({"do": what, "service": "echo", **other})
            refused[what] = "done"
        except CallError as error:
            refused[what] = type(error).__name__
    who = system.client("echo").whoami()
    return {"refused": refused, "who": [who.client, who.uid], "truth": [system.pid, os.getuid()]}


def test_a_client_is_who_the_host_says_whatever_it_claims(box: Box) -> None:
    found = result_of(box, claims_to_be_another)
    assert found["who"] == found["truth"]
    assert {what for what, end in found["refused"].items() if end != "Denied"} == set()


WRONG_SLOTS: tuple[Any, ...] = (7, [-1], [4096], [[]], list(range(257)))


def malformed(system: System, tell: Tell) -> int:
    """Requests of every wrong shape; then a right one."""
    requests: list[Facts] = [
        {}, {"do": None}, {"do": "attach"}, {"do": "open"}, {"do": "open", "service": None},
        {"do": "open", "service": "echo", "after": "x"},
        {"do": "bind"}, {"do": "bind", "services": {}}, {"do": "bind", "services": ["echo"]},
        {"do": "bind", "services": {"echo": 1}},
        *({"do": "bind", "services": {"echo": {"generation": 1, "slots": slots}}} for slots in WRONG_SLOTS),
        {"do": "buffer", "service": "echo", "generation": 1, "slot": 9, "size": 4096},
        {"do": "buffer", "service": "echo", "generation": 1, "slot": 0, "size": 1},
        {"do": "buffer", "service": "echo", "generation": 1, "slot": 0, "size": -4096},
        {"do": "buffer", "service": "echo", "generation": 1, "slot": 0, "size": 1 << 40},
        {"do": "token", "object": "echo.pool"}, {"do": "x" * 60000}, {"do": "open", "service": "core.pool"},
    ]  # fmt: skip
    ask = system.attachment.ask
    ask({"do": "open", "service": "echo", "after": -1})
    refused = 0
    for request in requests:
        try:
            ask(request, [0, 1, 2])
        except CallError:
            refused += 1
    assert refused == len(requests)
    return len(system.client("echo").echo(b"still here"))


def test_malformed_requests_are_refused_and_cost_nothing(box: Box) -> None:
    core = box.process("core")["pid"]
    held = len(os.listdir(f"/proc/{core}/fd"))
    with unharmed(box, ("echo",)):
        assert result_of(box, malformed) == 10
    until(lambda: len(os.listdir(f"/proc/{core}/fd")) <= held, "the core closes what it was sent")


# ---- who is not isolated


def tells_its_number(system: System, tell: Tell) -> None:
    tell(system.pid)
    tell.pause()


def test_a_client_with_the_user_id_of_the_core_is_shown_as_unconfined(box: Box) -> None:
    number = stranger(box, tells_its_number).hear()
    own = box.attach().pid
    shown = {client["number"]: client["unconfined"] for client in box.status()["clients"]}
    assert shown == {number: False, own: True}
