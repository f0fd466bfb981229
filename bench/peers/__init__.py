"""What hmk's call is compared with: the host's and other people's ways for two Python processes to talk.

Every peer does the same work: the client process sends the payload, the server process sends it back, each
call is timed in the client. A peer, size or placement that cannot be measured is a row with `n == 0` and
the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from bench.peers.harness import Cell, Peer, PeerError, run_cell
from bench.peers.libraries import CONNECTION, ICEORYX, ZMQ
from bench.peers.messages import POSIX_QUEUE, SEQPACKET, SYSV_QUEUE
from bench.peers.streams import PIPE, UNIX_STREAM
from bench.placement import PlacementError, placement
from bench.stats import PLACEMENTS, Row

PEERS = (PIPE, SEQPACKET, UNIX_STREAM, POSIX_QUEUE, SYSV_QUEUE, CONNECTION, ZMQ, ICEORYX)
SIZES = (0, 8, 512, 4096, 65536, 1 << 20)

__all__ = ["PEERS", "SIZES", "Peer", "measure", "rows"]

_serial = 0


def rows(
    budget_s: float,
    placements: Sequence[str] = PLACEMENTS,
    sizes: Sequence[int] = SIZES,
    peers: Sequence[Peer] = PEERS,
) -> Iterator[Row]:
    """Measure every peer at every size in every placement.

    Args:
        budget_s: seconds of sampling per row.
        placements: names of placements.
        sizes: payload bytes; 0 is the null call.
        peers: what to measure.
    """
    for name in placements:
        for peer in peers:
            for size in sizes:
                yield measure(peer, name, size, budget_s)


def measure(peer: Peer, placement_name: str, payload_bytes: int, budget_s: float) -> Row:
    """Measure one row of case `null` (no payload) or `echo`; failures become a row with `n == 0`."""
    case = "echo" if payload_bytes else "null"
    row = Row("ipc", case, peer.name, peer.side, placement_name, payload_bytes)
    if missing := peer.missing():
        return row.unmeasured(missing)
    try:
        cell = Cell(_token(), placement(placement_name), payload_bytes, budget_s)
        found = run_cell(peer, cell)
    except (PeerError, PlacementError) as error:
        return row.unmeasured(str(error))
    return Row(
        *(row.bench, row.case, row.system, row.side, row.placement, row.payload_bytes),
        n=found.n,
        p50_ns=found.p50_ns,
        p99_ns=found.p99_ns,
        mean_ns=found.mean_ns,
        note=found.note or None,
    )


def _token() -> str:
    """A name that no other cell of any running bench has."""
    global _serial
    _serial += 1
    return f"hmkbench-{os.getpid()}-{_serial}-"
