"""The process manager: births, waits, signals, threads and limits, also across its own death."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shim
from corekernel.errors import ServiceError
from tests.forked import as_root
from tests.processes import Tell, alive, status_of, until
from tests.systems import Boots, Box, boot_box

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}


@pytest.fixture(scope="module", params=["default", "monolith"])
def _plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("plain"), request.param, "")
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def plain(_plain: Box) -> Iterator[Box]:
    """A system of the composition `default`, and one of `monolith`, for tests that break nothing."""
    yield _plain
    _plain.settle()
    _plain.children.clear()
    _plain.attached.clear()


def refusal(call: Any, *arguments: Any) -> str:
    """Name of the errno by which a service refused."""
    with pytest.raises(ServiceError) as caught:
        call(*arguments)
    return errno.errorcode[caught.value.errno or 0]


def script(system: shim.System, text: str) -> int:
    """Start a Python program that has attached as `s` before it runs `text`."""
    return system.spawn([sys.executable, "-c", f"import os, sys, shim\ns = shim.attach()\n{text}"], ENVIRONMENT)


# ---- spawn and wait


@pytest.mark.parametrize(("text", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_wait_tells_how_a_child_ended(plain: Box, text: str, status: int) -> None:
    system = plain.attach()
    assert system.procmgr.wait(system.spawn(["/bin/sh", "-c", text])) == status


def test_a_child_is_waited_for_once(plain: Box) -> None:
    procmgr = plain.attach().procmgr
    pid = procmgr.spawn(json.dumps({"argv": ["/bin/true"]}).encode())
    assert procmgr.wait(pid) == 0
    assert refusal(procmgr.wait, pid) == "ECHILD"


def test_only_a_parent_waits(plain: Box) -> None:
    system = plain.attach()
    pid = system.spawn(["/bin/sleep", "1000"])
    assert refusal(plain.attach().procmgr.wait, pid) == "ECHILD"
    assert refusal(system.procmgr.wait, system.pid) == "ECHILD"
    assert refusal(system.procmgr.wait, 1 << 40) == "ECHILD"
    system.procmgr.kill(pid, signal.SIGKILL)
    assert system.procmgr.wait(pid) == -9


def test_a_spawned_program_is_a_client_and_says_its_own_status(plain: Box) -> None:
    system = plain.attach()
    assert system.procmgr.wait(script(system, "sys.exit(s.procmgr.getpid() == s.pid and 42)")) == 42
    assert system.procmgr.wait(script(system, "s.procmgr.exit(9)\nsys.exit(3)")) == 9


def test_a_spawned_program_has_a_user_id_of_its_own(system: Boots) -> None:
    box = system("default")
    client = box.attach()
    pids = [client.spawn(["/bin/sleep", "1000"]) for _ in range(2)]
    records = {record.pid: record for record in client.processes() if record.pid in pids}
    uids = {int(status_of(record.host_pid)["Uid"].split()[0]) for record in records.values()}
    assert uids == {record.uid for record in records.values()}
    assert len(uids) == 2 or not as_root
    assert os.getuid() not in uids or not as_root
    for record in records.values():
        assert status_of(record.host_pid)["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({"argv": []}, "EINVAL"),
        ({"argv": ["/does/not/exist"]}, "ENOENT"),
        ({"argv": ["/etc/passwd"]}, "EACCES"),
        ({"argv": ["/bin/true"], "cwd": "/does/not/exist"}, "ENOENT"),
        ({}, "EINVAL"),
        ([], "EINVAL"),
        ({"argv": ["/bin/true"], "env": 5}, "EINVAL"),
        ({"argv": 5}, "EINVAL"),
        ({"argv": ["nul\0byte"]}, "EINVAL"),
        ({"argv": ["/bin/true"], "env": {"A=B": "c", "": "d"}}, "EINVAL"),
    ],
)
def test_a_program_that_cannot_start_is_refused_with_its_errno(plain: Box, spec: Any, name: str) -> None:
    procmgr = plain.attach().procmgr
    assert refusal(procmgr.spawn, json.dumps(spec).encode()) == name
    assert procmgr.wait(procmgr.spawn(b'{"argv": ["/bin/true"]}')) == 0


@pytest.mark.parametrize("spec", [b"", b"{", b"\xff\xff", b"[" * 20000, b"nul\0"])
def test_a_malformed_program_is_refused(plain: Box, spec: bytes) -> None:
    assert refusal(plain.attach().procmgr.spawn, spec) == "EINVAL"


def test_children_of_a_parent_that_has_gone_leave_no_records(plain: Box) -> None:
    def body(system: shim.System, tell: Tell) -> list[int]:
        return [system.spawn(["/bin/true"]), system.spawn(["/bin/sleep", "0.1"])]

    pids = plain.client(body).result()
    system = plain.attach()
    until(lambda: not {r.pid for r in system.processes() if not r.reaped} & set(pids), "their records are free")


# ---- looking and signalling


def test_the_table_shows_every_client_without_a_call(plain: Box) -> None:
    system = plain.attach()
    pid = system.spawn(["/bin/sleep", "1000"])
    records = {record.pid: record for record in system.processes()}
    assert records[system.pid].host_pid == os.getpid()
    assert records[pid].parent == system.pid
    assert records[pid].name == "sleep"
    assert alive(records[pid].host_pid)
    assert {system.pid, pid} <= set(json.loads(system.procmgr.list()))
    info = json.loads(system.procmgr.info(pid))
    assert (info["state"], info["parent"], info["host_pid"]) == ("live", system.pid, records[pid].host_pid)
    system.procmgr.kill(pid, signal.SIGTERM)
    assert system.procmgr.wait(pid) == -15
    assert pid not in json.loads(system.procmgr.list())


def test_signals_reach_processes_and_nothing_else(plain: Box) -> None:
    system = plain.attach()
    procmgr = system.procmgr
    pid = system.spawn(["/bin/sleep", "1000"])
    procmgr.kill(pid, 0)
    assert refusal(procmgr.kill, pid, 65) == "EINVAL"
    assert refusal(procmgr.kill, pid, 1 << 40) == "EINVAL"
    for number in (0, 1, 2, 99, 1 << 31, 1 << 63):
        assert refusal(procmgr.kill, number, 0) == "ESRCH"
    procmgr.kill(pid, signal.SIGKILL)
    assert procmgr.wait(pid) == -9
    assert refusal(procmgr.kill, pid, 9) == "ESRCH"


def test_a_program_signals_nobody_of_another_user(plain: Box) -> None:
    system = plain.attach()
    victim = system.spawn(["/bin/sleep", "1000"])
    text = f"""
