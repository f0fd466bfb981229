"""The file system killed under load: how long until it serves again, and whether anything acknowledged is lost.

One client keeps records in files, numbered, a call each, and never stops. Another sends SIGKILL to the service's
process, awaits its end, and calls: from the kill to the answer is one sample. At the end the first client reads all its
files: every record that was acknowledged must stand there, once and in its place, and every creation must have been
exclusive.

The composition is `default`, but the service may die as often as it is killed here, and each time it starts again as
after a first death: the delay that grows with deaths in a row is off.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import select
import signal
import struct
import time
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

import shim
from bench.files.cells import make_root, row_of
from bench.files.places import ROOT, SERVICE, Calls, SystemPlace, session_of
from bench.files.plan import Plan
from bench.hmk import cell
from bench.hmk.cell import CellError, Start
from bench.hmk.system import boot_text
from bench.stats import Row

CASE: Final = "kill"
LOST: Final = "records lost"
COMPOSITION: Final = f"""
inherit = "default"
[service.{SERVICE}]
restart = {{ max_per_minute = 6000, backoff_ms = 1, backoff_max_ms = 1 }}
"""
PER_FILE: Final = 100
_RECORD = struct.Struct("<8Q")
_LOAD_S = 0.02
_DEATH_S = 10.0


class Kept(NamedTuple):
    """Records that were acknowledged, and those of them that are not where they belong."""

    acknowledged: int
    lost: int


def rows(plan: Plan) -> Iterator[Row]:
    """Two rows: times from kill to served call, and records lost (`n` is how many were acknowledged)."""
    with boot_text(COMPOSITION) as booted:
        place = SystemPlace(booted)
        timed = row_of(place, CASE)
        lost = dataclasses.replace(timed, unit=LOST)
        try:
            samples, kept = _measure(place, plan.kills)
        except CellError as error:
            yield timed.unmeasured(str(error))
            yield lost.unmeasured(str(error))
            return
    note = "from SIGKILL to the next served call"
    yield dataclasses.replace(timed.timed(samples), note=note)
    note = f"{kept.acknowledged} records acknowledged during {len(samples)} kills, all read again"
    yield dataclasses.replace(lost, n=kept.acknowledged, value=float(kept.lost), note=note)


def _measure(place: SystemPlace, kills: int) -> tuple[array[int], Kept]:
    over = mmap.mmap(-1, mmap.PAGESIZE)  # its first byte, shared by both clients, ends the load

    def body(index: int, start: Start) -> array[int] | Kept:
        system = shim.attach(place.booted.name)
        session = session_of(system)
        make_root(session, place)
        start()
        if index:
            return _load(session.calls, over)
        try:
            return array("q", (_kill(system) for _ in range(kills)))
        finally:
            over[0] = 1

    samples, kept = cell.run(place, body, kills * 0.3, 2).results
    assert isinstance(samples, array) and isinstance(kept, Kept)
    return samples, kept


def _kill(system: shim.System) -> int:
    """Let the load go on for a while, then kill the service; nanoseconds until a call is served again."""
    files, pid = system.files, _pid(system)
    time.sleep(_LOAD_S)  # not a wait for anything: the load is measured while it is under way
    dies = os.pidfd_open(pid)
    try:
        began = time.perf_counter_ns()
        signal.pidfd_send_signal(dies, signal.SIGKILL)
        if not select.select([dies], [], [], _DEATH_S)[0]:
            raise CellError(f"process {pid} does not die")
        files.stat(ROOT)
        return time.perf_counter_ns() - began
    finally:
        os.close(dies)


def _pid(system: shim.System) -> int:
    processes = system.ask("status")["processes"]
    return int(next(p["pid"] for p in processes if any(s["name"] == SERVICE for s in p["services"])))


def _record(number: int) -> bytes:
    return _RECORD.pack(*(number,) * 8)


def _load(calls: Calls, over: mmap.mmap) -> Kept:
    """Keep records until it is over, then look for them."""
    number = 0
    while not over[0]:
        fd = calls.open(_path(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        for _ in range(PER_FILE):
            calls.write(fd, _record(number))
            number += 1
        calls.close(fd)
    return Kept(number, sum(_lost(calls, first) for first in range(0, number, PER_FILE)))


def _path(number: int) -> str:
    return f"{ROOT}/records{number // PER_FILE}"


def _lost(calls: Calls, first: int) -> int:
    """How many records of a file are not what they must be; what stands there too often counts as well."""
    fd = calls.open(_path(first), os.O_RDONLY, 0)
    found = calls.read(fd, 2 * PER_FILE * _RECORD.size)
    calls.close(fd)
    size = _RECORD.size
    missing = sum(found[at * size : (at + 1) * size] != _record(first + at) for at in range(PER_FILE))
    return missing + max(0, len(found) // size - PER_FILE)
