"""Systems under test: booted under unique names, with their clients, and killed when their test ends.

A `Box` is one of them as a test sees it. Once all its clients have gone, no stack of a service that only clients call
is bound: `Box.settle` waits for that.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import shim
from corekernel import boot, composition
from corekernel.boot import Running
from corekernel.channel import Channel
from corekernel.composition import Composition
from tests.processes import SETTLE_SECONDS, Child, Facts, Tell, children_of, stopped, until

CALL_SECONDS = 15.0
ECHOES = str(Path(__file__).parent / "echoes.toml")
FAULTY = """
[service.faulty]
module = "tests.faulty"
interface = "bench_echo"
calls = ["core"]
"""
_names = itertools.count()


def system_name(what: str = "") -> str:
    """A name that no other system on this host has."""
    return f"test-{os.getpid()}-{next(_names)}{what}"


living: list[Box] = []


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

    def forget_clients(self) -> None:
        """Hold on to those no longer that `settle` has let go."""
        self.children.clear()
        self.attached.clear()

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
        if self in living:
            living.remove(self)
        if self._observer is not None:
            self._observer.close()
        self.running.kill()
        os.close(self.running.pidfd)


class Boots(Protocol):
    """What the fixture `system` gives."""

    def __call__(self, base: str = ECHOES, text: str = "", **options: Any) -> Box:
        """Boot composition `base` with the TOML `text` laid over it; options are those of `boot.launch`."""
        ...


class Keeps(Protocol):
    """What the fixture `kept` gives."""

    def __call__(self, text: str = "", base: str = ECHOES) -> Box:
        """The module's system of composition `base` with the TOML `text` laid over it."""
        ...


def boot_box(directory: Path, base: str, text: str, **options: Any) -> Box:
    """Boot one system."""
    name = system_name()
    path = directory / f"{name}.toml"
    path.write_text(f'inherit = "{base}"\n{text}')
    checked = composition.load(path)
    box = Box(boot.launch(name, checked, **options), checked)
    living.append(box)
    return box


def raw_connection(name: str) -> Channel:
    """A connection to a system's socket with nothing said yet."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(boot.address(name))
    return Channel(sock)
