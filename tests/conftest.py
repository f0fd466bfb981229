"""Systems, clients and the rule that nothing outlives a test.

`system` boots compositions under unique names and kills them when the test ends; `Box` is one of them as a test sees
it, with its clients. A client that is to be killed is a `Child`: a fork that runs one function and tells what it sees
as JSON.

Two checks follow every test:

* pools: once all clients of a `Box` have gone, no stack of a service that only clients call is bound (`Box.settle`);
* residue: no process, no entry of /dev/shm, no abstract socket and no mount that was not there before. This process is
  a child subreaper, so whatever is left behind becomes its descendant, whoever started it; whatever else runs on the
  host at the same time is none of ours and is not looked at.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

import shim
from corekernel import boot, composition, namespaces
from corekernel.boot import Running
from corekernel.channel import Channel
from corekernel.composition import Composition

T = TypeVar("T")
Facts = dict[str, Any]

PATIENCE = 20.0
CALL_SECONDS = 15.0
SETTLE_SECONDS = 10.0
CONSOLE_SHOWN = 4000
FAULTY = """
[service.faulty]
module = "tests.faulty"
interface = "bench_echo"
calls = ["core"]
"""
_FUTEX = "202"
_names = itertools.count()


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
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    fields = stat_of(pid)
    return fields is not None and fields[0] not in "ZX"


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


# ---- systems


def system_name(what: str = "") -> str:
    """A name that no other system on this host has."""
    return f"test-{os.getpid()}-{next(_names)}{what}"


_living: list[Box] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure, show the end of the console of every system that is up."""
    report = yield
    if report.failed:
        for box in _living:
            with contextlib.suppress(Exception):
                report.sections.append((f"console of {box.name}", box.log()[-CONSOLE_SHOWN:]))
    return report


@dataclass(eq=False)
class Box:
    """A running system under test."""

    running: Running
    composition: Composition
    children: list[Child] = field(default_factory=list)
    attached: list[shim.System] = field(default_factory=list)
    _observer: shim.System | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.running.name

    # ---- clients

    def attach(self, timeout: float | None = CALL_SECONDS) -> shim.System:
        """Attach this process once more, as one more client; calls have a deadline so that no failure hangs."""
        system = shim.attach(self.name, timeout)
        self.attached.append(system)
        return system

    def child(self, body: Callable[[Tell], Any]) -> Child:
        """A process that runs `body`; it dies with the test."""
        child = Child(body)
        self.children.append(child)
        return child

    def client(self, body: Callable[[shim.System, Tell], Any], timeout: float | None = CALL_SECONDS) -> Child:
        """A process that attaches and runs `body(system, tell)`."""
        return self.child(lambda tell: body(shim.attach(self.name, timeout), tell))

    # ---- what the core says

    def ask(self, what: str, **details: Any) -> Facts:
        """A request to the core over a connection kept for that: no stack is ever bound for it."""
        if self._observer is None:
            self._observer = shim.attach(self.name)
        reply: Facts = self._observer.ask(what, **details)
        return reply

    def status(self) -> Facts:
        """Status, without the observer itself among the clients."""
        reply = self.ask("status")
        assert self._observer is not None
        reply["clients"] = [c for c in reply["clients"] if c["number"] != self._observer.pid]
        return reply

    def log(self) -> str:
        """The console, as far as it is kept."""
        text, position = "", 0
        while True:
            reply = self.ask("logs", after=position)
            text, position = text + str(reply["text"]), int(reply["position"])
            if not reply["text"]:
                return text

    def logged(self, text: str, times: int = 1) -> None:
        """Return once the console shows a text that often."""
        until(lambda: self.log().count(text) >= times, f"the console shows {text!r} {times} times")

    def process(self, service: str) -> Facts:
        """The process a service runs in: name, state, pid, uid, deaths, services."""
        found: Facts = next(p for p in self.status()["processes"] if any(s["name"] == service for s in p["services"]))
        return found

    def service(self, name: str) -> Facts:
        """One service: number, generation, pool, totals."""
        found: Facts = next(s for s in self.process(name)["services"] if s["name"] == name)
        return found

    def generation(self, name: str) -> int:
        """The present generation of a service."""
        return int(self.service(name)["generation"])

    def bound(self, name: str) -> int:
        """Stacks of a service that are bound."""
        return int(self.service(name)["pool"]["bound"])

    def zygotes(self) -> list[int]:
        """The zygotes: what the core has for children beside services and programs."""
        status = self.status()
        known = {p["pid"] for p in status["processes"]} | {c["pid"] for c in status["clients"]}
        return [pid for pid in children_of(status["core_pid"]) if pid not in known]

    # ---- what tests do to it

    def pid(self, service: str) -> int:
        """Host pid of the process of a service that is up."""
        return int(until(lambda: self._up(service), f"{service} is up"))

    def _up(self, service: str) -> int:
        process = self.process(service)
        return int(process["pid"]) if process["state"] == "up" else 0

    def kill(self, service: str) -> int:
        """Kill -9 the process of a service; the generation that died."""
        generation = self.generation(service)
        os.kill(self.pid(service), signal.SIGKILL)
        return generation

    def recovered(self, service: str, generation: int) -> None:
        """Return once a generation later than `generation` is up."""
        until(
            lambda: self.generation(service) > generation and self.process(service)["state"] == "up",
            f"{service} comes back after generation {generation}",
        )

    @contextlib.contextmanager
    def frozen(self, service: str) -> Iterator[int]:
        """Hold a service process still; its pid. A test may kill it meanwhile."""
        pid = self.pid(service)
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: stopped(pid), f"{service} stops")
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # ---- the end

    def running_core(self) -> bool:
        """Whether the system still answers."""
        with contextlib.suppress(boot.BootError, OSError), boot.connect(self.name):
            return True
        return False

    def settle(self) -> None:
        """Let all clients go, and see their stacks come back."""
        for child in self.children:
            child.close()
        for system in self.attached:
            system.close()
        if self.running_core() and not self.running.wait(0):
            until(lambda: not self._still_bound(), f"stacks come back: {self._still_bound()}", SETTLE_SECONDS)

    def _still_bound(self) -> dict[str, int]:
        """Stacks bound in services that no service calls, less the one that the core itself has in a pre-bound one."""
        called = {name for service in self.composition.services for name in service.calls}
        kept = {
            s["name"]: s["pool"].get("bound", 0) - (s["name"] in self.composition.prebind)
            for p in self.status()["processes"]
            for s in p["services"]
            if s["name"] not in called - {"memmgr"}
        }
        return {name: bound for name, bound in kept.items() if bound > 0}

    def close(self) -> None:
        """End it, whatever state it is in."""
        for child in self.children:
            child.close()
        if self in _living:
            _living.remove(self)
        if self._observer is not None:
            self._observer.close()
        self.running.kill()
        os.close(self.running.pidfd)


