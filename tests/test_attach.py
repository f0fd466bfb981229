"""The way in: who may attach, what becomes of garbage on the socket, and what separates the processes of a system."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shim
from corekernel import boot, composition
from corekernel.attachment import Detached
from corekernel.boot import BootError
from corekernel.channel import MAX_MESSAGE_BYTES, Channel, ChannelClosed, ChannelError
from corekernel.dispatcher import ABI_VERSION
from tests.conftest import Boots, Box, Child, Tell, raw_connection, status_of, system_name, until
from tests.test_confine import NOBODY, as_root, become_nobody

ROOT = Path(__file__).resolve().parent.parent
REQUESTS = (
    "attach", "open", "bind", "buffer", "token", "status", "statistics", "trace", "observe", "logs", "input", "run",
    "result", "nonsense",
)  # fmt: skip
FIELDS = (
    "service", "generation", "after", "slots", "slot", "size", "object", "abi", "name", "argv", "env", "cwd", "number",
    "text", "end", "limit", "operations", "trace", "serial",
)  # fmt: skip


def greeted(box: Box) -> Channel:
    """A connection that has said who it is and nothing else."""
    channel = raw_connection(box.name)
    channel.send({"do": "attach", "abi": ABI_VERSION, "name": "raw"})
    assert "error" not in channel.recv(10)[0]
    return channel


def answer(channel: Channel, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request; descriptors that come along are closed."""
    channel.send({**request, "serial": 77})
    reply, fds = channel.recv(10)
    for fd in fds:
        os.close(fd)
    assert reply["serial"] == 77
    return reply


def lives(box: Box) -> None:
    """The core answers, and calls work."""
    system = box.attach()
    assert system.client("echo").echo(b"still here") == b"still here"
    system.close()


def as_nobody(body: Callable[[], Any]) -> Any:
    """What `body` returns in a process of another user."""

    def drop(tell: Tell) -> Any:
        become_nobody()
        return body()

    child = Child(drop)
    try:
        return child.result()
    finally:
        child.close()


def refusal(attempt: Callable[[], Any]) -> str:
    """The error an attempt ends with."""
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "allowed"


# ---- who may attach


def test_another_user_is_refused_and_told_why(shared: Box) -> None:
    name = shared.name
    assert as_nobody(lambda: refusal(lambda: shim.attach(name))) == (
        f"Detached: user {NOBODY} may not attach here" if as_root else "allowed"
    )
    lives(shared)


def test_another_user_may_attach_where_the_composition_says_so_but_is_no_owner(system: Boots) -> None:
    box = system(text=f"[system]\nattach = [{NOBODY}, {os.getuid()}]\n")
    name = box.name

    def body() -> list[Any]:
        mine = shim.attach(name, 15.0)
        who = mine.client("echo").whoami()
        requests = ("status", "logs", "observe", "input", "run", "result", "down", "statistics", "trace")
        return [who.uid, *(refusal(lambda what=what: mine.ask(what, number=1, text="x")) for what in requests)]  # type: ignore[misc]

    uid, *refusals = as_nobody(body)
    assert uid == NOBODY
    assert all("only the owner" in text for text in refusals)
    assert next(c for c in shim.attach(name).ask("status")["clients"] if c["uid"] == os.getuid())


def test_a_system_of_a_stranger_that_squats_a_name_is_not_trusted() -> None:
    name = system_name()

    def squat(tell: Tell) -> None:
        become_nobody()
        sock = boot.reserve(name)
        tell("squatting")
        tell.pause()
        sock.close()

    child = Child(squat)
    try:
        assert child.hear() == "squatting"
        with pytest.raises(BootError, match=f"held by user {NOBODY}, which is neither root nor you"):
            shim.attach(name)
        with pytest.raises(BootError, match="is up already"):
            boot.launch(name, composition.load("default"))
    finally:
        child.close()


def test_a_name_nobody_has_is_said_to_be_down() -> None:
    with pytest.raises(BootError, match="no system named"):
        shim.attach(system_name())


