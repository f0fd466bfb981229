"""Hostile clients against a live system: whatever they do, the service lives, and the others' calls are right.

Each attacker is a process of its own under its own user id, with all that a client can get: the frames of its
services, read-write, its buffers, a read-only token, its channel. Beside it a second client makes verified calls.
Afterwards the services are of the same generation, and every stack that the attacker held comes back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shim
from corekernel import boot
from corekernel._dispatcher import ffi, lib
from corekernel.channel import Channel, ChannelError
from corekernel.dispatcher import SLOT_BYTES, Frames
from corekernel.errors import CallError, HmkError, Status, TooBig
from shim.client import System
from tests.attacker import (
    FUTEX_REQUEUE,
    FUTEX_WAIT,
    FUTEX_WAKE,
    Body,
    ClientProcess,
    Facts,
    Forger,
    Talk,
    booted,
    bound_links,
    echo_verified,
    eventually,
    facts_of,
    futex,
    pool_of,
    process_of,
    scribble,
)

VICTIMS = ("echo", "cecho")
SLOTS = 12


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all attacks: each must leave it as it was."""
    with booted(tmp_path_factory.mktemp("attacks")) as running:
        yield running


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


@contextlib.contextmanager
def unharmed(system: System, services: tuple[str, ...] = VICTIMS) -> Iterator[None]:
    """The block must not cost the services a life, a stack, or the others a right answer."""
    generations = {name: facts_of(system, name)["generation"] for name in services}
    pids = {name: process_of(system, name)["pid"] for name in services}
    with ClientProcess(system, echo_verified(services)) as good:
        good.hear()
        bound = {name: pool_of(system, name)["bound"] for name in services}
        yield
        for name in services:
            assert facts_of(system, name)["generation"] == generations[name]
            eventually(lambda name=name: pool_of(system, name)["bound"] == bound[name])  # type: ignore[misc]
        assert good.finish() > 0
    for name in services:
        eventually(lambda name=name: whole(pool_of(system, name), pids[name]))  # type: ignore[misc]
        eventually(lambda name=name: "frames." not in foreign_maps(system, name))  # type: ignore[misc]


def whole(pool: dict[str, int], pid: int) -> bool:
    """Every carrier is a thread, and every thread but the control thread a carrier that the pool knows of."""
    return pool["bound"] + pool["free"] + pool["reserved"] == threads_of(pid) - 1


def foreign_maps(system: System, service: str) -> str:
    """The service's mappings of frames of clients that no longer exist."""
    living = {f":frames.{client['number']}." for client in system.ask("status")["clients"]}
    services = range(1, 60)
    living |= {f":frames.{number}." for number in (0, *services)}
    maps = Path(f"/proc/{process_of(system, service)['pid']}/maps").read_text()
    return "\n".join(line for line in maps.splitlines() if not any(mark in line for mark in living))


# ---- scribbling


def scribbler(seed: int) -> Body:
    """Binds slots and buffers, calls on some of them, and writes over all of it."""

    def body(system: System, talk: Talk) -> None:
        frames = []
        for service in VICTIMS:
            session, links = bound_links(system, service, SLOTS)
            system.attachment.buffer(session, links[0], 64 << 10)
            frames.append(memoryview(session.frames.mapping.memory)[: SLOTS * SLOT_BYTES])
            bulk = links[0].bulk
            assert bulk is not None
            for forger in map(Forger, links):
                threading.Thread(target=keep_calling, args=(system, service), daemon=True).start()
                forger.request(operation=2)
        talk.say(scribbling=True)
        chance = random.Random(seed)
        while True:
            for memory in frames:
                scribble(memory, chance, 200)
            for forger in map(Forger, links):
                forger.wake()
            os.sched_yield()

    return body


def keep_calling(system: System, service: str) -> None:
    """The attacker's own calls run meanwhile; how they end is its own affair."""
    client = system.client(service, timeout=0.05)
    while True:
        with contextlib.suppress(HmkError):
            client.echo(b"mine" * 2000)


