"""The demonstration (`make run`): a system boots, programs work on its files, services are killed under their hands.

One client (`bench.demo_client copy`) copies Python's own standard library into the system, another (`check`) reads
everything back and compares its SHA-256 with what the first has read at the source. Both are processes of their own
under user ids of their own. Meanwhile, evenly over the files, we send SIGKILL to each of the services that they live
by: the file system, the process manager, what serves the host's directories, the devices. The core notices each death
by a pidfd and starts the service again; the clients' stubs issue their calls once more. Afterwards we show what calls
and file operations cost, let the user look around, and search for anything left behind.

Everything shown is measured in this run. The exit status is 1 when a byte was wrong or missing, or something was left.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

import shim
from bench import demo_costs, peers
from bench.demo_client import TARGET
from bench.demo_costs import Costs
from bench.peers.streams import PIPE
from corekernel import boot, composition
from corekernel.channel import Message
from corekernel.cli import shell, status, systems
from corekernel.cli.text import amount, duration, label, table

COPY_VICTIMS = ("fs", "hostfs")  # of each phase, those that the composition has
CHECK_VICTIMS = ("procmgr", "fs", "devmgr")
BAR = 32
PEER_SECONDS = 0.5
RESTART_SECONDS = 5.0
POLL_SECONDS = 0.005  # who asks more often keeps the core from restarting it
ANSWER_SECONDS = 10.0


@dataclass
class Phase:
    """One client's work, as far as we have seen it."""

    victims: list[str]
    files: int = 0
    last: Message = field(default_factory=dict)
    killed: int = 0

    def due(self) -> Iterator[str]:
        """Victims whose time has come; each once, spread evenly over the files."""
        while self.killed < len(self.victims):
            if int(self.last.get("done", 0)) * (len(self.victims) + 1) < self.files * (self.killed + 1):
                return
            self.killed += 1
            yield self.victims[self.killed - 1]

    def line(self) -> str:
        """Progress in one line."""
        done, sent = int(self.last.get("done", 0)), float(self.last.get("sent", 0))
        seconds = max(float(self.last.get("seconds", 0)), 1e-9)
        filled = BAR * done // max(1, self.files)
        bar = "#" * filled + "." * (BAR - filled)
        return f"  [{bar}] {done}/{self.files} files, {amount(sent)}, {done / seconds:,.0f} files/s"


def main() -> int:
    """Run the demonstration; exit status."""
    systems.on_termination()
    name = f"demo-{os.getpid()}"
    library = Path(sysconfig.get_paths()["stdlib"]).resolve()
    mounts = Path("/proc/self/mountinfo").read_text()
    running = boot.launch(name, composition.load("default"), view=[library])
    try:
        with shim.attach(name) as system:
            print(status.tree(system.ask("status")), flush=True)
            good = _copy_and_check(system, library) and _costs(system)
            _offer_shell(system, name)
            family = psutil.Process(running.pid).children(recursive=True)
    finally:
        ended = systems.end(running)
    left = _left_behind(family, name, mounts)
    print(f"\n{name} {'went down in order' if ended else 'had to be killed'}; left behind: {left or 'nothing'}")
    return int(not (good and ended and not left))


# ---- two clients, and services that die


def _copy_and_check(system: shim.System, library: Path) -> bool:
    """Both clients' work; whether everything that went in came out."""
    first, second = _present(system, COPY_VICTIMS), _present(system, CHECK_VICTIMS)
    print(f"\nOne client copies the sources of Python's library to {TARGET}, another reads them back and compares;")
    print(f"in the middle, kill -9 meets {_listed(first)} of the one, {_listed(second)} of the other.", flush=True)
    with open(os.devnull, "rb") as nothing:
        copied = _phase(system, ["copy", str(library)], nothing, first)
    if copied is None:
        return False
    with tempfile.TemporaryFile() as digests:
        digests.write(json.dumps(copied["digests"]).encode())
        digests.seek(0)
        checked = _phase(system, ["check"], digests, second)
    if checked is None or any(checked[what] for what in ("wrong", "missing", "unexpected")):
        return False
    deaths = sum(process["deaths"] for process in system.ask("status")["processes"])
    count = len(copied["digests"])
    print(f"  all {count} files are there and right; {deaths} deaths of services, and no client saw an error\n")
    return count > 0


def _present(system: shim.System, victims: tuple[str, ...]) -> list[str]:
    """Those services that have a process of their own here."""
    present = {process["name"] for process in system.ask("status")["processes"]}
    return [name for name in victims if name in present]


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(f"`{name}`" for name in part) for part in (names[:-1], names[-1:]) if part])


def _phase(system: shim.System, words: list[str], given: IO[bytes], victims: list[str]) -> Message | None:
    """Run a client, kill services meanwhile, show it all; what it said at last, None when it failed."""
    number, lines = _start_client(system, words, given)
    phase = Phase(victims)
    for facts in lines:
        if "source" in facts:
            phase.files = int(facts["files"])
            work = f"{phase.files} files, {amount(facts['bytes'])}, from {label(facts['source'])}"
            print(f"\n  {words[0]}, by user id {facts['user']}: {work}", flush=True)
            continue
        phase.last = facts
        for victim in phase.due():
            _kill(system, victim)
        if sys.stdout.isatty():
            print(f"\r{phase.line()}\033[K", end="", flush=True)
    good = int(system.ask("result", number=number)["status"]) == 0
    print(f"\r{phase.line()}\033[K" if sys.stdout.isatty() else phase.line(), flush=True)
    if good:
        return phase.last
    print(f"  {_blame(phase.last)}")
    return None


