"""Client processes: forked for one cell, started together, gone afterwards.

Each client prepares itself, says that it is ready, and waits for the word to start, which comes once all are ready. It
works, hands a result back, and then stays, doing nothing, until the CPU time of the system has been read. A
client that fails fails the cell, with its reason.

Invariants: the bench process has one thread and never attaches to a system itself. Clients are killed by the host
when the bench process dies, and by `run` when the cell is over, however it ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from corekernel import namespaces

T = TypeVar("T")
GRACE_S = 30.0
Start: TypeAlias = Callable[[], None]
Body: TypeAlias = Callable[[int, Start], T]
_context = multiprocessing.get_context("fork")


class Metered(Protocol):
    """What the clients of a cell use: a system, or something of the host's."""

    def cpu_ns(self) -> int:
        """CPU time that it has used so far, nanoseconds."""
        ...


class CellError(RuntimeError):
    """A cell could not be measured; the text says why."""


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[T]):
    """What the clients of a cell handed back, and the system's CPU time from their start to their end."""

    results: list[T]
    system_cpu_ns: int


def run(booted: Metered, body: Body[T], budget_s: float, count: int = 1) -> Outcome[T]:
    """Run `body(index, start)` in `count` client processes of a system.

    Args:
        booted: what they will call.
        body: attaches, gets ready, calls `start` (which returns once all are ready), works, returns a result.
        budget_s: seconds it will work, more or less.
        count: how many.

    Raises:
        CellError: a client failed, died or did not finish in time.
    """
    patience = budget_s * 4 + GRACE_S
    with _clients(body, count) as pipes:
        _from_each(pipes, patience)
        before = booted.cpu_ns()
        for pipe in pipes:
            pipe.send(None)
        results = _from_each(pipes, patience)
        return Outcome(results, booted.cpu_ns() - before)


@contextlib.contextmanager
def _clients(body: Body[T], count: int) -> Iterator[Sequence[Connection]]:
    children = []
    pipes: list[Connection] = []
    try:
        for index in range(count):
            ours, theirs = _context.Pipe()
            pipes.append(ours)
            child = _context.Process(target=_client, args=(os.getpid(), body, index, ours, theirs))
            child.start()
            children.append(child)
            theirs.close()
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.kill()
            child.join()
            child.close()


def _client(parent: int, body: Body[T], index: int, ours: Connection, theirs: Connection) -> None:
    """The life of a client, which `run` ends."""
    namespaces.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ours.close()

    def start() -> None:
        theirs.send((None, ""))
        theirs.recv()

    with contextlib.suppress(ConnectionError):  # the cell is over
        theirs.send(_work(body, index, start))
    signal.pause()


def _work(body: Body[T], index: int, start: Start) -> tuple[T | None, str]:
    try:
        return body(index, start), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _from_each(pipes: Sequence[Connection], patience: float) -> list[Any]:
    """One message from each client, in their order."""
    messages: dict[Connection, Any] = {}
    while len(messages) < len(pipes):
        ready = connection.wait([pipe for pipe in pipes if pipe not in messages], patience)
        if not ready:
            raise CellError("a client did not finish in time")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            messages[pipe] = _message(pipe)
    return [messages[pipe] for pipe in pipes]


def _message(pipe: Connection) -> Any:
    try:
        message, failure = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise CellError("a client died") from error
    if failure:
        raise CellError(failure)
    return message