def under_scribbling(system: System, seed: int, calls: int) -> None:
    """Let a scribbler loose until a verified client has made so many calls beside it."""
    with unharmed(system), ClientProcess(system, scribbler(seed)) as attacker:
        attacker.hear()
        beside(system, calls)
        attacker.kill()


def beside(system: System, calls: int) -> None:
    """So many verified calls to each victim, from this process."""
    for number in range(calls):
        data = number.to_bytes(8, "little") * (1 + number % 600)
        for service in VICTIMS:
            assert system.client(service).echo(data) == data


@pytest.mark.parametrize("seed", range(2))
def test_scribbling_over_everything_mapped_harms_only_the_scribbler(system: System, seed: int) -> None:
    under_scribbling(system, seed, 1500)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_minute_of_scribbling_harms_only_the_scribblers(system: System) -> None:
    give_up = time.monotonic() + 60.0
    seed = 100
    while time.monotonic() < give_up:
        under_scribbling(system, seed, 4000)
        seed += 1


# ---- forged frames

FORGED_FIELDS: list[tuple[str, Facts, Status]] = [
    ("sequence not moved on", {"skip": 0}, Status.BAD_FRAME),
    ("sequence moved back", {"skip": -1}, Status.BAD_FRAME),
    ("sequence moved too far", {"skip": 2}, Status.BAD_FRAME),
    ("nine registers", {"registers": 9}, Status.BAD_FRAME),
    ("255 registers", {"registers": 255}, Status.BAD_FRAME),
    ("payload beyond the frame", {"length": 3585}, Status.BAD_FRAME),
    ("payload of 4 GiB", {"length": 2**32 - 1}, Status.BAD_FRAME),
    ("a buffer that there is not", {"flags": 1, "length": 1}, Status.BAD_FRAME),
    ("depth at its bound", {"depth": 8}, Status.TOO_DEEP),
    ("depth 255", {"depth": 255}, Status.TOO_DEEP),
]
UNKNOWN_OPERATIONS = [63, 64, 255, 256, 65535]


def forging(fields: Facts) -> Body:
    """One forged request on each victim; the result is the statuses of the replies."""

    def body(system: System, talk: Talk) -> list[int | None]:
        answers = []
        for service in VICTIMS:
            forger = Forger(bound_links(system, service, 1)[1][0])
            forger.request(**fields)
            answers.append(forger.answer())
        return answers

    return body


def result_of(system: System, body: Body) -> Any:
    """Run a client process to its end."""
    with ClientProcess(system, body) as process:
        return process.finish()


def forged(system: System) -> int:
    return sum(int(facts_of(system, service)["totals"]["forged"]) for service in VICTIMS)


@pytest.mark.parametrize(("fields", "status"), [case[1:] for case in FORGED_FIELDS], ids=[c[0] for c in FORGED_FIELDS])
def test_a_malformed_or_replayed_frame_is_refused_and_counted(system: System, fields: Facts, status: Status) -> None:
    before = forged(system)
    with unharmed(system):
        assert result_of(system, forging(fields)) == [status, status]
    assert forged(system) == before + len(VICTIMS)


@pytest.mark.parametrize("operation", UNKNOWN_OPERATIONS)
def test_an_operation_that_is_not_there_is_refused(system: System, operation: int) -> None:
    with unharmed(system):
        assert result_of(system, forging({"operation": operation})) == [Status.BAD_OPERATION] * 2


def test_a_payload_shorter_or_longer_than_its_registers_say_is_refused(system: System) -> None:
    with unharmed(system, ("echo",)):
        for length in (0, 1, 9, 11, 3584):
            fields = {"operation": 2, "registers": 1, "length": length}
            assert result_of(system, forging_argument(fields, 10)) == Status.BAD_FRAME


