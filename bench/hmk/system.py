"""The systems under measurement: compositions made for this machine, booted, and the CPU time that they use.

`boot` gives a running system for the length of a `with` block. What it boots inherits from a shipped composition and
adds services pinned to CPUs of this machine, which no shipped file can name. The bench process itself never
attaches: every client is a process of its own (see `cell`), and booting needs a process of one thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from bench.placement import PlacementError, placement
from bench.stats import SIDES
from corekernel import boot as launcher
from corekernel import composition
from corekernel.composition import Composition
from corekernel.dispatcher import Variant

_VARIANTS = {"hmk": Variant.HYBRID, "hmk:spin": Variant.SPIN, "hmk:blocking": Variant.BLOCKING}
_KIND = {
    "c": 'interface = "bench_echo"\nlanguage = "c"\n',
    "python": 'interface = "bench_echo"\nmodule = "bench.echo"\n',
}
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Booted:
    """A running system: its variant as rows name it, its name, and the host pid above all its processes."""

    system: str
    name: str
    pid: int

    def pids(self) -> list[int]:
        """Host pids of its processes now."""
        return [self.pid, *(process.pid for process in psutil.Process(self.pid).children(recursive=True))]

    def cpu_ns(self) -> int:
        """CPU time that the system has used so far: core and services, nanoseconds."""
        return cpu_ns(self.pids())


def cpu_ns(pids: Sequence[int]) -> int:
    """CPU time used so far by all threads, past ones too, of those of these host processes that live, nanoseconds.

    The host keeps a clock for each process (clock_getcpuclockid(3)); /proc counts in ticks of 10 ms instead.
    """
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime_ns(~pid << 3 | 2)
    return total


@contextlib.contextmanager
def boot(name: str | Path | Composition, system: str = "hmk") -> Iterator[Booted]:
    """Boot a composition, or the one of that name or path, in the variant that `system` names.

    Raises:
        BootError: it does not come up.
        CompositionError: it is refused.
    """
    checked = name if isinstance(name, Composition) else composition.load(name)
    unique = f"bench-{os.getpid()}-{next(_numbers)}"
    running = launcher.launch(unique, checked, _VARIANTS[system])
    try:
        yield Booted(system, unique, running.pid)
    finally:
        running.kill()
        os.close(running.pidfd)


def boot_text(text: str, system: str = "hmk") -> contextlib.AbstractContextManager[Booted]:
    """Boot a composition written here; its file is gone before anything starts."""
    with tempfile.TemporaryDirectory(prefix="hmkbench-") as directory:
        path = Path(directory) / "measured.toml"
        path.write_text(f'description = "made by bench"\n{text}')
        checked = composition.load(path)
    return boot(checked, system)


def service_name(side: str, place: str) -> str:
    """The echo service for a side and placement in what `pinned_services` describes: `cecho_same_core`."""
    return {"c": "cecho", "python": "echo"}[side] + ("" if place == "free" else "_" + place.replace("-", "_"))


def pinned_services() -> str:
    """The composition `bench`, and echo services pinned where each placement wants the server to run."""
    tables = ['inherit = "bench"']
    for place in ("same-core", "cross-core"):
        with contextlib.suppress(PlacementError):  # too few CPUs: the rows will say so
            server = placement(place).server
            tables += [
                f'[service.{service_name(side, place)}]\nplacement = "cpu {server}"\n{_KIND[side]}' for side in SIDES
            ]
    return "\n".join(tables)


def three_services(side: str, most_stacks: int | None = None, prebind: bool = True) -> str:
    """Three echo services for very many threads.

    Args:
        side: the language of the services.
        most_stacks: what each pool may hold at most, its reserve of one aside, 15 or more; None for plenty.
        prebind: every thread gets a stack in each at its first call to any of them.
    """
    names = list(three_names(side))
    pool = f"pool = {{ initial = 2, reserve = 1, limit = {most_stacks + 1} }}\n" if most_stacks else ""
    head = f'inherit = "default"\n[system]\nprebind = {names if prebind else []}\n'
    return head + "".join(f"[service.{name}]\n{_KIND[side]}{pool}" for name in names)


def three_names(side: str) -> tuple[str, str, str]:
    """The names of those services."""
    return f"{side}_one", f"{side}_two", f"{side}_three"
