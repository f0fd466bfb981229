"""How tests see the host's processes, wait for what they bring about, and hold clients of their own.

A client that is to be killed is a `Child`: a fork that runs one function and tells what it sees as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Facts = dict[str, Any]
PATIENCE = 20.0
SETTLE_SECONDS = 10.0
_FUTEX = "202"
_WALL = 0x40000000
_THREADS = 17  # of the fields that `stat_of` gives
_STAT_BYTES = 4096  # more than a line of /proc/PID/stat has; this is read for every process, before and after each test


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Poll until `condition` holds; its value. Fails the test when it does not come true in time."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up, f"in {seconds} s it did not happen that {what}"
        time.sleep(0.003)
    return value


# ---- processes as the host shows them


def stat_of(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (state, ppid, ...); None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, _STAT_BYTES).rpartition(b")")[2].decode().split()
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie; one whose first thread alone has ended still holds what it held."""
    fields = stat_of(pid)
    return fields is not None and (fields[0] not in "ZX" or int(fields[_THREADS]) > 1)


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status as a dictionary."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def children_of(pid: int) -> list[int]:
    """Living children of a process."""
    return [child for child, (parent, _) in process_table().items() if parent == pid and alive(child)]


def process_table() -> dict[int, tuple[int, str]]:
    """Every process of the host: pid -> (parent, start time)."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat_of(int(entry))) is not None:
            found[int(entry)] = (int(fields[1]), fields[19])
    return found


def in_futex(pid: int) -> bool:
    """Whether a thread (a pid means the main one) sleeps in a futex: of a client, that it waits in a call."""
    try:
        return Path(f"/proc/{pid}/syscall").read_text().startswith(_FUTEX + " ")
    except (FileNotFoundError, ProcessLookupError):
        return False


def stopped(pid: int) -> bool:
    """Whether every thread of a process has obeyed SIGSTOP."""
    states = [Path(path).read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state == "T" for state in states)


def childless() -> bool:
    """Whether this process has no child of any kind, zombies included; a subreaper then has no descendant at all."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return True
    return False


# ---- client processes


class Tell:
    """What a `Child` has of the test: it tells facts, and pauses until the test lets it go on."""

    def __init__(self, writing: int, reading: int) -> None:
        self._writing, self._reading = writing, reading

    def say(self, message: Facts) -> None:
        """One line of JSON."""
        os.write(self._writing, json.dumps(message).encode() + b"\n")

    def __call__(self, fact: Any) -> None:
        self.say({"fact": fact})

    def pause(self) -> None:
        """Wait for `Child.go`."""
        os.read(self._reading, 1)


class Child:
    """A fork of the test that runs `body(tell)`; what it tells, and at last returns, can be heard as JSON.

    What it raises fails the test that listens. It ends without cleaning up: it is a fork.
    """

    def __init__(self, body: Callable[[Tell], Any]) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self._going, self._go = os.pipe2(os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(body, Tell(writing, self._going))
        os.close(writing)
        self._stream = os.fdopen(reading, "rb", buffering=0)
        self._text = b""
        self.status: int | None = None

    @staticmethod
    def _live(body: Callable[[Tell], Any], tell: Tell) -> None:
        try:
            tell.say({"result": body(tell)})
        except BaseException:
            with contextlib.suppress(OSError):
                tell.say({"failure": traceback.format_exc()})
        finally:
            os._exit(0)

    def _next(self, seconds: float) -> Facts:
        give_up = time.monotonic() + seconds
        while b"\n" not in self._text:
            ready = select.select([self._stream], [], [], max(0.0, give_up - time.monotonic()))[0]
            assert ready, f"client {self.pid} said nothing for {seconds} s"
            data = os.read(self._stream.fileno(), 65536)
            assert data, f"client {self.pid} ended without saying more"
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        message: Facts = json.loads(line)
        assert "failure" not in message, message["failure"]
        return message

    def hear(self, seconds: float = PATIENCE) -> Any:
        """The next fact it tells."""
        message = self._next(seconds)
        assert "fact" in message, f"client {self.pid} ended instead, with {message}"
        return message["fact"]

    def result(self, seconds: float = PATIENCE) -> Any:
        """What `body` returned; facts not heard yet are skipped."""
        while "result" not in (message := self._next(seconds)):
            continue
        self.reap()
        return message["result"]

    def reap(self) -> None:
        """Collect its end."""
        if self.status is None:
            with contextlib.suppress(ChildProcessError):
                self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """Kill -9, unless it has ended."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.reap()

    def go(self) -> None:
        """End its `pause`, the present one or the next."""
        os.write(self._go, b"!")

    def waits(self) -> None:
        """Return once it sleeps in a call."""
        until(lambda: in_futex(self.pid), f"client {self.pid} waits in a call")

    def close(self) -> None:
        """End it and let go of it."""
        self.kill()
        if not self._stream.closed:
            self._stream.close()
            os.close(self._go)
            os.close(self._going)