def forging_argument(fields: Facts, argument: int) -> Body:
    def body(system: System, talk: Talk) -> int | None:
        forger = Forger(bound_links(system, "echo", 1)[1][0])
        forger.leg.args[0] = argument
        forger.request(**fields)
        return forger.answer()

    return body


def phases_forged(system: System, talk: Talk) -> list[int]:
    """Every phase that is not the client's to write, while idle and while a handler runs; then a right call."""
    ends = []
    for service in VICTIMS:
        for phase in [p for p in range(16) if p != lib.HMK_PHASE_REQUEST]:
            for bits in (0, lib.HMK_SLEEP, lib.HMK_UNBOUND):
                _, links = bound_links(system, service, 2)
                idle, running = map(Forger, links)
                idle.request(phase=phase | bits)
                running.leg.args[0] = 3_000_000
                running.request(operation=4, registers=1)
                running.request(operation=4, phase=phase | bits, skip=0)
                idle.request()
                ends.append(idle.answer() is not None)
    return [ends.count(False)]


def test_phases_forged_while_idle_and_while_a_handler_runs_are_survived(system: System) -> None:
    with unharmed(system):
        assert result_of(system, phases_forged) == [0]


def test_a_slot_with_a_forged_phase_can_still_be_taken_back_for_others(tmp_path: Path) -> None:
    text = "[service.echo]\npool = { limit = 8, initial = 2, reserve = 1, low = 0, high = 8 }\n"
    with booted(tmp_path, text) as system, ClientProcess(system, holds_slots_forged) as attacker:
        attacker.hear()
        assert system.client("echo", timeout=10.0).echo(b"mine") == b"mine"


def holds_slots_forged(system: System, talk: Talk) -> None:
    """Binds all the stacks there are, and has every slot look as if it were in use."""
    forgers = [Forger(link) for link in bound_links(system, "echo", 7)[1]]
    phases = (2, 3, 4, 5, 6, 7, 15)
    for forger, phase in zip(forgers, phases, strict=True):
        forger.request(phase=phase)
    talk.say(held=True)
    talk.wait()


# ---- futexes


def requeuer(system: System, talk: Talk) -> None:
    """Moves every carrier that sleeps on its slots to a page of its own, and storms all words it maps."""
    own = mmap.mmap(-1, mmap.PAGESIZE)
    aside = int(ffi.cast("uintptr_t", ffi.from_buffer(own)))
    forgers = [Forger(link) for service in VICTIMS for link in bound_links(system, service, SLOTS)[1]]
    for forger in forgers:
        threading.Thread(target=storm, args=(forger.address,), daemon=True).start()
    moved = 0
    while moved < len(forgers):
        moved += sum(max(0, futex(f.address, FUTEX_REQUEUE, 0, 1 << 20, aside)) for f in forgers)
    talk.say(moved=moved)
    while True:
        for forger in forgers:
            futex(forger.address, FUTEX_REQUEUE, 0, 1 << 20, aside)


def storm(address: int) -> None:
    word = ffi.cast("uint32_t *", address)
    while True:
        futex(address, FUTEX_WAKE, 1 << 30)
        futex(address + 4, FUTEX_WAIT, word[1] + 1)


def test_carriers_requeued_to_a_private_page_come_back_when_their_client_dies(system: System) -> None:
    with unharmed(system), ClientProcess(system, requeuer) as attacker:
        assert attacker.hear()["moved"] >= 2 * SLOTS
        beside(system, 50)
        attacker.kill()


# ---- descriptors


def descriptors(system: System) -> dict[str, int]:
    """One descriptor of each kind that a client gets."""
    ask = system.attachment.ask
    opened, frames = ask({"do": "open", "service": "echo", "after": -1})
    where = {"service": "echo", "generation": opened["generation"]}
    ask({"do": "bind", **where, "slots": [4000]})
    _, buffer = ask({"do": "buffer", **where, "slot": 4000, "size": 64 << 10})
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
    import ctypes

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


def tampers(system: System, talk: Talk) -> dict[str, dict[str, str]]:
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