class Boots(Protocol):
    """What the fixture `system` gives."""

    def __call__(self, base: str = "bench", text: str = "", **options: Any) -> Box:
        """Boot composition `base` with the TOML `text` laid over it; options are those of `boot.launch`."""
        ...


def boot_box(directory: Path, base: str, text: str, **options: Any) -> Box:
    """Boot one system."""
    name = system_name()
    path = directory / f"{name}.toml"
    path.write_text(f'inherit = "{base}"\n{text}')
    checked = composition.load(path)
    box = Box(boot.launch(name, checked, **options), checked)
    _living.append(box)
    return box


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Boots]:
    """Boots systems for one test; they are killed when it ends, after their pools were seen to settle."""
    boxes: list[Box] = []

    def start(base: str = "bench", text: str = "", **options: Any) -> Box:
        boxes.append(boot_box(tmp_path, base, text, **options))
        return boxes[-1]

    try:
        yield start
        for box in boxes:
            box.settle()
    finally:
        for box in boxes:
            box.close()


@pytest.fixture
def bench(system: Boots) -> Box:
    """A system of the composition `bench` for one test."""
    return system()


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("shared"), "bench", FAULTY)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def shared(_shared: Box) -> Iterator[Box]:
    """A system of `bench` and the service `faulty`, for all tests of a module; each leaves its pools settled."""
    yield _shared
    _shared.settle()
    _shared.children.clear()
    _shared.attached.clear()


def raw_connection(name: str) -> Channel:
    """A connection to a system's socket with nothing said yet."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(boot.address(name))
    return Channel(sock)


# ---- residue


def _ours(before: set[tuple[int, str]]) -> dict[int, str]:
    """Living descendants of this process that have no ancestor among those there before; zombies are collected."""
    table = process_table()
    kin: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        kin.setdefault(parent, []).append(pid)
    found: dict[int, str] = {}
    waiting = list(kin.get(os.getpid(), []))
    while waiting:
        pid = waiting.pop()
        if (pid, table[pid][1]) in before:
            continue
        waiting.extend(kin.get(pid, []))
        if alive(pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just gone
                found[pid] = " ".join(status_of(pid).get(key, "") for key in ("Name", "PPid", "State", "Uid"))
        elif table[pid][0] == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return found


def _shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


def _used_by_others(name: str) -> bool:
    """Whether a process that is not ours has an entry of /dev/shm mapped or open (then it is not our residue)."""
    for pid in process_table():
        with contextlib.suppress(OSError):
            if f"/dev/shm/{name}" in Path(f"/proc/{pid}/maps").read_text() and pid != os.getpid():
                return True
    return False


def _sockets() -> set[str]:
    """Names of systems of this run that have a socket."""
    names = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "@hmk/" in line}
    return {name for name in names if f"-{os.getpid()}-" in name or name.endswith(f"-{os.getpid()}")}


def _mounts() -> set[str]:
    return set(Path("/proc/self/mounts").read_text().splitlines())


@dataclass
class Residue:
    """What is there now that a test may not add to."""

    processes: set[tuple[int, str]]
    memory: set[str]
    sockets: set[str]
    mounts: set[str]

    @classmethod
    def now(cls) -> Residue:
        """Take stock."""
        processes = {(pid, started) for pid, (_, started) in process_table().items()}
        return cls(processes, _shared_memory(), _sockets(), _mounts())

    def added(self) -> list[str]:
        """What has come since, one line each."""
        found = [f"process {pid}: {what}" for pid, what in _ours(self.processes).items()]
        found += [f"/dev/shm/{name}" for name in _shared_memory() - self.memory if not _used_by_others(name)]
        found += [f"socket {name}" for name in _sockets() - self.sockets]
        return found + [f"mount {line}" for line in _mounts() - self.mounts]


def _no_residue(before: Residue) -> None:
    give_up = time.monotonic() + SETTLE_SECONDS
    while left := before.added():
        if time.monotonic() > give_up:
            for pid in _ours(before.processes):
                os.kill(pid, signal.SIGKILL)
            pytest.fail("left behind:\n" + "\n".join(left))
        time.sleep(0.005)


@pytest.fixture(scope="session", autouse=True)
def _subreaper() -> Iterator[None]:
    namespaces.adopt_orphans()
    before = Residue.now()
    yield
    _no_residue(before)


@pytest.fixture(autouse=True)
def residue() -> Iterator[None]:
    """Nothing outlives a test; systems of wider scope are there before it."""
    before = Residue.now()
    yield
    _no_residue(before)
