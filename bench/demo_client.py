"""The demonstration's program: sends real files to the digest service and checks every answer.

It runs as an ordinary client under its own user id, and says how far it is as one JSON object per line on standard
output: first `{"files": N, "bytes": N}` (the work), then `{"done": N, "sent": N, "seconds": S}` now and then, at last
`{"done": ..., "wrong": [paths], "pid_changes": N, "latency": [[what, p50 ns, p99 ns], ...]}`.
Only what it can read itself is counted. It knows nothing of the services that die meanwhile: their operations are
idempotent, so the stub re-issues a call whose service has died.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import shim
from bench.stats import summarise

LARGEST = 16 << 20
ADDED = frozenset(("site-packages", "dist-packages"))
REPORT_SECONDS = 0.05
PID_EVERY = 8
SAMPLES = 4000
SAMPLE_SECONDS = 0.6


def say(**facts: object) -> None:
    """One line to the demonstration."""
    print(json.dumps(facts), flush=True)


def readable_files(root: Path) -> list[tuple[Path, int]]:
    """Every readable regular file of a library, with its size, sorted by path; what was added to it left out."""

    def found() -> Iterator[tuple[Path, int]]:
        for path in sorted(root.rglob("*")):
            try:
                added = not ADDED.isdisjoint(path.parts)
                if not added and path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST:
                    path.open("rb").close()
                    yield path, path.stat().st_size
            except OSError:
                continue

    return list(found())


def stream(system: shim.System, files: list[tuple[Path, int]]) -> dict[str, object]:
    """Digest every file through the service and with our own hashlib; what came of it."""
    wrong: list[str] = []
    sent = pid_changes = 0
    began = told = time.monotonic()
    for done, (path, _) in enumerate(files, 1):
        data = path.read_bytes()
        if system.example.digest(data) != hashlib.sha256(data).digest():
            wrong.append(str(path))
        if done % PID_EVERY == 0:
            pid_changes += system.procmgr.getpid() != system.pid
        sent += len(data)
        now = time.monotonic()
        if now - told > REPORT_SECONDS:
            told = now
            say(done=done, sent=sent, seconds=now - began)
    seconds = time.monotonic() - began
    return {"done": len(files), "sent": sent, "seconds": seconds, "wrong": wrong, "pid_changes": pid_changes}


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


def latency(system: shim.System) -> list[tuple[str, float, float]]:
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


def main() -> int:
    """Stream the directory named on the command line; exit status 1 when a digest was wrong."""
    files = readable_files(Path(sys.argv[1]))
    with shim.attach() as system:
        say(files=len(files), bytes=sum(size for _, size in files))
        result = stream(system, files)
        say(**result, latency=latency(system))
    return int(bool(result["wrong"] or result["pid_changes"]))


if __name__ == "__main__":
    sys.exit(main())
