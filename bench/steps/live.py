"""Whole calls to a booted system, what it notes of them itself, and the slow paths.

One client process, pinned, calls services pinned beside it and apart from it. Names of figures: `live.SIDE.WHAT.PLACE`
for calls (`null`, `echo8`, `mib`); `blocking.` the same where every wait sleeps; `seen.` what the service's trace ring
says of them; `watched.` the null call with operation statistics, with the trace ring; `slow.` what happens once in a
while.

A carrier whose caller has paused twice sleeps at once, until a pause is short again; and an interpreter that has slept
has its code and data elsewhere than in the nearest cache. So each round begins with calls that are not counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import shim
from bench.hmk import cell
from bench.hmk.cell import Start
from bench.hmk.client import CClient, Task
from bench.hmk.system import Booted, boot_text, pinned_services, service_name
from bench.placement import PlacementError, pin, placement
from bench.steps.loops import MIB
from bench.steps.probes import Effort, Probe, Samples, add, interleaved
from corekernel import dispatcher
from corekernel.errors import DeadlineExceeded, ServiceDied
from corekernel.session import Held
from shim.client import System

PATIENCE_S = 30.0
WARM, COUNTED = 150, 64
LARGE_WARM, LARGE_COUNTED = 10, 6
DEADLINE_S = 0.002
OVERDUE_NS = 5_000_000
BACKOFF_MS = 10
MORTAL = f"""
[service.mortal]
module = "bench.echo"
interface = "bench_echo"
restart = {{ max_per_minute = 1000, backoff_ms = {BACKOFF_MS}, backoff_max_ms = {BACKOFF_MS} }}
"""


@contextmanager
def system() -> Iterator[Callable[[Effort], Samples]]:
    """Boot what is called; gives the function that measures it once."""
    with boot_text(pinned_services() + MORTAL) as hybrid, boot_text(pinned_services(), "hmk:blocking") as blocking:

        def measure(effort: Effort) -> Samples:
            samples = _in_client(hybrid, lambda name: _calls(name, effort))
            add(samples, _in_client(blocking, lambda name: _blocking(name, effort)))
            add(samples, _in_client(hybrid, lambda name: _slow(name, effort.slow_rounds)))
            return samples

        yield measure


def _in_client(booted: Booted, body: Callable[[str], Samples]) -> Samples:
    def client(_: int, start: Start) -> Samples:
        start()
        return body(booted.name)

    return cell.run(booted, client, PATIENCE_S).results[0]


def _places() -> list[str]:
    """The placements that this machine can give, asked for before this process is pinned."""
    found = []
    for name in ("same-core", "cross-core"):
        try:
            placement(name)
        except PlacementError:
            continue
        found.append(name)
    return found


# ---- calls


def _calls(name: str, effort: Effort) -> Samples:
    places = _places()
    pin(placement("same-core").client)
    attached = shim.attach(name)
    probes: dict[str, Probe] = {}
    for place in places:
        probes |= _c_probes(attached, place) | _python_probes(attached, place)
    samples = interleaved(probes, effort.rounds)
    watched, seen = _watched(attached, places[-1]), [(side, place) for side in ("c", "python") for place in places]
    for _ in range(effort.slow_rounds):
        add(samples, interleaved(watched, 1))
        for side, place in seen:
            add(samples, _seen(attached, side, place))
    return samples


def _c_probes(attached: System, place: str) -> dict[str, Probe]:
    sizes = {"null": 0, "echo8": 8, "mib": MIB}
    return {f"live.c.{what}.{place}": _c_probe(attached, place, size) for what, size in sizes.items()}


def _c_probe(attached: System, place: str, payload_bytes: int) -> Probe:
    client = CClient(attached, Task("c", service_name("c", place), payload_bytes))
    warm, counted = (LARGE_WARM, LARGE_COUNTED) if payload_bytes == MIB else (WARM, COUNTED)

    def probe() -> float:
        client.some_calls(PATIENCE_S, warm)
        return sum(client.some_calls(PATIENCE_S, counted)) / counted

    return probe


def _python_probes(attached: System, place: str) -> dict[str, Probe]:
    client = attached.client(service_name("python", place))
    small, large = bytes(8), bytes(MIB)
    return {
        f"live.py.null.{place}": _repeated(client.null),
        f"live.py.echo8.{place}": _repeated(lambda: client.echo(small)),
        f"live.py.mib.{place}": _repeated(lambda: client.echo(large), LARGE_WARM, LARGE_COUNTED),
    }


def _repeated(call: Callable[[], object], warm: int = WARM, counted: int = COUNTED) -> Probe:
    def probe() -> float:
        for _ in range(warm):
            call()
        began = time.perf_counter_ns()
        for _ in range(counted):
            call()
        return (time.perf_counter_ns() - began) / counted

    return probe


def _blocking(name: str, effort: Effort) -> Samples:
    places = _places()
    pin(placement("same-core").client)
    attached = shim.attach(name)
    return interleaved({f"blocking.c.null.{p}": _c_probe(attached, p, 0) for p in places}, effort.rounds)


# ---- what is noted of them


def _watched(attached: System, place: str) -> dict[str, Probe]:
    """The null call in C with nothing noted, with operation statistics, with the trace ring."""
    call = _c_probe(attached, place, 0)
    modes = {"off": (False, False), "operations": (True, False), "trace": (False, True)}

    def under(operations: bool, trace: bool) -> Probe:
        def probe() -> float:
            attached.ask("observe", operations=operations, trace=trace)
            try:
                return call()
            finally:
                attached.ask("observe", operations=False, trace=False)

        return probe

    return {f"watched.{mode}": under(*flags) for mode, flags in modes.items()}


def _seen(attached: System, side: str, place: str) -> Samples:
    """From the trace ring: request issued to handler started, and handler started to its end, per call."""
    service = service_name(side, place)
    call = _c_probe(attached, place, 0) if side == "c" else _repeated(attached.client(service).null)
    attached.ask("observe", trace=True)
    try:
        call()
        before = dispatcher.now()
        call()
        events = _events(attached, service, before)[-COUNTED:]
    finally:
        attached.ask("observe", trace=False)
    ns = 1e6 / attached.attachment.welcome.tick_khz
    short = {"c": "c", "python": "py"}[side]
    return {
        f"seen.{short}.waited.{place}": [event["waited"] * ns for event in events],
        f"seen.{short}.handler.{place}": [event["duration"] * ns for event in events],
    }


def _events(attached: System, service: str, after: int) -> list[dict[str, int]]:
    found: list[dict[str, int]] = []
    while True:
        part = attached.ask("trace", service=service, after=after, skip=len(found))["events"]
        if not part:
            return [event for event in found if event["client"] == attached.pid]
        found += part


# ---- slow paths


def _slow(name: str, rounds: int) -> Samples:
    attached = shim.attach(name)
    samples: Samples = {}
    attached.client("mortal").null()
    for _ in range(rounds):
        add(samples, _binding(attached))
        add(samples, _deadline(attached))
        add(samples, _waiting(attached))
        add(samples, _dying(attached))
    return samples


def _elapsed(call: Callable[[], Any]) -> float:
    began = time.perf_counter_ns()
    call()
    return float(time.perf_counter_ns() - began)


def _binding(attached: System) -> Samples:
    """A further slot of this thread: bound to a stack, then given a buffer."""
    attachment = attached.attachment
    held = Held(attachment.session("mortal"))
    link, bound = held.session.take(attachment.policy)
    while bound:  # a spare one of an earlier round
        held.links.append(link)
        link, bound = held.session.take(attachment.policy)
    bind_ns = _elapsed(lambda: attachment.bind(held.session, [link]))
    held.links.append(link)
    buffer_ns = _elapsed(lambda: attachment.buffer(held.session, link, 64 << 10))
    return {"slow.bind": [bind_ns], "slow.buffer": [buffer_ns]}


def _deadline(attached: System) -> Samples:
    """How late a call ends whose deadline passes, and what the next one takes, its slot being held still."""
    client = attached.client("mortal", timeout=DEADLINE_S)

    def call() -> None:
        try:
            client.work(OVERDUE_NS)
        except DeadlineExceeded:
            return

    late = _elapsed(call) - DEADLINE_S * 1e9
    again = _elapsed(attached.client("mortal").null)
    time.sleep(OVERDUE_NS / 1e9)
    return {"slow.deadline": [late], "slow.after_deadline": [again]}


def _waiting(attached: System) -> Samples:
    """From the call that makes a condition true to the return of the one that waited for it, in another thread."""
    client = attached.client("mortal")
    returned: list[int] = []

    def wait() -> None:
        client.block()
        returned.append(time.perf_counter_ns())

    thread = threading.Thread(target=wait)
    thread.start()
    while not _asleep(thread):
        time.sleep(0.001)
    began = time.perf_counter_ns()
    client.release()
    thread.join()
    return {"slow.wait": [float(returned[0] - began)]}


def _asleep(thread: threading.Thread) -> bool:
    with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
        return file.read().startswith("202 ")


def _dying(attached: System) -> Samples:
    """A service dies in a call; then the call that finds the next generation up."""
    client = attached.client("mortal")

    def crash() -> None:
        try:
            client.crash()
        except ServiceDied:
            return

    return {"slow.death": [_elapsed(crash)], "slow.reopen": [_elapsed(client.null)]}