import errno
from corekernel.errors import ServiceError
try: s.procmgr.kill({victim}, 9)
except ServiceError as error: sys.exit(error.errno)
"""
    status = system.procmgr.wait(script(system, text))
    assert status == (errno.EPERM if as_root else 0)
    if as_root:
        system.procmgr.kill(victim, 9)
    assert system.procmgr.wait(victim) == -9


# ---- threads


def test_threads_are_entered_and_struck(plain: Box) -> None:
    system = plain.attach()
    first, second = system.procmgr.thread_create("eins"), system.procmgr.thread_create("zwei ü")
    names = {t["tid"]: t["name"] for t in json.loads(system.procmgr.info(system.pid))["threads"]}
    assert names == {first: "eins", second: "zwei ü"}
    assert refusal(plain.attach().procmgr.thread_exit, first) == "ESRCH"
    system.procmgr.thread_exit(first)
    assert refusal(system.procmgr.thread_exit, first) == "ESRCH"
    assert len(json.loads(system.procmgr.info(system.pid))["threads"]) == 1


def test_threads_of_a_client_that_has_gone_are_struck(plain: Box) -> None:
    def body(system: shim.System, tell: Tell) -> int:
        return min([system.procmgr.thread_create("t") for _ in range(5)])

    tid = plain.client(body).result()
    system = plain.attach()
    until(lambda: system.procmgr.thread_create("again") == tid, "its places are free")


# ---- limits


def test_limits_reach_the_host_and_only_go_down(system: Boots) -> None:
    box = system("default")
    client = box.attach()
    procmgr = client.procmgr
    pid = client.spawn(["/bin/sleep", "1000"])
    host = next(record.host_pid for record in client.processes() if record.pid == pid)
    procmgr.set_limit(pid, resource.RLIMIT_NOFILE, 32, 64)
    assert tuple(procmgr.get_limit(pid, resource.RLIMIT_NOFILE)) == (32, 64)
    limits = Path(f"/proc/{host}/limits").read_text()
    assert next(line.split()[3:5] for line in limits.splitlines() if "open files" in line) == ["32", "64"]
    assert refusal(procmgr.set_limit, pid, resource.RLIMIT_NOFILE, 65, 64) == "EINVAL"
    assert refusal(procmgr.set_limit, pid, resource.RLIMIT_CPU, 1, 1) == "EINVAL"
    assert refusal(procmgr.get_limit, pid, resource.RLIMIT_CPU) == "EINVAL"
    assert refusal(procmgr.get_limit, 1 << 40, resource.RLIMIT_NOFILE) == "ESRCH"
    text = """
