"""What a process sees of the host through its own mounts, and who dies with whom."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from corekernel import namespaces
from tests.forked import NOBODY, as_root, become_nobody, outcome, run_forked

CODE = "import json, corekernel.errors; print(json.dumps('imported'))"


def run_interpreter() -> dict[str, Any]:
    """Exec the interpreter as another user id, and look around the home it lies in."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.execv(sys.executable, [sys.executable, "-c", CODE])
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read().strip()
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "text": text}


def make_home(root: Path) -> Path:
    """A 0700 home with a tool (reached through a link), a secret beside it and a closed directory."""
    home = root / "home"
    tool = home / "tools" / "v1"
    tool.mkdir(parents=True)
    (tool / "script").write_text("usable")
    (home / "tools" / "current").symlink_to("v1")
    (home / "secret").write_text("secret")
    (home / "tools" / "beside").write_text("secret")
    (home / "closed").mkdir(mode=0o700)
    home.chmod(0o700)
    for above in (root, *root.parents[:2]):
        above.chmod(above.stat().st_mode | 0o055)
    return home


@pytest.mark.skipif(not as_root, reason="needs root to mount")
def test_a_private_view_shows_what_is_needed_and_nothing_else(tmp_path: Path) -> None:
    home = make_home(tmp_path)

    def body() -> dict[str, Any]:
        os.chdir(home / "tools")
        namespaces.private_mounts()
        closed = namespaces.private_view([home / "tools" / "current", home / "closed", home, Path("/usr")])
        seen = sorted(str(p.relative_to(home)) for p in home.rglob("*"))
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return {
            "seen": seen,
            "closed": [str(path) for path in closed],
            "script": (home / "tools" / "current" / "script").read_text(),
            "relative": sorted(os.listdir("..")),
            "write": outcome(lambda: os.open(home / "tools/v1/new", os.O_CREAT | os.O_WRONLY)),
            "set aside": outcome(lambda: os.mkdir(home / "new")),
        }

    found = run_forked(body)
    assert found["seen"] == ["tools", "tools/current", "tools/v1", "tools/v1/script"]
    assert found["closed"] == [str(home), str(home / "closed")]
    assert found["script"] == "usable"
    assert found["relative"] == ["tools"], "the old directory was still within reach"
    assert found["write"] == found["set aside"] == "EROFS"
    assert (home / "secret").read_text() == "secret", "the view leaked out of its namespace"


@pytest.mark.skipif(not as_root, reason="needs root to mount")
def test_another_user_id_runs_this_interpreter_behind_the_view() -> None:
    def body() -> dict[str, Any]:
        namespaces.private_mounts()
        os.chdir(Path(namespaces.__file__).parents[1])
        assert namespaces.private_view(namespaces.interpreter_paths()) == []
        return run_interpreter()

    assert run_forked(body) == {"status": 0, "text": '"imported"'}


@pytest.mark.skipif(not as_root, reason="needs root to make a namespace")
def test_killing_the_launcher_kills_a_namespaced_core_and_all_below_it() -> None:
    """The launcher forks init, init forks a child in a session of its own; then the launcher is killed."""
    reader, writer = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        if namespaces.fork_init() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
            os.write(writer, f"{os.getpid()} {namespaces.host_pid()}\n".encode())
        signal.pause()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        born = sorted(tuple(map(int, file.readline().split())) for _ in range(2))
        assert [pid for pid, _ in born] == [1, 2]
        pidfds = [os.pidfd_open(host) for _, host in born]
        os.kill(launcher, signal.SIGKILL)
        os.waitpid(launcher, 0)
        assert file.read() == "", "end of file: nobody is left to hold the pipe"
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 10)[0] == [pidfd]
        os.close(pidfd)


def test_without_privilege_the_caller_adopts_orphans_instead() -> None:
    def body() -> bool:
        become_nobody()
        assert namespaces.fork_init() is None
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.close(reader)
                os.write(writer, str(os.getpid()).encode())
            os._exit(0)
        os.waitpid(middle, 0)
        orphan = int(os.read(reader, 32))
        return os.waitpid(orphan, 0) == (orphan, 0)

    assert run_forked(body) is True
