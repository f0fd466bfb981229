"""One cell: a client process calls a server process, and both are gone afterwards.

The bench process forks a *cell* process. The cell takes an IPC namespace of its own where the host lets it
(queues and raised queue limits vanish with it), opens the link, forks the *server*, pins itself as the
*client*, calls, and writes its result to a pipe. The bench process reads the result under a deadline, then
ends the cell.

Invariants: the bench process itself opens nothing, pins nothing and changes no limit. Server and cell are
killed by the host when their parent dies, so no process outlives the bench however it ends. A link makes
nothing that has a name on the host, or its peer's `sweep` removes by token what it made, whatever happened
to the cell.
"""

from __future__ import annotations

import abc
import contextlib
import ctypes
import dataclasses
import importlib.util
import json
import os
import select
import signal
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from bench.placement import Placement, pin
from bench.stats import MAX_TEXT, summarise

Call: TypeAlias = Callable[[bytes], bytes]

WARM_UP_CALLS = 200
MAX_SAMPLES = 1 << 20
_GRACE_S = 15.0
_CLONE_NEWIPC = 0x08000000
_PR_SET_PDEATHSIG = 1


class PeerError(RuntimeError):
    """A cell could not be measured; the text says why."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one cell measures.

    Attributes:
        token: unique name fragment for whatever the link must name on the host.
        placement: where client and server run.
        payload_bytes: bytes of request and of reply, 0 for a null call.
        budget_s: seconds of sampling.
        private_ipc: True in a cell process that has an IPC namespace, and so queue limits, of its own.
    """

    token: str
    placement: Placement
    payload_bytes: int
    budget_s: float
    private_ipc: bool = False


class Link(abc.ABC):
    """One client and one server, connected; opened before the server is forked.

    `note` is filled in by the time `open` yields: what a reader must know about how this peer was used.
    """

    note = ""

    @abc.abstractmethod
    def serve(self) -> None:
        """Echo every request, in the server process, until killed or until the client is gone."""

    def connect(self) -> Call:
        """Return, in the client process, the function that sends a request and returns the reply."""
        raise NotImplementedError

    def measure(self, payload: bytes, budget_s: float) -> Sequence[int]:
        """Call for `budget_s` seconds, in the client process; return nanoseconds per call, at least one."""
        return sample(self.connect(), payload, budget_s)


Send: TypeAlias = Callable[[bytes], object]
Receive: TypeAlias = Callable[[], bytes]
End: TypeAlias = tuple[Send, Receive]


class PairLink(Link):
    """A link whose two ends each send and receive whole records, and whose call is a send and a receive."""

    def __init__(self, client: End, server: End, note: str = "") -> None:
        self.client = client
        self.server = server
        self.note = note

    def serve(self) -> None:
        """Send back every record; ends with an error when the client is gone."""
        send, receive = self.server
        while True:
            send(receive())

    def connect(self) -> Call:
        """Return a call over the client's end."""
        send, receive = self.client

        def call(payload: bytes) -> bytes:
            send(payload)
            return receive()

        return call


def _nothing(token: str) -> None:
    """Most links leave nothing that has a name."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """A way for two processes to talk.

    Attributes:
        name: the row's `system`.
        modules: what must be importable; a peer that is not installed is reported as such.
        open: opens the link of a cell, in the cell process.
        side: the row's `side`.
        sweep: removes, in the bench process, what a cell with this token may have left behind.
    """

    name: str
    modules: tuple[str, ...]
    open: Callable[[Cell], AbstractContextManager[Link]]
    side: str = "python"
    sweep: Callable[[str], None] = _nothing

    def missing(self) -> str:
        """Return why the peer cannot be used here, or an empty string."""
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                return f"not installed: {module}"
        return ""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a cell found: calls sampled, times in nanoseconds, and the link's note."""

    n: int
    p50_ns: float
    p99_ns: float
    mean_ns: float
    note: str


def sample(call: Call, payload: bytes, budget_s: float) -> Sequence[int]:
    """Time single calls, after a warm-up in which every reply is compared with its request.

    Args:
        call: sends a request and returns the reply.
        payload: the request.
        budget_s: seconds to sample for; at least one call is made.

    Raises:
        PeerError: a reply differs from its request.
    """
    warm_up(call, payload, budget_s)
    return timed(call, payload, budget_s)


def warm_up(call: Call, payload: bytes, budget_s: float) -> None:
    """The first part of `sample`: call and compare, a fifth as long as sampling will take at most."""
    end = time.perf_counter_ns() + int(budget_s * 0.2e9)
    for number in range(WARM_UP_CALLS):
        if call(payload) != payload:
            raise PeerError("the reply differs from the request")
        if number and time.perf_counter_ns() > end:
            break


def timed(call: Call, payload: bytes, budget_s: float) -> Sequence[int]:
    """The second part of `sample`: nanoseconds of every call made in `budget_s` seconds, at least one."""
    clock = time.perf_counter_ns
    samples = array("q")
    end = clock() + int(budget_s * 1e9)
    before = 0
    while not samples or (before < end and len(samples) < MAX_SAMPLES):
        before = clock()
        call(payload)
        samples.append(clock() - before)
    return samples


def run_cell(peer: Peer, cell: Cell) -> Result:
    """Measure one cell in processes of its own.

    Raises:
        PeerError: the link could not be opened, echoed wrongly, failed or did not finish in time.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(parent, lambda: os.write(writer, _report(peer, cell)))
    os.close(writer)
    try:
        return _result(_read_all(reader, cell.budget_s * 4 + _GRACE_S))
    finally:
        os.close(reader)
        _end(child)
        peer.sweep(cell.token)


def _run_child(parent: int, work: Callable[[], Any]) -> None:
    """Run `work` in a forked child, die with the parent, and never return into the parent's code."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            work()
    finally:
        os._exit(0)


def _report(peer: Peer, cell: Cell) -> bytes:
    """Measure in the cell process; a failure is part of the report, not of the control flow."""
    try:
        cell = dataclasses.replace(cell, private_ipc=_own_ipc_namespace())
        with peer.open(cell) as link:
            samples = _with_server(link, cell)
            found = Result(len(samples), *summarise(samples), note=link.note)
        return json.dumps(dataclasses.asdict(found)).encode()
    except Exception as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()


def _with_server(link: Link, cell: Cell) -> Sequence[int]:
    parent = os.getpid()
    signal.signal(signal.SIGCHLD, _server_died)
    server = os.fork()
    if server == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _run_child(parent, lambda: _serve(link, cell.placement))
    try:
        pin(cell.placement.client)
        return link.measure(os.urandom(cell.payload_bytes), cell.budget_s)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _end(server)


def _server_died(number: int, frame: object) -> None:
    """Interrupt the client's wait for a reply that nobody will send."""
    raise PeerError("the server died")


def _serve(link: Link, place: Placement) -> None:
    pin(place.server)
    link.serve()


def _own_ipc_namespace() -> bool:
    """Move this process to an IPC namespace of its own; False where the host does not allow it."""
    return bool(ctypes.CDLL(None).unshare(_CLONE_NEWIPC) == 0)


def _end(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _read_all(fd: int, timeout_s: float) -> bytes:
    """Read until end of file or the deadline; what was read by then is returned."""
    end = time.monotonic() + timeout_s
    data = b""
    while select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        data += chunk
    return data


def _result(data: bytes) -> Result:
    if not data:
        raise PeerError("no result: the cell died or did not finish in time")
    found = json.loads(data)
    if "error" in found:
        raise PeerError(str(found["error"])[:MAX_TEXT])
    return Result(**found)
