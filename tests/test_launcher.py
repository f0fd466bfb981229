"""The command line, driven as a user drives it: real launcher processes, their output, their exit status."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import shim
from corekernel import boot
from corekernel.cli import text, top, trace
from tests.processes import until
from tests.systems import Box, Keeps, system_name

LAUNCHER = str(boot.ROOT / "launcher.py")
PATIENCE = 40


def launcher(*words: str, cwd: Path | None = None, typed: str = "") -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run(
        [sys.executable, LAUNCHER, *words], input=typed, capture_output=True, text=True, cwd=cwd, timeout=PATIENCE
    )


@contextlib.contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on; killed at the end if it still does."""
    process = subprocess.Popen(
        [sys.executable, LAUNCHER, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """Output of a command up to a text."""
    assert process.stdout is not None
    seen = ""
    while wanted not in seen:
        assert select.select([process.stdout], [], [], PATIENCE)[0], f"no {wanted!r} in {seen!r}"
        data = os.read(process.stdout.fileno(), 65536).decode()
        assert data, f"it ended without {wanted!r}: {seen!r}"
        seen += data
    return seen


def is_up(name: str) -> bool:
    with contextlib.suppress(boot.BootError), boot.connect(name):
        return True
    return False


@pytest.fixture
def up(kept: Keeps) -> Box:
    """A system that is up, for commands that leave it as it was."""
    return kept()


# ---- up, down, logs


def test_up_in_the_foreground_shows_the_tree_and_ends_with_ctrl_c() -> None:
    name = system_name()
    with started("up", "--name", name) as process:
        seen = read_until(process, "Ctrl-C")
        for part in ("core ", "memmgr", "procmgr", "example", "IC2"):
            assert part in seen
        process.send_signal(signal.SIGINT)
        rest = read_until(process, "is down")
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in rest
    assert not is_up(name)


def test_sigterm_ends_a_foreground_system_and_tells_by_its_status() -> None:
    name = system_name()
    with started("up", "--name", name) as process:
        read_until(process, "Ctrl-C")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert not is_up(name)


def test_a_killed_launcher_takes_its_system_with_it() -> None:
    name = system_name()
    with started("up", "--name", name) as process:
        read_until(process, "Ctrl-C")
        process.kill()
        until(lambda: not is_up(name), "the system ends with its launcher")


def test_the_console_of_a_foreground_system_is_shown_as_it_comes() -> None:
    name = system_name()
    with started("up", "--name", name) as process:
        read_until(process, "Ctrl-C")
        with shim.attach(name) as system:
            system.core.serial_write(b"hello \x1b[2J from a client\n")
        assert "hello \ufffd[2J from a client" in read_until(process, "from a client")
        assert launcher("down", "--name", name).returncode == 0
        read_until(process, "has ended")
        assert process.wait(PATIENCE) == 0


def test_a_detached_system_outlives_up_and_ends_with_down() -> None:
    name = system_name()
    up = launcher("up", "-d", "--name", name)
    assert up.returncode == 0, up.stderr
    assert is_up(name)
    down = launcher("down", "--name", name)
    assert (down.returncode, down.stdout) == (0, f"{name} is down\n")
    assert not is_up(name)


def test_a_second_up_of_the_same_name_is_refused(system: object, up: Box) -> None:
    second = launcher("up", "--name", up.name)
    assert second.returncode == 1
    assert "is up already" in second.stderr
    assert up.running_core()


def test_a_wrong_composition_names_file_and_line_and_starts_nothing(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('inherit = "default"\n\n[service.example]\nclas = "IC2"\nclass = "IC9"\n')
    name = system_name()
    refused = launcher("up", "-c", str(wrong), "--name", name)
    assert refused.returncode == 2
    assert f"{wrong}:4: " in refused.stderr
    assert f"{wrong}:5: " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not is_up(name)


@pytest.mark.parametrize("command", ["status", "down", "logs", "top", "trace -o /dev/null", "run -- true", "shell"])
def test_a_command_to_a_system_that_is_not_up_says_so(command: str) -> None:
    verb, *rest = command.split(" ", 1)
    missing = launcher(verb, "--name", "test-no-such-system", *"".join(rest).split())
    assert missing.returncode == 1
    assert "no system named 'test-no-such-system' is up" in missing.stderr


@pytest.mark.parametrize("words", [["up", "--name", "a/b"], ["trace", "-o", "x", "--seconds", "0"], ["fly"], []])
def test_a_mistaken_command_line_exits_2_with_usage(words: list[str]) -> None:
    mistaken = launcher(*words)
    assert mistaken.returncode == 2
    assert "usage: launcher.py" in mistaken.stderr


def test_logs_print_the_console_without_what_a_terminal_obeys(up: Box) -> None:
    up.attach().core.serial_write("one \x1b]0;title\x07 two ä\n".encode())
    logs = launcher("logs", "--name", up.name)
    assert "one \ufffd]0;title\ufffd two ä\n" in logs.stdout


# ---- run


def test_run_passes_input_output_arguments_and_status_through() -> None:
    program = "import sys; print(sys.argv[1:], sys.stdin.read()); print('err', file=sys.stderr); sys.exit(7)"
    ran = launcher("run", "--", "python", "-c", program, "-c", "--", "x", typed="typed")
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "['-c', '--', 'x'] typed\n", "err\n")


def test_a_program_is_attached_already_under_a_user_id_of_its_own(up: Box) -> None:
    program = "import os, shim; s = shim.attach(); print(s.pid == s.procmgr.getpid(), os.getuid(), s.services['echo'])"
    ran = launcher("run", "--name", up.name, "--", "python", "-c", program)
    assert ran.returncode == 0, ran.stderr
    same, uid, interface = ran.stdout.split()
    assert (same, interface) == ("True", "bench_echo")
    assert (int(uid) != os.getuid()) == (os.getuid() == 0)


def test_run_exits_with_128_and_the_signal_that_killed_the_program() -> None:
    assert launcher("run", "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_a_program_that_does_not_exist_or_cannot_be_executed_is_named(tmp_path: Path) -> None:
    missing = launcher("run", "--", "no-such-program")
    assert (missing.returncode, missing.stderr) == (127, "no-such-program: no such program\n")
    plain = tmp_path / "plain"
    plain.write_text("no program")
    refused = launcher("run", "--", str(plain))
    assert (refused.returncode, refused.stderr) == (126, f"{plain}: not an executable file\n")


def test_a_program_with_a_bad_interpreter_is_not_started(up: Box, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    refused = launcher("run", "--name", up.name, "--", str(script))
    assert refused.returncode == 126
    assert "not started" in refused.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_run_reach_the_program(up: Box, sent: signal.Signals) -> None:
    program = f"trap 'echo caught; exit 3' {sent.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with started("run", "--name", up.name, "--", "sh", "-c", program) as process:
        read_until(process, "ready")
        process.send_signal(sent)
        read_until(process, "caught")
        assert process.wait(PATIENCE) == 3
    assert up.running_core()


def test_a_program_reaches_its_own_directory_below_a_private_one(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "project").mkdir(parents=True)
    (private / "project" / "program.py").write_text("print('from', __file__)")
    private.chmod(0o700)
    ran = launcher("run", "--", "python", "program.py", cwd=private / "project")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "from " + str(private / "project" / "program.py") + "\n"


def test_python_means_the_interpreter_that_runs_the_launcher(up: Box) -> None:
    ran = launcher("run", "--name", up.name, "--", "python", "-c", "import sys; print(sys.executable)")
    assert ran.stdout.strip() == sys.executable


# ---- looking


def test_status_shows_processes_clients_and_objects(echoes: Box) -> None:
    echoes.attach().client("echo").null()
    shown = launcher("status", "--name", echoes.name).stdout
    assert re.search(r"echo +IC2 .* 1 bound", shown)
    assert re.search(r"^frames +\d+", shown, re.MULTILINE)
    data = json.loads(launcher("status", "--json", "--name", echoes.name).stdout)
    assert {"echo", "core", "procmgr"} <= {p["name"] for p in data["processes"]}


def test_top_shows_rates_and_latencies_and_stops_observing(echoes: Box) -> None:
    program = "import shim\ne = shim.attach().client('echo')\nprint('ready', flush=True)\nwhile True: e.null()"
    with started("run", "--name", echoes.name, "--", "python", "-c", program) as process:
        read_until(process, "ready")
        shown = launcher("top", "--once", "--name", echoes.name).stdout
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    found = re.search(r"^  null +([\d,]+) +([\d.]+) +([\d.]+)", shown, re.MULTILINE)
    assert found, shown
    rate, p50, p99 = (float(word.replace(",", "")) for word in found.groups())
    assert rate > 100
    assert 0 < p50 <= p99
    before = echoes.ask("statistics", service="echo")["operations"]
    echoes.attach().client("echo").null()
    assert echoes.ask("statistics", service="echo")["operations"] == before


def test_trace_writes_one_slice_for_each_call(echoes: Box, tmp_path: Path) -> None:
    echo = echoes.attach().client("echo")
    path = tmp_path / "trace.json"
    with started("trace", "--seconds", "1", "-o", str(path), "--name", echoes.name) as process:
        until(lambda: _traced(echoes, echo), "calls are traced")
        calls = 700  # more than the core hands out at a time
        for _ in range(calls):
            echo.null()
        process.wait(PATIENCE)
    events = json.loads(path.read_text())["traceEvents"]
    slices = [e for e in events if e["ph"] == "X" and e["name"] == "echo.null"]
    assert len(slices) > calls
    assert all(e["dur"] >= 0 and e["ts"] >= 0 and e["args"]["status"] == 0 for e in slices)
    starts = [e["ts"] for e in slices]
    assert len(set(starts)) == len(starts)


def _traced(box: Box, echo: object) -> bool:
    echo.null()  # type: ignore[attr-defined]
    return bool(box.ask("trace", service="echo")["events"])


def test_a_percentile_lies_in_the_bucket_that_holds_it() -> None:
    histogram = [0] * 32
    histogram[5], histogram[9] = 90, 10  # 16 to 32 and 256 to 512 units of 64 ticks; 64 ticks are 1 us at 64 MHz
    assert 16 <= top.percentile(histogram, 0.5, 64_000) <= 32
    assert 256 <= top.percentile(histogram, 0.99, 64_000) <= 512
    assert top.percentile([0] * 32, 0.5, 64_000) == 0


def test_counters_that_began_anew_are_taken_whole() -> None:
    old, new = top.Operation(100, 5000, [100, 0]), top.Operation(7, 70, [3, 4])
    assert new.since(old) == new
    assert top.Operation(107, 5070, [103, 4]).since(old) == new


def test_a_trace_gives_each_client_thread_a_line_of_its_own() -> None:
    call = {"at": 2000, "duration": 500, "client": 7, "slot": 0, "operation": 1, "status": 0, "cpu": 1, "waited": 250}
    events = trace.chrome({"example": [call, {**call, "slot": 1}]}, {"example": "example"}, 1000, 1000)
    slices = [e for e in events if e["ph"] == "X"]
    assert [e["name"] for e in slices] == ["example.digest"] * 2
    assert (slices[0]["ts"], slices[0]["dur"]) == (1000.0, 500.0)
    assert slices[0]["tid"] != slices[1]["tid"]


def test_text_of_other_processes_cannot_command_the_terminal() -> None:
    assert text.plain("a\x1b[31m\x9b\r\x7fb\n\tc") == "a\ufffd[31m\ufffd\ufffd\ufffdb\n\tc"
    assert text.label("one\ntwo") == "one two"


# ---- the rest


def test_compositions_are_listed_and_explained() -> None:
    listed = launcher("compositions").stdout
    assert re.search(r"^default +\S", listed, re.MULTILINE)
    explained = launcher("compositions", "default").stdout
    assert re.search(r"^example +IC2", explained, re.MULTILINE)
    unknown = launcher("compositions", "defalt")
    assert unknown.returncode == 2
    assert "default" in unknown.stderr


def test_doctor_reports_this_host_and_fails_only_for_what_is_required() -> None:
    found = launcher("doctor")
    assert "kernel" in found.stdout
    assert found.returncode == int("FAIL" in found.stdout)


def test_output_into_a_closed_pipe_ends_quietly(up: Box) -> None:
    command = f"{sys.executable} {LAUNCHER} status --name {up.name} | head -n 1"
    piped = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE)
    assert piped.stdout.startswith(f"{up.name}: ")
    assert piped.stderr == ""


def test_the_core_reaches_the_memory_manager_that_calls_it_back(echoes: Box) -> None:
    """It asks for the pools once after each boot; a memory manager stuck in that is restarted as hung."""
    until(lambda: echoes.service("memmgr")["totals"]["calls"] >= 1, "the core's first call to memmgr ends", 5.0)
    assert echoes.process("memmgr")["deaths"] == 0
