"""Peers and raw limits: every one echoes the right bytes, fails honestly, and leaves nothing on the host.

No test here judges a time. The echo itself is compared in each cell, by the harness, on every warm-up call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import peers, placement, raw
from bench.peers import harness
from bench.peers.harness import Cell, Link, PairLink, Peer
from bench.peers.libraries import ICEORYX
from bench.peers.messages import POSIX_QUEUE, SYSV_QUEUE, in_messages
from bench.peers.streams import PIPE, framed_receive, framed_send
from bench.placement import Hog, PlacementError
from bench.stats import fairness, summarise

ROOT = Path(__file__).resolve().parents[1]
BRIEF_S = 0.002
SETTLE_S = 5.0
LIMITS = ("/proc/sys/fs/mqueue/msgsize_max", "/proc/sys/kernel/msgmax", "/proc/sys/kernel/msgmnb")


def children() -> set[int]:
    """Processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def traces() -> dict[str, object]:
    """What a bench could leave behind, and what it could have changed."""
    shared = {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith("hmkbench-")}
    files = {path.name for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith("hmkbench-")}
    return {
        "shared": shared,
        "files": files,
        "queues": len(Path("/proc/sysvipc/msg").read_text().splitlines()),
        "limits": [Path(path).read_text() for path in LIMITS],
        "affinity": os.sched_getaffinity(0),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


@pytest.fixture
def no_residue() -> Iterator[None]:
    before, old = traces(), children()
    yield
    give_up = time.monotonic() + SETTLE_S
    while (traces() != before or children() - old) and time.monotonic() < give_up:
        # A server whose cell was killed becomes ours, as does every orphan of this run, and ends in its own time.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(BRIEF_S)
    assert traces() == before
    assert not children() - old


@pytest.mark.usefixtures("no_residue")
@pytest.mark.parametrize("size", peers.SIZES)
@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_peer_echoes_every_size_and_leaves_nothing(peer: Peer, size: int) -> None:
    row = peers.measure(peer, "same-core", size, BRIEF_S)
    assert (row.system, row.side, row.payload_bytes) == (peer.name, "python", size)
    if missing := peer.missing():
        assert (row.n, row.note) == (0, missing)
    else:
        assert row.n > 0, row.note
        assert 0 < row.p50_ns <= row.p99_ns


@pytest.mark.usefixtures("no_residue")
@pytest.mark.parametrize("size", [0, 8, 4096, 1 << 20])
def test_raw_futex_echoes_between_two_processes(size: int) -> None:
    row = peers.measure(raw.RAW_FUTEX, "free", size, BRIEF_S)
    assert row.n > 0, row.note
    assert row.side == "c"


@pytest.mark.usefixtures("no_residue")
def test_raw_spin_runs_across_cpus_or_says_what_it_needs() -> None:
    found = list(raw.rows(BRIEF_S, ["cross-core"], [0, 512]))
    assert [row.system for row in found] == ["raw-spin", "raw-spin", "raw-futex", "raw-futex"]
    need = placement.needs(2)
    assert all(row.note == need if need else row.n > 0 for row in found)


@pytest.mark.usefixtures("no_residue")
def test_raw_futex_is_measured_beside_both_hogs() -> None:
    found = [raw.hog_row(same_session, BRIEF_S) for same_session in (True, False)]
    assert [row.note for row in found] == list(placement.HOG_NOTES)
    assert all(row.case == "hog" and row.n > 0 for row in found)


@pytest.mark.usefixtures("no_residue")
@pytest.mark.parametrize("peer", [POSIX_QUEUE, SYSV_QUEUE], ids=lambda peer: peer.name)
def test_queue_on_the_hosts_own_limits_sends_in_messages_and_says_so(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_own_ipc_namespace", lambda: False)
    longest = min(int(Path(path).read_text()) for path in LIMITS)
    row = peers.measure(peer, "free", longest * 5, BRIEF_S)
    assert row.n > 0, row.note
    assert row.note is not None and row.note.startswith("in messages of")


class _Stalls(Link):
    """A working link whose client makes one call and then never returns."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def serve(self) -> None:
        self.link.serve()

    def measure(self, payload: bytes, budget_s: float) -> Sequence[int]:
        self.link.connect()(payload)
        signal.pause()
        raise AssertionError("nothing wakes this client")


@pytest.mark.usefixtures("no_residue")
@pytest.mark.parametrize("peer", [SYSV_QUEUE, ICEORYX], ids=lambda peer: peer.name)
def test_cell_that_stalls_is_killed_and_swept(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_own_ipc_namespace", lambda: False)
    monkeypatch.setattr(harness, "_GRACE_S", 0.4)

    @contextlib.contextmanager
    def stalling(cell: Cell) -> Iterator[Link]:
        with peer.open(cell) as link:
            yield _Stalls(link)

    row = peers.measure(dataclasses.replace(peer, open=stalling), "free", 8, BRIEF_S)
    assert row.n == 0
    assert row.note is not None and ("in time" in row.note or row.note == peer.missing())


def _served_by(server: harness.Send) -> Peer:
    """A pipe whose server sends through `server` instead."""

    @contextlib.contextmanager
    def opened(cell: Cell) -> Iterator[Link]:
        with PIPE.open(cell) as link:
            assert isinstance(link, PairLink)
            send, receive = link.server
            yield PairLink(link.client, (lambda record: send(server(record)), receive))  # type: ignore[arg-type]

    return Peer("odd", (), opened)


@pytest.mark.usefixtures("no_residue")
def test_wrong_reply_is_reported_and_not_timed() -> None:
    row = peers.measure(_served_by(lambda record: record[::-1]), "free", 64, BRIEF_S)
    assert (row.n, row.note) == (0, "PeerError: the reply differs from the request")


@pytest.mark.usefixtures("no_residue")
def test_death_of_the_server_ends_the_cell_at_once() -> None:
    row = peers.measure(_served_by(lambda record: os._exit(1)), "free", 8, BRIEF_S)
    assert (row.n, row.note) == (0, "PeerError: the server died")


def test_peer_that_is_not_installed_is_shown_as_such() -> None:
    row = peers.measure(Peer("absent", ("no_such_module_here",), PIPE.open), "free", 8, BRIEF_S)
    assert (row.n, row.note) == (0, "not installed: no_such_module_here")


def test_killing_the_bench_kills_its_cells() -> None:
    program = "from bench import peers; peers.measure(peers.PIPE, 'free', 8, 60.0)"
    bench = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        family = _descendants(bench, 2)
    finally:
        bench.kill()
        bench.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def _descendants(process: subprocess.Popen[bytes], count: int) -> list[psutil.Process]:
    while process.poll() is None:
        found = psutil.Process(process.pid).children(recursive=True)
        if len(found) == count:
            return found
    raise AssertionError("the bench ended before its processes were seen")


# Records in pieces


@given(st.binary(max_size=300), st.integers(1, 64))
def test_records_survive_any_message_limit(record: bytes, limit: int) -> None:
    queue: deque[bytes] = deque()
    send, receive = in_messages(queue.append, queue.popleft, limit)
    send(record)
    send(b"next")
    assert all(len(message) <= limit for message in queue)
    assert (receive(), receive()) == (record, b"next")


@given(st.binary(max_size=2000), st.lists(st.integers(1, 1999), max_size=8))
def test_framed_records_survive_any_partial_arrival(record: bytes, cuts: list[int]) -> None:
    whole = len(record).to_bytes(4, "little") + record
    bounds = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, two:
        for start, end in itertools.pairwise(bounds):
            one.send(whole[start:end])
        assert framed_receive(two.fileno())() == record


def test_framed_reader_reports_the_end_of_a_stream_in_the_middle_of_a_record() -> None:
    one, two = socket.socketpair()
    with two:
        framed_send(one.fileno())(b"x" * 9)
        assert framed_receive(two.fileno())() == b"x" * 9
        one.send(b"\x08\x00\x00\x00half")
        one.close()
        with pytest.raises(EOFError):
            framed_receive(two.fileno())()


# Placement and hogs


def test_one_cpu_gives_same_core_but_refuses_cross_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "cpus", lambda: [3])
    assert placement.placement("same-core") == placement.Placement("same-core", 3, 3)
    with pytest.raises(PlacementError, match="needs 2 CPUs, 1 available"):
        placement.placement("cross-core")
    row = peers.measure(PIPE, "cross-core", 8, BRIEF_S)
    assert (row.n, row.note) == (0, "needs 2 CPUs, 1 available")


def test_cross_core_avoids_the_clients_hyper_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(placement, "_siblings", lambda cpu: {0, 1})
    assert placement.placement("cross-core").server == 2
    monkeypatch.setattr(placement, "_siblings", lambda cpu: {0, 1, 2, 3})
    assert placement.placement("cross-core").server == 1


def test_free_placement_pins_nothing() -> None:
    place = placement.placement("free")
    before = os.sched_getaffinity(0)
    placement.pin(place.client)
    assert os.sched_getaffinity(0) == before
    assert place.shared


@pytest.mark.usefixtures("no_residue")
@pytest.mark.parametrize("same_session", [True, False])
def test_hog_runs_pinned_in_its_session_until_the_context_ends(same_session: bool) -> None:
    cpu = placement.cpus()[-1]
    with contextlib.suppress(RuntimeError), Hog(cpu, same_session) as hog:
        assert os.sched_getaffinity(hog.pid) == {cpu}
        assert (os.getsid(hog.pid) == os.getsid(0)) is same_session
        raise RuntimeError("the benchmark failed")


# Summaries


def test_summary_uses_the_nearest_rank() -> None:
    assert summarise(list(range(100, 0, -1))) == (50.0, 99.0, 50.5)
    assert summarise([7]) == (7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


def test_fairness_is_least_over_most() -> None:
    assert fairness([50, 100, 75]) == 0.5
    assert fairness([0, 9]) == 0.0
    assert fairness([0, 0]) == 0.0