def test_no_descriptor_can_be_resized_sealed_reopened_or_taken_over(system: System) -> None:
    with unharmed(system):
        tried = result_of(system, tampers)
    for kind, results in tried.items():
        assert {name: results[name] for name in ALWAYS_REFUSED if results[name] == "done"} == {}, kind
    assert {name: tried["token"][name] for name in REFUSED_ON_A_TOKEN if tried["token"][name] == "done"} == {}


def punches(system: System, talk: Talk) -> list[str]:
    """Punches its frames away between calls and under a running one; each call gets an answer."""
    session, links = bound_links(system, "echo", 2)
    fd = descriptors(system)["frames"]
    forgers = list(map(Forger, links))
    ends = []
    for round_ in range(20):
        for forger in forgers:
            forger.request(operation=2)
        libc_call("fallocate", fd, 3, 0, Frames.SIZE)
        assert forgers[0].leg.state in (0, lib.HMK_SLEEP) or forgers[0].phase == lib.HMK_PHASE_REPLY
        for forger in forgers:
            forger.request(operation=round_ % 2 + 1)
            ends.append("none" if forger.answer() is None else "answered")
    return ends


def test_punched_frames_read_as_zero_and_the_service_goes_on(system: System) -> None:
    with unharmed(system):
        assert set(result_of(system, punches)) == {"answered"}


def trespasses(pid: int) -> Body:
    """Goes for the service's process itself."""

    def body(system: System, talk: Talk) -> dict[str, str]:
        word = ffi.new("uint64_t[2]")
        vector = int(ffi.cast("uintptr_t", word))
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


def test_no_client_can_trace_signal_or_write_to_a_service(system: System) -> None:
    for service in ("echo", "core"):
        pid = process_of(system, service)["pid"]
        with unharmed(system, ("echo",)):
            tried = result_of(system, trespasses(pid))
        assert {name: end for name, end in tried.items() if end == "done"} == {}, service


# ---- the channel


def claims_to_be_another(system: System, talk: Talk) -> dict[str, Any]:
    """Says it is somebody else in every request that a client may make."""
    ask = system.attachment.ask
    other = {"client": 1, "uid": 0, "pid": 1, "owner": True, "trusted": True}
    opened, _ = ask({"do": "open", "service": "echo", "after": -1, **other})
    ask({"do": "bind", "service": "echo", "generation": opened["generation"], "slots": [0], **other})
    refused = {}
    for what in ("status", "statistics", "trace", "observe", "logs", "input", "run", "result", "down"):
        try:
            ask({"do": what, "service": "echo", **other})
            refused[what] = "done"
        except CallError as error:
            refused[what] = type(error).__name__
    who = system.client("echo").whoami()
    return {"refused": refused, "who": [who.client, who.uid], "pid": system.pid}


def test_a_client_is_who_the_host_says_whatever_it_claims(system: System) -> None:
    with ClientProcess(system, claims_to_be_another) as attacker:
        found = attacker.finish()
        assert found["who"] == [found["pid"], attacker.uid]
    assert {what for what, end in found["refused"].items() if end != "Denied"} == set()


