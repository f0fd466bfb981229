"""The demonstration: it kills services, loses nothing, leaves nothing, and would tell if it were otherwise."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import demo, demo_client, demo_costs
from corekernel import boot
from shim.shell.places import Host, Place
from tests.systems import Boots, Box

LAUNCHER = str(boot.ROOT / "launcher.py")


@pytest.mark.timeout(120)
def test_the_demonstration_kills_services_finds_every_file_right_and_leaves_nothing() -> None:
    shown = subprocess.run(
        [sys.executable, LAUNCHER, "demo"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    killed = re.findall(r"kill -9 \d+ \((\w+)\): restarted as \d+, user id \d+, after", shown.stdout)
    assert {"fs", "procmgr"} <= set(killed) <= {"fs", "hostfs", "procmgr", "devmgr"}
    assert killed.count("fs") == 2
    assert re.search(rf"all \d+ files are there and right; {len(killed)} deaths of services, and no", shown.stdout)
    assert re.search(r"^  create and close +[\d.,]+ +[\d.,]+", shown.stdout, re.MULTILINE)
    assert "left behind: nothing" in shown.stdout


# ---- its programs


@pytest.fixture
def box(system: Boots) -> Box:
    return system("default")


def said(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def test_what_is_wrong_missing_or_unexpected_is_found(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    (library / "package").mkdir(parents=True)
    for name in ("package/one.py", "two.py", "three.py"):
        (library / name).write_text(name)
    attached = box.attach()
    monkeypatch.setattr(demo_client, "library", lambda files, directory: Place(Host(), str(directory), str(directory)))
    assert demo_client.copy(attached, library)
    digests = said(capsys.readouterr().out)[-1]["digests"]
    assert isinstance(digests, dict) and set(digests) == {"package/one.py", "two.py", "three.py"}

    def checked() -> dict[str, object]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(digests)))
        good = demo_client.check(attached)
        last = said(capsys.readouterr().out)[-1]
        return {"good": good, **{what: last[what] for what in ("wrong", "missing", "unexpected")}}

    assert checked() == {"good": True, "wrong": [], "missing": [], "unexpected": []}
    target = attached.files.path(demo_client.TARGET)
    (target / "package" / "one.py").write_text("one/package.py")
    (target / "two.py").rename(target / "four.py")
    assert checked() == {"good": False, "wrong": ["package/one.py"], "missing": ["two.py"], "unexpected": ["four.py"]}


def test_the_library_is_read_through_the_system_where_that_can(box: Box, tmp_path: Path) -> None:
    files = box.attach().files
    library = Path(json.__file__).parent
    mounted = files.isdir(f"/host{library}")
    assert demo_client.library(files, library).path == (f"/host{library}" if mounted else str(library))
    assert isinstance(demo_client.library(files, tmp_path).side, Host)


def test_caches_and_what_was_added_to_a_library_are_left_out(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.py", "a/__pycache__/c.pyc", "site-packages/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link.py").symlink_to("b.py")
    found = list(demo_client.regular_files(Place(Host(), str(tmp_path), "")))
    assert found == [("a/c.py", 6), ("b.py", 4)]
    assert list(demo_client.within(iter(found), 9)) == [("a/c.py", 6)]


def test_kills_are_spread_evenly_over_the_files() -> None:
    phase = demo.Phase(["one", "two", "three"], 400)
    due = {}
    for done in range(401):
        phase.last = {"done": done}
        due.update(dict.fromkeys(phase.due(), done))
    assert due == {"one": 100, "two": 200, "three": 300}


def test_a_client_that_saw_something_wrong_is_quoted() -> None:
    assert demo._blame({"wrong": [], "missing": ["a\nb"]}) == "1 files are MISSING, such as a b"
    assert demo._blame({}) == "the client FAILED"


def test_operations_are_measured_on_both_sides(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_costs, "SAMPLE_SECONDS", 0.01)
    here = demo_costs.file_operations(demo_costs.of(box.attach().files), "/tmp")
    host = demo_costs.on_tmpfs()
    assert [what for what, _, _ in here] == [what for what, _, _ in host]
    assert all(0 < p50 <= p99 for _, p50, p99 in here + host)
