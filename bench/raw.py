"""The physical limit: raw ping-pong in C between two processes over shared memory.

`raw-spin` polls and only makes sense on two CPUs; `raw-futex` sleeps and wakes, and on one CPU is also
measured beside a CPU hog, in the same session and in another one. Both run in the same cells as the peers,
with the loop and the clock in C; each sample includes one reading of the clock, 20 to 30 ns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import mmap
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from bench import peers
from bench.peers.harness import MAX_SAMPLES, Cell, Link, Peer, PeerError
from bench.placement import Hog, placement
from bench.stats import PLACEMENTS, Row

_WARM_UP = 1000


class _RawLink(Link):
    """Two processes on one anonymous shared mapping."""

    def __init__(self, cell: Cell, spin: bool) -> None:
        native: Any = importlib.import_module("bench._raw")
        self.ffi = native.ffi
        self.lib = native.lib
        self.payload_bytes = cell.payload_bytes
        self.spin = spin
        self.memory = mmap.mmap(-1, self.lib.raw_bytes(cell.payload_bytes))
        self.area = self.ffi.from_buffer(self.memory)

    def serve(self) -> None:
        self.lib.raw_serve(self.area, self.payload_bytes, self.spin)

    def measure(self, payload: bytes, budget_s: float) -> Sequence[int]:
        reply = bytearray(len(payload))
        self._calls(payload, reply, budget_s * 0.2, _WARM_UP)
        if reply != payload:
            raise PeerError("the reply differs from the request")
        return self._calls(payload, reply, budget_s, MAX_SAMPLES)

    def _calls(self, payload: bytes, reply: bytearray, budget_s: float, most: int) -> Sequence[int]:
        samples = array("Q", bytes(8 * most))
        n = self.lib.raw_measure(
            self.area,
            len(payload),
            self.spin,
            self.ffi.from_buffer(payload),
            self.ffi.from_buffer(reply),
            int(budget_s * 1e9),
            self.ffi.from_buffer("uint64_t[]", samples),
            most,
        )
        return samples[:n]


@contextlib.contextmanager
def _open_spin(cell: Cell) -> Iterator[Link]:
    yield _RawLink(cell, spin=True)


@contextlib.contextmanager
def _open_futex(cell: Cell) -> Iterator[Link]:
    yield _RawLink(cell, spin=False)


RAW_SPIN = Peer("raw-spin", ("bench._raw",), _open_spin, side="c")
RAW_FUTEX = Peer("raw-futex", ("bench._raw",), _open_futex, side="c")


def rows(budget_s: float, placements: Sequence[str] = PLACEMENTS, sizes: Sequence[int] = peers.SIZES) -> Iterator[Row]:
    """Measure the limits at every size.

    Args:
        budget_s: seconds of sampling per row.
        placements: names of placements.
        sizes: payload bytes; 0 is the null call.
    """
    for name in placements:
        if name == "cross-core":
            yield from peers.rows(budget_s, [name], sizes, [RAW_SPIN])
        yield from peers.rows(budget_s, [name], sizes, [RAW_FUTEX])


def hog_row(same_session: bool, budget_s: float) -> Row:
    """Measure the null call over futex on one CPU with a hog, in this session or in another.

    The row's note is the hog's (`placement.HOG_NOTES`), by which rows of other systems are matched.
    """
    cpu = placement("same-core").client
    assert cpu is not None
    with Hog(cpu, same_session) as hog:
        row = peers.measure(RAW_FUTEX, "same-core", 0, budget_s)
    return dataclasses.replace(row, case="hog", note=hog.note if row.n else row.note)