def test_a_second_system_of_the_same_name_is_refused(shared: Box) -> None:
    with pytest.raises(BootError, match="is up already"):
        boot.launch(shared.name, composition.load("default"))
    lives(shared)


def test_of_two_that_boot_one_name_at_once_exactly_one_comes_up() -> None:
    name = system_name()

    def body(tell: Tell) -> str:
        try:
            boot.launch(name, composition.load("default"))
        except BootError:
            return "refused"
        tell.pause()
        return "up"

    children = [Child(body) for _ in range(3)]
    try:
        until(lambda: refusal(lambda: shim.attach(name).close()) == "allowed", "one is up")
        for child in children:
            child.go()
        assert sorted(child.result() for child in children) == ["refused", "refused", "up"]
    finally:
        for child in children:
            child.close()


# ---- garbage


@pytest.mark.parametrize(
    "packet",
    [b"\0", b"{}", b"[]", b"null", b"{", b'"x"', b"\xff" * 100, b"[" * 5000, b'{"do":' + b"[" * 40 + b"]" * 40 + b"}",
     b'{"do":"attach"}', b'{"do":"attach","abi":"x"}', b'{"do":null}', b'{"do":{"a":[]}}', b'{"do":"status"}',
     b'{"serial":"x"}', b'{"do":"open","service":NaN}', b"x" * MAX_MESSAGE_BYTES, b"x" * (MAX_MESSAGE_BYTES + 1000)],
    ids=lambda packet: repr(packet[:12]),
)  # fmt: skip
def test_garbage_before_the_greeting_is_answered_and_forgotten(shared: Box, packet: bytes) -> None:
    with raw_connection(shared.name) as channel:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=os.dup(channel.fileno()))
        with raw:
            raw.send(packet)
        assert "error" in channel.recv(10)[0]
    lives(shared)


def test_descriptors_nobody_asked_for_are_closed(shared: Box) -> None:
    core = Path(f"/proc/{shared.status()['core_pid']}/fd")
    with greeted(shared) as channel:
        before = len(list(core.iterdir()))
        for _ in range(50):
            fd = os.memfd_create("unasked")
            channel.send({"do": "nonsense"}, [fd] * 10)
            os.close(fd)
            channel.recv(10)
        until(lambda: len(list(core.iterdir())) <= before + 2, "the core has closed them")
    lives(shared)


def test_too_many_descriptors_at_once_are_closed_too(shared: Box) -> None:
    core = Path(f"/proc/{shared.status()['core_pid']}/fd")
    with greeted(shared) as channel:
        before = len(list(core.iterdir()))
        fd = os.memfd_create("unasked")
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=os.dup(channel.fileno()))
        with raw:
            rights = array.array("i", [fd] * 200)
            raw.sendmsg([b'{"do":"nonsense"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os.close(fd)
        assert "error" in channel.recv(10)[0]
        until(lambda: len(list(core.iterdir())) <= before + 2, "the core has closed them")
    lives(shared)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
    | st.sampled_from(["echo", "core", "procmgr", "processes", "/bin/true"]) | st.integers(0, 5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
requests = st.fixed_dictionaries({"do": st.sampled_from(REQUESTS) | values}, optional=dict.fromkeys(FIELDS, values))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(requests, min_size=1, max_size=4))
def test_no_request_whatever_is_in_it_harms_the_core(shared: Box, batch: list[dict[str, Any]]) -> None:
    with greeted(shared) as channel:
        waits = 0
        for request in batch:
            try:
                channel.send({**request, "serial": 5})
            except ChannelError:
                continue  # too big to be sent at all
            waits += request["do"] == "result"
            if request["do"] != "result":
                until(lambda: channel.recv_nowait() is not None, f"there is an answer to {request}", 2.0)
    core = shared.status()
    assert core["name"] == shared.name


def test_the_core_is_unharmed_after_all_that(shared: Box) -> None:
    lives(shared)
    assert "Traceback" not in shared.log()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200))
