"""What the demonstration measures at its end: single calls, and operations on files here and on the host's tmpfs."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import shim
from bench.stats import summarise
from shim.files import Files

SAMPLES: Final = 4000
SAMPLE_SECONDS: Final = 0.3
TMPFS: Final = "/dev/shm"

Costs: TypeAlias = "list[tuple[str, float, float]]"  # what, median and 99th percentile in nanoseconds


def sampled(call: Callable[[], object]) -> tuple[float, float]:
    """Median and 99th percentile of one call, nanoseconds."""
    for _ in range(50):
        call()
    samples: list[int] = []
    end = time.perf_counter_ns() + int(SAMPLE_SECONDS * 1e9)
    while len(samples) < SAMPLES and time.perf_counter_ns() < end:
        before = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - before)
    found = summarise(samples)
    return found.p50_ns, found.p99_ns


def calls(system: shim.System) -> Costs:
    """What calls cost from here."""
    core, example = system.port("core"), system.example
    small, large = bytes(64), bytes(1 << 20)
    return [
        ("null call: the core answers", *sampled(lambda: core.call(0))),
        ("digest of 64 B: service", *sampled(lambda: example.digest(small))),
        ("digest of 64 B: hashlib here", *sampled(lambda: hashlib.sha256(small).digest())),
        ("digest of 1 MiB: service", *sampled(lambda: example.digest(large))),
        ("digest of 1 MiB: hashlib here", *sampled(lambda: hashlib.sha256(large).digest())),
    ]


@dataclass(frozen=True)
class Operations:
    """The operations that are measured, as `os` has them."""

    open: Callable[[str, int], int]
    close: Callable[[int], None]
    stat: Callable[[str], object]
    pread: Callable[[int, int, int], bytes]
    pwrite: Callable[[int, bytes, int], int]


HOST: Final = Operations(os.open, os.close, os.stat, os.pread, os.pwrite)


def of(files: Files) -> Operations:
    """Operations on the files of a system."""
    return Operations(files.open_descriptor, files.close, files.stat, files.pread, files.pwrite)


def file_operations(on: Operations, directory: str) -> Costs:
    """What operations on files in a directory cost; it has new files then."""
    path, numbers = f"{directory}/measured", itertools.count()
    on.close(on.open(path, os.O_WRONLY | os.O_CREAT))
    descriptor = on.open(path, os.O_RDWR)
    on.pwrite(descriptor, bytes(4096), 0)

    def create() -> None:
        on.close(on.open(f"{path}{next(numbers)}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))

    found = [
        ("open and close", *sampled(lambda: on.close(on.open(path, os.O_RDONLY)))),
        ("stat", *sampled(lambda: on.stat(path))),
        ("read 4 KiB", *sampled(lambda: on.pread(descriptor, 4096, 0))),
        ("create and close", *sampled(create)),
    ]
    on.close(descriptor)
    return found


def on_tmpfs() -> Costs:
    """The same operations on the host's tmpfs; nothing where it has none for us."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"hmk-demo-{os.getpid()}-", dir=TMPFS) as directory:
            return file_operations(HOST, directory)
    except OSError:
        return []