def _blame(last: Message) -> str:
    """What was wrong, of a client that failed."""
    for what in ("wrong", "missing", "unexpected"):
        if names := last.get(what):
            return f"{len(names)} files are {what.upper()}, such as {label(names[0])}"
    return "the client FAILED"


def _start_client(system: shim.System, words: list[str], given: IO[bytes]) -> tuple[int, Iterator[Message]]:
    """Start a client under its own user id; its number, and what it says until it ends."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", "bench.demo_client", *words]
    request = {"do": "run", "argv": argv, "env": {"PYTHONPATH": str(boot.ROOT)}, "cwd": "/"}
    reply, _ = system.attachment.ask(request, (given.fileno(), writing, sys.stderr.fileno()))
    os.close(writing)

    def lines() -> Iterator[Message]:
        with open(reading, encoding="utf-8") as stream:
            yield from map(json.loads, stream)

    return int(reply["number"]), lines()


def _kill(system: shim.System, victim: str) -> None:
    """Send SIGKILL to a service and time how long the core needs to have it up again."""
    before = _process(system, victim)
    began = time.monotonic()
    os.kill(before["pid"], signal.SIGKILL)
    clear = "\r\033[K" if sys.stdout.isatty() else ""
    print(f"{clear}  kill -9 {before['pid']} ({victim})", end="", flush=True)
    while time.monotonic() < began + RESTART_SECONDS:
        now = _process(system, victim)
        if now["pid"] != before["pid"] and now["state"] == "up":
            took = duration(time.monotonic() - began)
            print(f": restarted as {now['pid']}, user id {now['uid']}, after {took}", flush=True)
            return
        time.sleep(POLL_SECONDS)
    print(": it did not come back", flush=True)


def _process(system: shim.System, name: str) -> Message:
    found: Message = next(p for p in system.ask("status")["processes"] if p["name"] == name)
    return found


# ---- what it costs


def _costs(system: shim.System) -> bool:
    """Tables of what calls and operations on files cost in this run; whether the client measured them."""
    with open(os.devnull, "rb") as nothing:
        number, lines = _start_client(system, ["costs"], nothing)
        said = list(lines)
    if int(system.ask("result", number=number)["status"]) or not said:
        return False
    _show_calls(said[-1]["calls"])
    _show_files(said[-1]["files"], demo_costs.on_tmpfs())
    return True


def _show_calls(costs: Costs) -> None:
    """Beside a pipe between two Python processes."""
    rows = [("what a call costs, Python to Python", "p50 µs", "p99 µs")]
    rows += [(f"  {what}", *_microseconds(p50, p99)) for what, p50, p99 in costs]
    for size, what in ((0, "  os.pipe, nothing there and back"), (1 << 20, "  os.pipe, 1 MiB there and back")):
        row = peers.measure(PIPE, "free", size, PEER_SECONDS)
        rows.append((what, *(_microseconds(row.p50_ns, row.p99_ns) if row.n else ("-", row.note or "-"))))
    print("\n".join(table(rows, right=(1, 2))))


def _show_files(here: Costs, host: Costs) -> None:
    """Beside the same operations on the host, by its own kernel."""
    known = {what: _microseconds(p50, p99) for what, p50, p99 in host}
    rows = [("what an operation on a file costs", "p50 µs", "p99 µs", "host's tmpfs: p50 µs", "p99 µs")]
    rows += [(f"  {what}", *_microseconds(p50, p99), *known.get(what, ("-", "-"))) for what, p50, p99 in here]
    print("\n".join(["", *table(rows, right=(1, 2, 3, 4))]), flush=True)


def _microseconds(p50: float, p99: float) -> tuple[str, str]:
    return f"{p50 / 1e3:,.1f}", f"{p99 / 1e3:,.1f}"


# ---- the end


def _offer_shell(system: shim.System, name: str) -> None:
    """Say how to look around, and let whoever sits at a terminal do it in this system."""
    print("\nA shell on a system's files, processes and mounts:  .venv/bin/python launcher.py shell")
    if os.environ.get("CI") or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    print(f"Look around in this one? [y/N] (within {ANSWER_SECONDS:.0f} s) ", end="", flush=True)
    answered = select.select([sys.stdin], [], [], ANSWER_SECONDS)[0]
    if answered and sys.stdin.readline().strip().lower() in ("y", "yes"):
        shell.on(system, name)
    elif not answered:
        print()


def _left_behind(family: list[psutil.Process], name: str, mounts: str) -> str:
    """What is left of a system that went down: processes, its socket, mounts, shared memory; "" for nothing."""
    psutil.wait_procs(family, timeout=2)
    found = [f"process {p.pid}" for p in family if p.is_running()]
    found += ["its socket"] if f"@hmk/{name}" in Path("/proc/net/unix").read_text() else []
    found += ["mounts"] if Path("/proc/self/mountinfo").read_text() != mounts else []
    found += [f"/dev/shm/{path.name}" for path in Path("/dev/shm").glob(f"hmk*{os.getpid()}*")]
    return ", ".join(found)