def test_no_packet_harms_the_core(shared: Box, packet: bytes) -> None:
    with raw_connection(shared.name) as channel:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=os.dup(channel.fileno()))
        with raw:
            raw.send(packet)
        channel.recv(10)
    assert shared.status()["name"] == shared.name


@pytest.mark.parametrize(
    "request_",
    [
        {"do": "open"},
        {"do": "open", "service": ["echo"]},
        {"do": "open", "service": "echo", "after": "x"},
        {"do": "open", "service": "echo", "after": None},
        {"do": "bind", "service": "echo", "generation": 1, "slots": 5},
        {"do": "bind", "service": "echo", "generation": 1, "slots": [-1]},
        {"do": "bind", "service": "echo", "generation": 1, "slots": [4096]},
        {"do": "bind", "service": "echo", "generation": 1, "slots": list(range(300))},
        {"do": "bind", "service": "echo", "generation": 99, "slots": [0]},
        {"do": "bind", "service": "echo", "slots": [0]},
        {"do": "buffer", "service": "echo", "generation": 1, "slot": 0, "size": -4096},
        {"do": "buffer", "service": "echo", "generation": 1, "slot": 0, "size": 1 << 40},
        {"do": "buffer", "service": "echo", "generation": 1, "slot": 0, "size": 4097},
        {"do": "buffer", "service": "echo", "generation": 1, "slot": 4000, "size": 4096},
        {"do": "token", "object": "frames"},
        {"do": "token"},
        {"do": "run", "argv": ["/bin/true"], "env": [], "cwd": "/"},
        {"do": "run", "argv": ["/bin/true"], "env": {}, "cwd": "/"},
        {"do": "run", "argv": [], "env": {}, "cwd": "/"},
        {"do": "statistics", "service": "nobody"},
        {"do": "trace", "service": "echo", "limit": "x"},
        {"do": "logs", "after": "x"},
        {"do": "input"},
        {"do": "result", "number": "x"},
        {"do": "attach", "abi": ABI_VERSION},
    ],
    ids=lambda request: json.dumps(request)[:60],
)
def test_a_wrong_request_gets_an_error_and_changes_nothing(shared: Box, request_: dict[str, Any]) -> None:
    with greeted(shared) as channel:
        if request_["do"] in ("bind", "buffer"):
            assert "generation" in answer(channel, {"do": "open", "service": "echo"})
        before = shared.bound("echo")
        assert "error" in answer(channel, request_)
        assert shared.bound("echo") == before
        assert "generation" in answer(channel, {"do": "open", "service": "echo"})


def test_a_wrong_request_while_a_service_restarts_keeps_nobody_from_it(bench: Box) -> None:
    with greeted(bench) as channel, bench.frozen("echo"):
        bench.kill("echo")
        channel.send({"do": "open", "service": "echo", "after": "x", "serial": 1})
        bench.recovered("echo", 1)
        lives(bench)


def test_one_slot_asked_for_many_times_takes_one_stack(shared: Box) -> None:
    with greeted(shared) as channel:
        generation = answer(channel, {"do": "open", "service": "echo"})["generation"]
        request = {"do": "bind", "service": "echo", "generation": generation, "slots": [5] * 100 + [6]}
        assert answer(channel, request)["ok"]
        assert shared.bound("echo") == 2
        assert answer(channel, request)["ok"]
        assert shared.bound("echo") == 2


def test_a_client_that_does_not_read_its_replies_is_cut_off_alone(shared: Box) -> None:
    with greeted(shared) as channel:
        cut = False
        for _ in range(20_000):
            try:
                channel.send_nowait({"do": "nonsense", "text": "x" * 500})
            except ChannelClosed:
                cut = True
                break
            except ChannelError:
                lives(shared)
        until(lambda: shared.status()["clients"] == [], "it is cut off")
        assert cut or refusal(lambda: [channel.recv(1) for _ in range(100_000)]).startswith("ChannelClosed")
    lives(shared)


