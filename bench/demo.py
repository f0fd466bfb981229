"""The demonstration (`make run`): a system boots, a program works on it, services are killed under its hands.

A *client* (`bench.demo_client`) streams Python's own standard library through the digest service, under a user id of
its own, and compares every digest with its own. At a third and at two thirds of the files we send SIGKILL to a
service: to `example`, which the client is calling, and to `procmgr`, which owns the process table. The core notices
each death by a pidfd, starts the service again, and the client's stub re-issues the call. Afterwards we show what a
call costs, beside a pipe, and look for anything left behind.

Everything shown is measured in this run. The exit status is 1 when a digest was wrong or something was left.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import shim
from bench import peers
from bench.peers.streams import PIPE
from corekernel import boot, composition
from corekernel.channel import Message
from corekernel.cli import status, systems
from corekernel.cli.text import amount, duration, table
from corekernel.port import INLINE_BYTES

VICTIMS = ((1 / 3, "example"), (2 / 3, "procmgr"))
BAR = 32
PEER_SECONDS = 0.5
RESTART_SECONDS = 5.0


@dataclass
class Show:
    """What the demonstration has seen so far."""

    files: int = 0
    last: Message = field(default_factory=dict)
    kills: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Progress in one line."""
        done, sent = int(self.last.get("done", 0)), float(self.last.get("sent", 0))
        seconds = max(float(self.last.get("seconds", 0)), 1e-9)
        filled = BAR * done // max(1, self.files)
        bar = "#" * filled + "." * (BAR - filled)
        return (
            f"  [{bar}] {done}/{self.files} files, {amount(sent)}, {done / seconds:,.0f} files/s, "
            f"{len(self.kills)} killed"
        )


def main() -> int:
    """Run the demonstration; exit status."""
    systems.on_termination()
    name = f"demo-{os.getpid()}"
    library = Path(sysconfig.get_paths()["stdlib"])
    mounts = Path("/proc/self/mountinfo").read_text()
    running = boot.launch(name, composition.load("default"), view=[library])
    try:
        with shim.attach(name) as system:
            print(status.tree(system.ask("status")), flush=True)
            good = _stream(system, library)
            family = psutil.Process(running.pid).children(recursive=True)
    finally:
        ended = systems.end(running)
    left = _left_behind(family, name, mounts)
    print(f"\n{name} {'went down in order' if ended else 'had to be killed'}; left behind: {left or 'nothing'}")
    return int(not (good and ended and not left))


def _stream(system: shim.System, library: Path) -> bool:
    """Run the client, kill services meanwhile, show it all; whether every digest was right."""
    print(f"\nA client streams {library} through `example.digest`;")
    print("two services are killed meanwhile (kill -9).")
    number, lines = _start_client(system, library)
    show = Show()
    for facts in lines:
        if "files" in facts:
            show.files = int(facts["files"])
            print(
                f"  {show.files} files, {amount(facts['bytes'])}: up to {INLINE_BYTES:,} bytes travel in the frame",
                end="",
            )
            print(" of the call, more in a shared buffer", flush=True)
        else:
            show.last = facts
            _kill_when_due(system, show)
            _progress(show.line())
    good = int(system.ask("result", number=number)["status"]) == 0
    print(f"\r{show.line()}\033[K" if sys.stdout.isatty() else show.line())
    print(f"  {_verdict(system, show, good)}\n")
    _costs(show.last.get("latency", []))
    return good


def _start_client(system: shim.System, library: Path) -> tuple[int, Iterator[Message]]:
    """Start the client under its own user id; its number, and what it says until it ends."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", "bench.demo_client", str(library)]
    request = {"do": "run", "argv": argv, "env": {"PYTHONPATH": str(boot.ROOT)}, "cwd": "/"}
    with open(os.devnull) as null:
        reply, _ = system.attachment.ask(request, (null.fileno(), writing, sys.stderr.fileno()))
    os.close(writing)

    def lines() -> Iterator[Message]:
        with open(reading, encoding="utf-8") as stream:
            yield from map(json.loads, stream)

    return int(reply["number"]), lines()


def _kill_when_due(system: shim.System, show: Show) -> None:
    for share, victim in VICTIMS:
        if victim not in show.kills and share * show.files <= int(show.last["done"]):
            show.kills.append(victim)
            _kill(system, victim)


def _kill(system: shim.System, victim: str) -> None:
    """Send SIGKILL to a service and time how long the core needs to have it up again."""
    before = _process(system, victim)
    began = time.monotonic()
    os.kill(before["pid"], signal.SIGKILL)
    print(f"\n  kill -9 {before['pid']} ({victim})", end="", flush=True)
    while time.monotonic() < began + RESTART_SECONDS:
        now = _process(system, victim)
        if now["pid"] != before["pid"] and now["state"] == "up":
            took = duration(time.monotonic() - began)
            print(f": restarted as {now['pid']}, user id {now['uid']}, after {took}", flush=True)
            return
        time.sleep(0.001)
    print(": it did not come back", flush=True)


def _process(system: shim.System, name: str) -> Message:
    found: Message = next(p for p in system.ask("status")["processes"] if p["name"] == name)
    return found


def _progress(line: str) -> None:
    if sys.stdout.isatty():
        print(f"\r{line}\033[K", end="", flush=True)


def _verdict(system: shim.System, show: Show, good: bool) -> str:
    """What came of the client, in one line."""
    wrong = show.last.get("wrong")
    if wrong:
        return f"{len(wrong)} digests are WRONG, such as that of {wrong[0]}"
    if not good:
        return "the client FAILED before it was done"
    deaths = sum(process["deaths"] for process in system.ask("status")["processes"])
    return f"every digest is right; {len(show.kills)} services killed, {deaths} deaths, and the client saw no error"


def _costs(latency: list[tuple[str, float, float]]) -> None:
    """A table of what calls cost in this run, beside a pipe between two Python processes."""
    rows = [("what a call costs, Python to Python", "p50 µs", "p99 µs")]
    rows += [(f"  {what}", f"{p50 / 1e3:,.1f}", f"{p99 / 1e3:,.1f}") for what, p50, p99 in latency]
    for size, what in ((0, "  os.pipe, nothing there and back"), (1 << 20, "  os.pipe, 1 MiB there and back")):
        row = peers.measure(PIPE, "free", size, PEER_SECONDS)
        shown = (f"{row.p50_ns / 1e3:,.1f}", f"{row.p99_ns / 1e3:,.1f}") if row.n else ("-", row.note or "-")
        rows.append((what, *shown))
    print("\n".join(table(rows, right=(1, 2))))


def _left_behind(family: list[psutil.Process], name: str, mounts: str) -> str:
    """What is left of a system that went down: processes, its socket, mounts, shared memory; "" for nothing."""
    psutil.wait_procs(family, timeout=2)
    found = [f"process {p.pid}" for p in family if p.is_running()]
    found += ["its socket"] if f"@hmk/{name}" in Path("/proc/net/unix").read_text() else []
    found += ["mounts"] if Path("/proc/self/mountinfo").read_text() != mounts else []
    found += [f"/dev/shm/{path.name}" for path in Path("/dev/shm").glob(f"hmk*{os.getpid()}*")]
    return ", ".join(found)
