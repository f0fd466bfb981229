"""Steps run alone, in this process, with nobody else in the loop; and ping-pong with a process that does nothing else.

Names of figures: `c.` a function of the dispatcher on a null call, `c8.` on an echo of 8 bytes, `cm.` of 1 MiB, `c1.`
to `c3.` with operation statistics, trace ring, both; `py.`, `py8.`, `pym.` Python code; `lock.` the interpreter's
lock; `line.` and `switch.` one way between two processes, half a round trip.

Python code is run without anybody who answers: the stub and the port are those of any call, but the port leads to a
slot whose service is dead. So a call comes back from where it would be written into the slot, and a stand-in settles
it; what C pays for calling that is a figure too, to be subtracted.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import signal
import time
import timeit
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat, starmap
from typing import Any, TypeAlias

from bench.echo.service import Service
from bench.placement import Placement, PlacementError, pin, placement
from bench.steps.probes import Effort, Probe, Samples, add, interleaved
from corekernel import dispatcher, namespaces
from corekernel._dispatcher import ffi
from corekernel.dispatcher import Link, StraightPath, WaitPolicy
from corekernel.port import Payload, Registers, Reply
from corekernel.service import Environment
from corekernel.shared import Frames
from services.stubs.bench_echo import BenchEchoClient

Way: TypeAlias = tuple[int, int, int]  # how the other is awaited (STEPS_SPIN, ...), fields, lines

MIB = 1 << 20
RUNS = 200
LONG_RUNS = 20
FIELDS = 4  # of the doorbell line beside the state word that a party writes
LINES = 2  # beside the doorbell that an echo of 8 bytes moves each way: registers, payload
_ALL = (
    "nothing", "ticks", "ticks_cpu", "swap", "fill", "start", "admit", "run", "publish", "serve", "collect",
    "finish", "call", "unwatched", "watched", "clock", "gate", "place", "yield", "wake",
)  # fmt: skip
_OF_ECHO = ("fill", "start", "admit", "run", "publish", "serve", "collect", "call")
_OF_MIB = ("fill", "run", "collect", "collect_aliased", "call")


def native() -> Any:
    """The loops in C (`bench/native/steps.c`)."""
    return importlib.import_module("bench._raw").lib


def measure(effort: Effort) -> Samples:
    """Every figure of this module, on one CPU, and between two where there are two."""
    ns = 1e6 / dispatcher.measure_tick_khz()
    before = os.sched_getaffinity(0)
    places = _places()
    try:
        pin(places["same-core"].client)
        samples = interleaved({**_c_probes(ns), **_lock_probes(ns), **_python_probes()}, effort.rounds)
        for place in places.values():
            add(samples, _between(place, ns, effort.rounds))
        return samples
    finally:
        os.sched_setaffinity(0, before)


def _places() -> dict[str, Placement]:
    """The placements that this machine can give, to be asked for before this process is pinned."""
    found = {"same-core": placement("same-core")}
    with contextlib.suppress(PlacementError):
        found["cross-core"] = placement("cross-core")
    return found


# ---- C


def _c_probes(ns: float) -> dict[str, Probe]:
    probes = {f"c.{step}": _c_probe(step, 0, 0, RUNS, ns) for step in _ALL}
    probes |= {f"c8.{step}": _c_probe(step, 8, 0, RUNS, ns) for step in _OF_ECHO}
    probes |= {f"cm.{step}": _c_probe(step, MIB, 0, 1, ns) for step in _OF_MIB}
    probes |= {f"c{observe}.serve": _c_probe("serve", 0, observe, RUNS, ns) for observe in (1, 2, 3)}
    return probes


def _c_probe(step: str, length: int, observe: int, runs: int, ns: float) -> Probe:
    lib = native()
    number = getattr(lib, f"STEPS_{step.upper()}")
    if step in ("yield", "wake"):
        runs = LONG_RUNS

    def probe() -> float:
        ticks = lib.steps_run(number, length, observe, runs)
        if not ticks:
            raise RuntimeError(f"the step {step!r} did not end as it must")
        return float(ticks) / runs * ns

    return probe


def _lock_probes(ns: float) -> dict[str, Probe]:
    lib, give, take = native(), ffi.new("uint64_t *"), ffi.new("uint64_t *")

    def probe(which: Any) -> float:
        lib.steps_lock(RUNS, give, take)
        return float(which[0]) / RUNS * ns

    return {"lock.give": lambda: probe(give), "lock.take": lambda: probe(take)}


# ---- Python


class DeadEnd:
    """A port to a service that has died, for the thread that made it.

    A call on its straight path is made of the same code as any other, up to the state word; `settle` gives the reply.
    """

    def __init__(self, settle: Callable[..., Reply]) -> None:
        self._link = _dead_link()
        self._straight = StraightPath(self._astray, settle)
        self._straight.remember(self._link)
        self.call = self._straight.call

    def _astray(self, *arguments: object) -> Reply:
        raise RuntimeError("a call has left the straight path: it is not what is to be timed")


def _dead_link() -> Link:
    fd = os.memfd_create("steps")
    try:
        os.ftruncate(fd, Frames.SIZE)
        frames = Frames(fd)
    finally:
        os.close(fd)
    frames.kill(0)
    return Link(frames, 0, WaitPolicy(1_000_000, 1))


def _python_probes() -> dict[str, Probe]:
    probes = {"py.nothing": _timed("pass", {})}
    for name, data in (("py", b""), ("py8", bytes(8)), ("pym", bytes(MIB))):
        probes |= _stub_probes(name, data)
    shared = mmap.mmap(-1, MIB)
    shared.write(bytes(MIB))
    probes["pym.bytes"] = _timed("bytes(view)", {"view": memoryview(shared)}, 1)
    return probes


def _timed(statement: str, names: dict[str, Any], runs: int = RUNS) -> Probe:
    timer = timeit.Timer(statement, globals=names)
    return lambda: timer.timeit(runs) / runs * 1e9


def _called_from_c(function: Callable[..., object], arguments: tuple[object, ...]) -> Probe:
    """What code in C pays for calling a function, with some nanoseconds of the iterators that do it here."""

    def probe() -> float:
        began = time.perf_counter_ns()
        deque(starmap(function, repeat(arguments, RUNS)), maxlen=0)
        return (time.perf_counter_ns() - began) / RUNS

    return probe


def _stub_probes(name: str, data: bytes) -> dict[str, Probe]:
    """The generated stubs of both sides, the handler, and the port; `settle` is what its stand-in costs."""
    registers = (len(data),) if data else ()

    def settle(
        status: int,
        operation: int,
        registers: Registers,
        payload: Payload,
        returns: int,
        capacity: int,
        idempotent: bool,
    ) -> Reply:
        return reply

    reply = (registers, data)
    port = DeadEnd(settle)
    service = Service(Environment("steps", {}, lambda _: port, {}))
    names = {
        "client": BenchEchoClient(port),
        "handler": service.handlers()[2 if data else 1],
        "data": data,
        "registers": registers,
    }
    arguments = (2, registers, data, 1, 16 << 20, True) if data else (1, (), b"", 0, 0, True)
    return {
        f"{name}.stub": _timed("client.echo(data)" if data else "client.null()", names),
        f"{name}.port": _called_from_c(port.call, arguments),
        f"{name}.settle": _called_from_c(settle, (dispatcher.NO_SERVICE, *arguments)),
        f"{name}.service": _timed("handler(None, registers, data)", names),
    }


# ---- between two processes


def _between(place: Placement, ns: float, rounds: int) -> Samples:
    """One way between this process and another: a line of the cache, or the CPU."""
    lib = native()
    if place.shared:
        ways = {"switch.yield": (lib.STEPS_YIELDING, 0, 0)}
    else:
        ways = {
            "line.spin": (lib.STEPS_SPIN, 0, 0),
            "line.pause": (lib.STEPS_PAUSE, 0, 0),
            "line.fields": (lib.STEPS_PAUSE, FIELDS, 0),
            "line.lines": (lib.STEPS_PAUSE, FIELDS, LINES),
        }
    ways[f"switch.sleep.{place.name}"] = (lib.STEPS_SLEEPING, 0, 0)
    samples: Samples = {}
    for key, way in ways.items():
        runs = LONG_RUNS if key.startswith("switch") else RUNS
        with _pong(place.server, way) as area:
            add(samples, interleaved({key: _one_way(area, way, runs, ns)}, rounds))
    return samples


def _one_way(area: Any, way: Way, runs: int, ns: float) -> Probe:
    lib = native()
    return lambda: lib.steps_ping(area, *way, runs) / runs / 2 * ns


@contextlib.contextmanager
def _pong(cpu: int | None, way: Way) -> Iterator[Any]:
    """A process on a CPU that answers every move in a shared page."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    area = ffi.cast("uint32_t *", ffi.from_buffer(memory))
    parent = os.getpid()
    waiting, ready = os.pipe()
    child = os.fork()
    if child == 0:
        namespaces.die_with_parent(parent)
        pin(cpu)
        os.write(ready, b"!")
        native().steps_pong(area, *way)
    try:
        # Asleep, not spinning: under a real-time policy the child could never leave the CPU that we would keep.
        os.read(waiting, 1)
        native().steps_ping(area, *way, LONG_RUNS)
        yield area
    finally:
        os.close(waiting)
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