def test_connections_that_say_nothing_keep_nobody_out(shared: Box) -> None:
    silent = [raw_connection(shared.name) for _ in range(200)]
    lives(shared)
    for channel in silent:
        channel.close()
    lives(shared)


def test_many_attach_at_once(shared: Box) -> None:
    failures: list[Exception] = []

    def body() -> None:
        try:
            for _ in range(10):
                with shim.attach(shared.name, 15.0) as system:
                    assert system.client("echo").echo(b"x") == b"x"
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=body) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# ---- what separates the processes of a system


def test_services_run_apart_with_no_privilege(bench: Box) -> None:
    processes = [p for p in bench.status()["processes"] if p["name"] != "core"]
    shown = {p["name"]: status_of(p["pid"]) for p in processes}
    assert len(shown) == 11
    for status in shown.values():
        assert status["Seccomp"] == "2"
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0
    if as_root:
        uids = {status["Uid"].split()[0] for status in shown.values()}
        assert len(uids) == len(shown) and "0" not in uids
        assert all(len(set(status["Uid"].split()) | set(status["Gid"].split())) == 1 for status in shown.values())
        assert all(status["Groups"] == "" for status in shown.values())
        assert {str(p["uid"]) for p in processes} == uids
        own = os.readlink("/proc/self/ns/net")
        assert all(os.readlink(f"/proc/{p['pid']}/ns/net") != own for p in processes)


def test_a_service_keeps_its_user_id_and_its_confinement_across_a_restart(bench: Box) -> None:
    before = status_of(bench.pid("echo"))
    bench.recovered("echo", bench.kill("echo"))
    after = status_of(bench.pid("echo"))
    for key in ("Uid", "Gid", "Seccomp", "NoNewPrivs", "CapEff", "CapBnd"):
        assert after[key] == before[key]


UNPRIVILEGED = """
import json, sys
import shim
from corekernel import boot, composition
running = boot.launch(sys.argv[1], composition.load("bench"))
try:
    with shim.attach(sys.argv[1], 15.0) as system:
        status = system.ask("status")
        children = [p for p in status["processes"] if p["name"] != "core"]
        seccomp = {line.split()[1] for p in children for line in open(f"/proc/{p['pid']}/status") if "Seccomp:" in line}
        facts = {
            "uids": sorted({p["uid"] for p in status["processes"]}),
            "weaknesses": status["weaknesses"],
            "seccomp": sorted(seccomp),
            "chain": system.client("chain_a").chain(3),
            "echo": system.client("echo").echo(bytes(100_000)) == bytes(100_000),
            "program": system.procmgr.wait(system.spawn(["/bin/sh", "-c", "exit 4"])),
            "unconfined": [c["unconfined"] for c in status["clients"]],
        }
        try:
            system.client("echo").crash()
        except Exception as error:
            facts["crash"] = type(error).__name__
        facts["again"] = system.client("echo").echo(b"again").decode()
    print(json.dumps(facts))
finally:
    running.kill()
"""


def test_a_whole_system_runs_without_any_privilege() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, system_name()],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        cwd="/",
        preexec_fn=become_nobody,
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.decode()
    facts = json.loads(finished.stdout)
    assert facts["uids"] == [NOBODY if as_root else os.getuid()]
    assert (facts["chain"], facts["echo"], facts["program"], facts["again"]) == (3, True, 4, "again")
    assert facts["crash"] == "ServiceDied"
    assert facts["seccomp"] == ["2"]
    assert facts["unconfined"] == [True]
    assert any("core's own user id" in weakness for weakness in facts["weaknesses"])
    assert any("no pid namespace" in weakness for weakness in facts["weaknesses"])


def test_a_detached_client_says_so(bench: Box) -> None:
    system = bench.attach()
    system.client("echo").null()
    system.close()
    with pytest.raises(Detached):
        system.ask("status")
