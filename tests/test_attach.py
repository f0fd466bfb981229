"""The way in: who may attach, and what separates the processes of a system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shim
from corekernel import boot, composition
from corekernel.attachment import Detached
from corekernel.boot import BootError
from tests.forked import NOBODY, as_root, become_nobody
from tests.processes import Child, Tell, status_of, until
from tests.raw_client import lives
from tests.systems import Boots, Box, system_name

ROOT = Path(__file__).resolve().parent.parent


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


def test_a_service_keeps_its_user_id_and_its_confinement_across_a_restart(echoes: Box) -> None:
    before = status_of(echoes.pid("echo"))
    echoes.recovered("echo", echoes.kill("echo"))
    after = status_of(echoes.pid("echo"))
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