from corekernel.errors import ServiceError
s.procmgr.set_limit(s.pid, 7, 50, 100)
try: s.procmgr.set_limit(s.pid, 7, 50, 200)
except ServiceError as error: sys.exit(error.errno)
"""
    if as_root:
        assert procmgr.wait(script(client, text)) == errno.EPERM


# ---- its own death


def test_a_restart_loses_no_process_no_thread_and_no_limit(system: Boots) -> None:
    box = system("default")
    client = box.attach()
    procmgr = client.procmgr
    pids = [client.spawn(["/bin/sleep", "1000"]) for _ in range(2)]
    tid = procmgr.thread_create("kept")
    procmgr.set_limit(pids[0], resource.RLIMIT_NOFILE, 32, 64)
    ended = client.spawn(["/bin/sh", "-c", "exit 6"])
    until(lambda: json.loads(procmgr.info(ended))["state"] == "ended", "the third has ended")
    assert box.process("procmgr")["state"] == "up"
    before = json.loads(procmgr.list())
    for _ in range(2):
        box.recovered("procmgr", box.kill("procmgr"))
    assert json.loads(procmgr.list()) == before
    assert [t["tid"] for t in json.loads(procmgr.info(client.pid))["threads"]] == [tid]
    assert tuple(procmgr.get_limit(pids[0], resource.RLIMIT_NOFILE)) == (32, 64)
    assert procmgr.wait(ended) == 6
    for pid in pids:
        procmgr.kill(pid, signal.SIGTERM)
        assert procmgr.wait(pid) == -15


def test_who_waits_for_a_child_gets_the_answer_across_a_restart(system: Boots) -> None:
    def body(system: shim.System, tell: Tell) -> int:
        pid = system.spawn(["/bin/sleep", "1000"])
        tell(pid)
        return system.procmgr.wait(pid)

    box = system("default")
    waiting = box.client(body, timeout=None)
    pid = waiting.hear()
    waiting.waits()
    box.recovered("procmgr", box.kill("procmgr"))
    waiting.waits()
    box.attach().procmgr.kill(pid, signal.SIGTERM)
    assert waiting.result() == -15


def test_a_child_that_ends_while_the_process_manager_is_dead_is_not_lost(system: Boots) -> None:
    def body(system: shim.System, tell: Tell) -> int:
        pid = system.spawn(["/bin/sleep", "1000"])
        tell(next(record.host_pid for record in system.processes() if record.pid == pid))
        return system.procmgr.wait(pid)

    box = system("default", "[service.procmgr]\nrestart = { backoff_ms = 300 }\n")
    waiting = box.client(body, timeout=None)
    host = waiting.hear()
    waiting.waits()
    box.kill("procmgr")
    until(lambda: box.process("procmgr")["state"] == "backoff", "it is down")
    os.kill(host, signal.SIGKILL)
    until(lambda: not alive(host), "the child has ended")
    assert waiting.result() == -9