def malformed(system: System, talk: Talk) -> int:
    """Requests of every wrong shape; then a right one."""
    requests: list[Facts] = [
        {}, {"do": None}, {"do": "attach"}, {"do": "open"}, {"do": "open", "service": None},
        {"do": "open", "service": "echo", "after": "x"}, {"do": "open", "service": "echo", "after": 1e400 and 1e308},
        {"do": "bind"}, {"do": "bind", "service": "echo", "generation": 1, "slots": 7},
        {"do": "bind", "service": "echo", "generation": 1, "slots": [-1]},
        {"do": "bind", "service": "echo", "generation": 1, "slots": [4096]},
        {"do": "bind", "service": "echo", "generation": 1, "slots": [[]]},
        {"do": "bind", "service": "echo", "generation": 1, "slots": list(range(257))},
        {"do": "bind", "service": "echo", "generation": 99, "slots": [1]},
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


def test_malformed_requests_are_refused_and_cost_nothing(system: System) -> None:
    core = process_of(system, "core")["pid"]
    held = len(os.listdir(f"/proc/{core}/fd"))
    with unharmed(system, ("echo",)):
        assert result_of(system, malformed) == 10
    eventually(lambda: len(os.listdir(f"/proc/{core}/fd")) <= held)


# ---- exhausting


def binds_everything(system: System, talk: Talk) -> dict[str, int]:
    """Opens every service, binds every slot of one, and takes buffers to the limit."""
    for service in system.services:
        system.attachment.session(service)
    _, links = bound_links(system, "cecho", 4096)
    session = system.attachment.session("cecho")
    taken = 0
    try:
        for link in links:
            system.attachment.buffer(session, link, 16 << 20)
            taken += 1
    except TooBig:
        pass
    talk.say(holding=True)
    talk.wait()
    return {"slots": len(links), "buffers": taken}


def answers_in_time(system: System, seconds: float = 10.0) -> None:
    """The core and a service answer somebody else, each by a deadline."""
    give_up = time.monotonic() + seconds
    with ClientProcess(system, one_of_everything) as good:
        assert good.finish(seconds) == "all right"
    assert system.ask("status")["name"]
    assert time.monotonic() < give_up


def one_of_everything(system: System, talk: Talk) -> str:
    echo = system.client("echo", timeout=5.0)
    assert echo.echo(b"small") == b"small" and echo.echo(b"large" * 9000) == b"large" * 9000
    assert system.pid in json.loads(system.procmgr.list())
    assert system.pid in {record.pid for record in system.processes()}
    return "all right"


def test_a_client_that_takes_all_it_can_get_keeps_nobody_waiting(system: System) -> None:
    objects = system.ask("status")["objects"]
    with unharmed(system, ("cecho",)), ClientProcess(system, binds_everything) as attacker:
        attacker.hear(60.0)
        answers_in_time(system)
        assert attacker.finish() == {"slots": 4096, "buffers": 16}
    left = eventually(lambda: (found := system.ask("status")["objects"])["buffer"] == objects.get("buffer") or found)
    assert left is True or left.get("buffer", {}).get("bytes", 0) == objects.get("buffer", {}).get("bytes", 0)


def asks_for_many_small_buffers(system: System, talk: Talk) -> int:
    session, links = bound_links(system, "echo", 64)
    taken = 0
    request = {"do": "buffer", "service": "echo", "generation": session.generation, "size": 4096}
    try:
        for number in range(70_000):
            _, fds = system.attachment.ask({**request, "slot": links[number % 64].index})
            os.close(fds[0])
            taken += 1
    except CallError:
        pass
    talk.say(taken=taken)
    talk.wait()
    return taken


def test_small_buffers_do_not_use_up_the_descriptors_of_the_core(system: System) -> None:
    with unharmed(system, ("echo",)), ClientProcess(system, asks_for_many_small_buffers) as attacker:
        assert attacker.hear(50.0)["taken"] >= 64
        answers_in_time(system)
        attacker.finish()


def floods(system: System, talk: Talk) -> str:
    """Thousands of requests at once, and never reads an answer."""
    channel = system.attachment.channel
    talk.say(flooding=True)
    try:
        for serial in range(20_000):
            channel.send({"do": "open", "service": "echo", "after": -1, "serial": serial})
    except ChannelError:
        return "cut off"
    return "let go on"


def test_a_client_that_never_reads_its_answers_is_cut_off(system: System) -> None:
    with unharmed(system, ("echo",)), ClientProcess(system, floods) as attacker:
        attacker.hear()
        answers_in_time(system)
        assert attacker.finish() == "cut off"


def opens_again_and_again(system: System, talk: Talk) -> int:
    for _ in range(2000):
        _, fds = system.attachment.ask({"do": "open", "service": "echo", "after": -1})
        os.close(fds[0])
    talk.say(opened=True)
    talk.wait()
    return 2000


def test_repeated_grants_of_one_object_are_recorded_once(system: System) -> None:
    before = system.ask("status")["objects"]["frames"]
    with ClientProcess(system, opens_again_and_again) as attacker:
        attacker.hear()
        during = system.ask("status")["objects"]["frames"]
    assert during["grants"] - before["grants"] < 20


def waits_for_what_never_comes(system: System, talk: Talk) -> str:
    """Asks to be told of generations to come, thousands of times."""
    channel = system.attachment.channel
    try:
        for serial in range(5000):
            channel.send({"do": "open", "service": "echo", "after": 1 << 40, "serial": serial})
            if serial % 50 == 49:
                while channel.recv(5.0)[0].get("serial") != serial:
                    pass
    except TimeoutError:
        return "all are remembered"
    except ChannelError:
        return "cut off"
    return "refused"


def test_requests_for_generations_to_come_are_not_remembered_without_bound(system: System) -> None:
    assert result_of(system, waits_for_what_never_comes) in ("refused", "cut off")
    answers_in_time(system)


def attaches_often(count: int) -> Body:
    def body(system: System, talk: Talk) -> int:
        attached: list[System] = []
        for _ in range(count):
            try:
                attached.append(shim.attach(_name))
                attached[-1].attachment.ask({"do": "open", "service": "echo", "after": -1})
            except HmkError:
                break
        talk.say(attached=len(attached))
        talk.wait()
        return len(attached)

    _name = ""

    def named(system: System, talk: Talk) -> int:
        nonlocal _name
        _name = system.attachment.name or _name
        return body(system, talk)

    return named


def connects(name: str, count: int) -> Body:
    """Attaches as often as it is let, under names of its choice."""

    def body(system: System, talk: Talk) -> int:
        channels: list[Channel] = []
        for _ in range(count):
            try:
                channel = boot.connect(name)
                channel.send({"do": "attach", "abi": 1, "name": "\U0001f600" * 32})
                reply, _ = channel.recv(10.0)
            except (ChannelError, boot.BootError):
                break
            if "error" in reply:
                break
            channels.append(channel)
        talk.say(attached=len(channels))
        talk.wait()
        return len(channels)

    return body


@pytest.mark.parametrize("count", [100, 1200])
def test_many_attachments_of_one_process_leave_room_for_others(system: System, count: int) -> None:
    name = system.ask("status")["name"]
    before = system.ask("status")["clients_total"]
    with ClientProcess(system, connects(name, count)) as attacker:
        assert attacker.hear(50.0)["attached"] >= 100 or count > 100
        answers_in_time(system)
    eventually(lambda: system.ask("status")["clients_total"] == before)


# ---- who is not isolated


def test_a_client_with_the_core_s_own_user_id_is_shown_as_unconfined(system: System) -> None:
    with ClientProcess(system, lambda system, talk: (talk.say(up=system.pid), talk.wait())) as client:
        number = client.hear()["up"]
        shown = {c["number"]: c for c in system.ask("status")["clients"]}
        assert shown[system.pid]["unconfined"] is True
        assert shown[number]["unconfined"] is False and shown[number]["uid"] == client.uid


def test_an_attacker_stopped_in_the_middle_of_a_call_stalls_nobody(system: System) -> None:
    with unharmed(system), ClientProcess(system, stops_while_calling) as attacker:
        attacker.hear()
        eventually(lambda: Path(f"/proc/{attacker.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
        beside(system, 50)
        attacker.kill()


def stops_while_calling(system: System, talk: Talk) -> None:
    forgers = [Forger(link) for service in VICTIMS for link in bound_links(system, service, SLOTS)[1]]
    for forger in forgers:
        forger.request(operation=2)
    talk.say(stopping=True)
    os.kill(os.getpid(), signal.SIGSTOP)
