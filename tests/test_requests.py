"""What clients say to the core: garbage costs nothing, and no request, however long or large, harms another."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shim
from corekernel import process_table
from corekernel.attachment import Detached
from corekernel.channel import MAX_MESSAGE_BYTES, ChannelClosed, ChannelError
from corekernel.dispatcher import ABI_VERSION
from corekernel.errors import CallError, ServiceError, TooBig
from tests.processes import PATIENCE, until
from tests.raw_client import answer, greeted, lives
from tests.systems import Boots, Box, raw_connection

RECVMSG = "47 "
REQUESTS = (
    "attach", "open", "bind", "buffer", "token", "status", "statistics", "trace", "observe", "logs", "input", "run",
    "result", "nonsense",
)  # fmt: skip
FIELDS = (
    "service", "services", "generation", "after", "slots", "slot", "size", "object", "abi", "name", "argv", "env",
    "cwd", "number", "text", "end", "limit", "operations", "trace", "serial",
)  # fmt: skip


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
        {"do": "bind"},
        {"do": "bind", "services": {}},
        {"do": "bind", "services": ["echo"]},
        {"do": "bind", "services": {"echo": {"generation": 1, "slots": 5}}},
        {"do": "bind", "services": {"echo": {"generation": 1, "slots": [-1]}}},
        {"do": "bind", "services": {"echo": {"generation": 1, "slots": [4096]}}},
        {"do": "bind", "services": {"echo": {"generation": 1, "slots": list(range(300))}}},
        {"do": "bind", "services": {"echo": {"slots": [0]}}},
        {"do": "bind", "services": {"echo": {"generation": 1, "slots": [0]}, "cecho": {"generation": 1}}},
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


def test_a_wrong_request_while_a_service_restarts_keeps_nobody_from_it(echoes: Box) -> None:
    with greeted(echoes) as channel, echoes.frozen("echo"):
        echoes.kill("echo")
        channel.send({"do": "open", "service": "echo", "after": "x", "serial": 1})
        echoes.recovered("echo", 1)
        lives(echoes)


def test_one_slot_asked_for_many_times_takes_one_stack(shared: Box) -> None:
    with greeted(shared) as channel:
        generation = answer(channel, {"do": "open", "service": "echo"})["generation"]
        request = {"do": "bind", "services": {"echo": {"generation": generation, "slots": [5] * 100 + [6]}}}
        assert answer(channel, request)["services"] == {"echo": {"ok": True}}
        assert shared.bound("echo") == 2
        assert answer(channel, request)["services"] == {"echo": {"ok": True}}
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
        if not cut:
            with pytest.raises(ChannelClosed):
                for _ in range(100_000):
                    channel.recv(1)
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


# ---- long, large and too many


def start_reader(system: shim.System) -> tuple[int, int]:
    """Run a program that ends with its input: its number, and the other end of that."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    request = {"do": "run", "argv": ["/bin/cat"], "env": {}, "cwd": "/"}
    try:
        started, _ = system.attachment.ask(request, (reading, null, null))
    except CallError:
        os.close(writing)
        raise
    finally:
        os.close(reading)
        os.close(null)
    return int(started["number"]), writing


def spawns(system: shim.System) -> bool:
    """Whether a program could be started."""
    try:
        system.spawn(["/bin/true"])
    except ServiceError as error:
        assert "process table is full" in str(error)
        return False
    return True


def test_a_request_that_waits_long_keeps_no_other_waiting(echoes: Box) -> None:
    system = echoes.attach()
    number, writing = start_reader(system)
    results: list[int] = []
    waiting = threading.Thread(target=lambda: results.append(system.ask("result", number=number)["status"]))
    asking = threading.Thread(target=lambda: results.append(int(system.ask("status")["name"] == echoes.name)))
    waiting.start()
    state = Path(f"/proc/self/task/{waiting.native_id}/syscall")
    until(lambda: state.read_text().startswith(RECVMSG), "the result is waited for")
    asking.start()
    asking.join(PATIENCE)
    in_time = list(results)
    os.close(writing)
    waiting.join()
    asking.join()
    assert in_time == [1]
    assert results == [1, 0]


def test_a_request_too_large_for_a_message_is_refused_and_the_attachment_lives_on(shared: Box) -> None:
    system = shared.attach()
    with pytest.raises(TooBig, match="exceeds"):
        system.ask("input", text="x" * MAX_MESSAGE_BYTES)
    with pytest.raises(TooBig, match="descriptors"):
        system.attachment.ask({"do": "nonsense"}, [0] * 17)
    assert system.ask("status")["name"] == shared.name


def test_an_answer_too_large_for_a_message_is_an_error_and_the_client_stays(shared: Box) -> None:
    system = shared.attach()
    with pytest.raises(TooBig, match="answer"):
        system.ask("x" * (MAX_MESSAGE_BYTES - 40))  # it would be repeated in the answer
    assert system.ask("status")["name"] == shared.name
    with greeted(shared) as channel:
        channel.send({"do": "nonsense", "serial": "x" * (MAX_MESSAGE_BYTES - 100)})
        assert channel.recv(10)[0]["serial"] == 0
        assert "client" not in answer(channel, {"do": "open", "service": "echo"})


def test_a_program_for_which_the_process_table_has_no_room_is_refused(
    system: Boots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_table, "RECORDS", 4)  # the core is a fork of this process
    box = system()
    attached = [box.attach() for _ in range(3)]
    core = Path(f"/proc/{box.status()['core_pid']}/fd")
    assert not spawns(attached[0])
    before = len(list(core.iterdir()))
    for _ in range(5):
        with pytest.raises(CallError, match="process table is full"):
            start_reader(attached[0])
        assert not spawns(attached[0])
    until(lambda: len(list(core.iterdir())) <= before, "nothing of them is left")
    attached.pop().close()
    until(lambda: spawns(attached[0]), "there is room again")


def test_who_finds_no_room_in_the_process_table_is_not_let_in(system: Boots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_table, "RECORDS", 4)  # the core is a fork of this process
    box = system()
    attached = [box.attach() for _ in range(4)]
    greeting = {"do": "attach", "abi": ABI_VERSION, "name": "late"}
    with pytest.raises(Detached, match="process table is full"):
        box.attach()
    with raw_connection(box.name) as channel:
        assert answer(channel, greeting)["error"] == "too-big"
        assert answer(channel, {"do": "open", "service": "echo"})["error"] == "denied"
        attached.pop().close()
        until(lambda: "error" not in answer(channel, greeting), "there is room again")
        assert "generation" in answer(channel, {"do": "open", "service": "echo"})
