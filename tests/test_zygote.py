"""Starting and confining processes: every test runs a core of its own in a forked process."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from corekernel import namespaces
from corekernel.channel import Channel
from corekernel.confine import Confinement
from corekernel.spawned import Spawned, SpawnError
from corekernel.zygote import Zygote
from tests.forked import UID, as_root, become_nobody, run_forked
from tests.zygotes import CLIENT, HERE, OPEN, SERVICE, ask, ended, in_core, run_client, serve_echo

# Services ---------------------------------------------------------------------------------------------------


def test_a_confined_service_answers_and_ends_with_its_own_status() -> None:
    def body(zygote: Zygote) -> list[Any]:
        process, channel = serve_echo(zygote)
        page = os.memfd_create("page")
        os.write(page, b"page")
        channel.send({"n": 1}, [page])
        answer, (back,) = channel.recv(10)
        running = process.reap(block=False)
        channel.close()
        return [answer["fds"], os.pread(back, 4, 0).decode(), running, process.reap(), process.reap()]

    assert in_core(body) == [1, "page", None, 7, None]


def test_a_service_gets_exactly_what_it_is_given() -> None:
    def body(zygote: Zygote) -> dict[str, Any]:
        os.memfd_create("of the core alone")
        ours, theirs = Channel.pair()
        pages = [os.memfd_create(f"page{i}") for i in range(5)]
        for number, fd in enumerate(pages):
            os.write(fd, f"page{number}".encode())
        process = zygote.spawn(f"{HERE}:look_around", {}, [theirs.fileno(), *pages], OPEN)
        theirs.close()
        answer, _ = ours.recv(10)
        process.reap()
        return {**answer, "expected": [os.getpid(), process.pid]}

    found = in_core(body)
    assert found["fds"] == [3, 4, 5, 6, 7, 8]
    assert found["numbers"] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert found["inheritable"] == []
    assert found["contents"] == [f"page{i}" for i in range(5)]
    assert [found["parent"], found["pid"]] == found["expected"]
    assert (found["null"], found["group"], found["threads"], found["cwd"]) == (True, True, 1, "/")


@pytest.mark.parametrize("unprivileged", [False, True], ids=["root", "nobody"])
def test_every_attack_of_a_spawned_service_is_refused(unprivileged: bool) -> None:
    def body() -> dict[str, str]:
        if unprivileged:
            become_nobody()
        zygote = Zygote.start([HERE])
        victim, channel = serve_echo(zygote, Confinement() if unprivileged else SERVICE)
        ours, theirs = Channel.pair()
        page = os.memfd_create("page")
        spec = {"core": os.getpid(), "victim": victim.pid}
        confinement = Confinement() if unprivileged else Confinement(uid=UID + 1 if as_root else None)
        attacker = zygote.spawn(f"{HERE}:attack", spec, [theirs.fileno(), page], confinement)
        theirs.close()
        results: dict[str, str] = ours.recv(10)[0]
        assert attacker.reap() == 0
        assert ask(channel, 1), "the victim was hurt"
        return results

    results = run_forked(body)
    assert len(results) > 45
    assert {name: result for name, result in results.items() if result != "EPERM"} == {}


def test_what_a_service_raises_goes_to_its_standard_error() -> None:
    def body(zygote: Zygote) -> list[Any]:
        out, err = os.memfd_create("out"), os.memfd_create("err")
        spec = {"text": "süch a bug"}
        process = zygote.spawn(f"{HERE}:fail", spec, [], SERVICE, stdio=(0, out, err))
        return [process.reap(), os.pread(out, 1000, 0).decode(), os.pread(err, 9000, 0).decode()]

    status, out, err = in_core(body)
    assert (status, out) == (1, "to standard output\n")
    assert "RuntimeError: süch a bug" in err
    assert 'raise RuntimeError(spec["text"])' in err, "source lines come without opening a file"


def test_exit_codes_and_signals_are_told_apart() -> None:
    def body(zygote: Zygote) -> list[Any]:
        left = zygote.spawn(f"{HERE}:leave", {"code": 3}, [], SERVICE)
        killed = zygote.spawn(f"{HERE}:sleep_forever", {}, [], SERVICE)
        killed.kill()
        return [left.reap(), killed.reap()]

    assert in_core(body) == [3, -signal.SIGKILL]


@pytest.mark.parametrize(
    ("entry", "number", "words"),
    [
        ("tests.no_such_module:entry", errno.ENOENT, "no_such_module"),
        (f"{HERE}:no_such_entry", errno.EIO, "no_such_entry"),
    ],
)
def test_a_missing_entry_is_reported_and_leaves_nothing(entry: str, number: int, words: str) -> None:
    def body(zygote: Zygote) -> list[Any]:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(SpawnError) as refusal:
            zygote.spawn(entry, {}, [], SERVICE)
        process, channel = serve_echo(zygote)
        alive = ask(channel, 1)
        channel.close()
        process.reap()
        os.close(process.pidfd)
        return [refusal.value.errno, str(refusal.value), alive, len(os.listdir("/proc/self/fd")) - before]

    found = in_core(body)
    assert found[0] == number
    assert words in found[1]
    assert found[2:] == [True, 0]


def test_what_cannot_be_sent_uses_up_no_zygote() -> None:
    def body(zygote: Zygote) -> str:
        with pytest.raises(ValueError, match="descriptors"):
            zygote.spawn(f"{HERE}:echo", {}, [0] * 14, SERVICE)
        with pytest.raises(ValueError, match="numbers"):
            zygote.spawn_exec(["true"], {}, fds={1: 0})
        with pytest.raises(Exception, match="exceeds"):
            zygote.spawn_exec(["true"], {"HUGE": "x" * 70_000})
        return "refused"

    assert in_core(body) == "refused"


def test_the_core_places_a_process_before_it_does_anything() -> None:
    def body(zygote: Zygote) -> list[Any]:
        seen: list[str] = []

        def place(process: Spawned) -> None:
            seen.append(Path(f"/proc/{process.host_pid}/cmdline").read_bytes().split(b"\0")[0].decode())

        status, output = run_client(zygote, ["echo", "ran"], confinement=CLIENT, prepare=place)

        def refuse(process: Spawned) -> None:
            raise LookupError("no control group")

        with pytest.raises(LookupError):
            zygote.spawn(f"{HERE}:echo", {}, [], SERVICE, prepare=refuse)
        return [status, output, len(seen), os.path.basename(seen[0])]

    status, output, count, program = in_core(body)
    assert (status, output, count) == (0, "ran\n", 1)
    assert program != "echo"


def test_many_threads_of_the_core_may_spawn_at_once() -> None:
    def body(zygote: Zygote) -> list[Any]:
        answers: list[bool] = []

        def work(number: int) -> None:
            process, channel = serve_echo(zygote)
            answers.append(ask(channel, number))
            channel.close()
            answers.append(process.reap() == 7)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    assert in_core(body) == [True] * 12


def test_a_start_with_a_spare_zygote_ready_takes_milliseconds() -> None:
    def body(zygote: Zygote) -> float:
        times = []
        for _ in range(10):
            start = time.perf_counter()
            process, channel = serve_echo(zygote)
            times.append(time.perf_counter() - start)
            channel.close()
            process.reap()
        return min(times)

    # An exec'd Python takes ten times this; typical is 2 to 4 ms, the bound leaves room for a busy machine.
    assert in_core(body) < 0.03


# Programs ---------------------------------------------------------------------------------------------------


def test_a_program_runs_with_its_descriptors_directory_and_environment(tmp_path: Path) -> None:
    def body(zygote: Zygote) -> list[Any]:
        page = os.memfd_create("page")
        os.write(page, b"from the descriptor\n")
        os.lseek(page, 0, os.SEEK_SET)
        script = 'pwd; echo "$GREETING"; cat <&9; ls /proc/self/fd | grep -cv "^[0129]$"'
        reader, writer = os.pipe()
        process = zygote.spawn_exec(
            ["sh", "-c", script],
            {"PATH": "/bin:/usr/bin", "GREETING": "hällo \udcff"},
            cwd="/usr",
            fds={9: page},
            confinement=CLIENT,
            stdio=(0, writer, writer),
        )
        os.close(writer)
        with os.fdopen(reader, errors="surrogateescape") as file:
            return [file.read().splitlines(), process.reap()]

    lines, status = in_core(body)
    assert lines[:3] == ["/usr", "hällo \udcff", "from the descriptor"]
    assert lines[3:] == ["1"], "one more than given: the directory that ls itself has open"
    assert status == 0


@pytest.mark.parametrize(
    ("argv", "cwd", "number", "path"),
    [
        (["/no/such/program"], "/", errno.ENOENT, "/no/such/program"),
        (["no-such-program"], "/", errno.ENOENT, "no-such-program"),
        (["/etc/passwd"], "/", errno.EACCES, "/etc/passwd"),
        (["/bin/true"], "/no/such/place", errno.ENOENT, "/no/such/place"),
    ],
)
def test_a_program_that_cannot_start_says_why(argv: list[str], cwd: str, number: int, path: str) -> None:
    def body(zygote: Zygote) -> list[Any]:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(SpawnError) as refusal:
            zygote.spawn_exec(argv, {"PATH": "/bin:/usr/bin"}, cwd=cwd, confinement=CLIENT)
        # A spare zygote may meanwhile have introduced itself; its pidfd arrives only when it is taken.
        return [refusal.value.errno, refusal.value.filename, len(os.listdir("/proc/self/fd")) - before]

    assert in_core(body) == [number, path, 0]


def test_a_killed_or_failing_program_is_seen_through_its_pidfd() -> None:
    def body(zygote: Zygote) -> list[Any]:
        sleeper = zygote.spawn_exec(["/bin/sleep", "1000"], {}, confinement=CLIENT)
        sleeper.kill()
        failing = zygote.spawn_exec(["/bin/false"], {}, confinement=CLIENT)
        return [ended(sleeper.pidfd), sleeper.reap(), ended(failing.pidfd), failing.reap()]

    assert in_core(body) == [True, -signal.SIGKILL, True, 1]


@pytest.mark.skipif(not as_root, reason="needs root to mount")
def test_a_client_runs_this_interpreter_behind_the_zygotes_view() -> None:
    def body(zygote: Zygote) -> list[Any]:
        home = sorted(os.listdir("/root"))
        code = "import os, corekernel.errors; print(os.getuid())"
        checkout = str(Path(namespaces.__file__).parents[1])
        found = run_client(zygote, [sys.executable, "-c", code], cwd=checkout, confinement=CLIENT)
        return [found, home == sorted(os.listdir("/root"))]

    assert in_core(body, namespaces.interpreter_paths()) == [[0, f"{UID}\n"], True]
