"""A small explicit-state explorer: every interleaving of a finite model, checked and, when wrong, shown.

A model gives an initial state and, for each state, its moves. A move is *must* when a live party will make it
sooner or later (a step of its program), and *may* when the environment can make it but nothing is entitled to
count on it (a signal, a spurious wake-up, a deadline, a death, a hostile write).

Checked by breadth-first search, so that a counterexample of the first two kinds is a shortest one:

1. every state is *sound*: the model's `fault` is None;
2. no state is *stuck*: a state without must moves is one the model calls `settled`;
3. *progress*: from every state some settled state is reachable by must moves alone. This finds waits that only
   luck would end (a spurious wake-up that rescues a lost one), and loops that can never leave.

The search stores all states: it is exhaustive within the model's bounds, or it raises `TooManyStates`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Move(NamedTuple, Generic[S]):
    """One atomic step: who does what, whether it can be counted on, and the state after it."""

    label: str
    must: bool
    after: S


class Model(Protocol[S]):
    """What can be explored."""

    def initial(self) -> S:
        """The one initial state."""
        ...

    def moves(self, state: S) -> Iterable[Move[S]]:
        """Every atomic step possible in a state."""
        ...

    def fault(self, state: S) -> str | None:
        """What is wrong in this state by itself, or None."""
        ...

    def settled(self, state: S) -> bool:
        """Whether all parties have what they came for, so that the model may rest here."""
        ...


class Verdict(enum.Enum):
    """How an exploration ended."""

    HOLDS = "holds"
    FAULT = "fault"
    STUCK = "stuck"
    NO_PROGRESS = "no progress"


class TooManyStates(RuntimeError):
    """The model is larger than the bound given: nothing is proved."""


@dataclass(frozen=True)
class Result:
    """Outcome of an exploration: `trace` is a shortest path to what is wrong, one line a step."""

    verdict: Verdict
    states: int
    moves: int
    settled: int
    reason: str = ""
    trace: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every property holds in every reachable state."""
        return self.verdict is Verdict.HOLDS

    def __str__(self) -> str:
        text = f"{self.verdict.value}: {self.states} states, {self.moves} moves, {self.settled} settled"
        if self.holds:
            return text
        return "\n".join([f"{text}: {self.reason}", *self.trace])


class _Search(Generic[S]):
    """States found so far, numbered in breadth-first order."""

    def __init__(self, model: Model[S], limit: int) -> None:
        self.model = model
        self.limit = limit
        self.number: dict[S, int] = {}
        self.states: list[S] = []
        self.parent: list[tuple[int, str]] = []
        self.must_into: list[list[int]] = []
        self.settled: list[int] = []
        self.moves = 0
        self.pending: deque[int] = deque()

    def add(self, state: S, parent: int, label: str) -> int:
        known = self.number.get(state)
        if known is not None:
            return known
        index = len(self.states)
        if index >= self.limit:
            raise TooManyStates(f"more than {self.limit} states")
        self.number[state] = index
        self.states.append(state)
        self.parent.append((parent, label))
        self.must_into.append([])
        self.pending.append(index)
        return index

    def expand(self, index: int) -> bool:
        """Add the successors of a state; whether it has a must move."""
        must = False
        for label, counted_on, after in self.model.moves(self.states[index]):
            self.moves += 1
            successor = self.add(after, index, label)
            if counted_on:
                must = True
                self.must_into[successor].append(index)
        return must

    def visit(self, index: int) -> Result | None:
        state = self.states[index]
        reason = self.model.fault(state)
        if reason:
            return self.result(Verdict.FAULT, reason, index)
        settled = self.model.settled(state)
        if settled:
            self.settled.append(index)
        if not self.expand(index) and not settled:
            return self.result(Verdict.STUCK, "nobody can move, and not all have what they wait for", index)
        return None

    def hopeless(self) -> int | None:
        """The first state from which must moves lead to no settled state."""
        hopeful = bytearray(len(self.states))
        pending = list(self.settled)
        for index in pending:
            hopeful[index] = 1
        while pending:
            for before in self.must_into[pending.pop()]:
                if not hopeful[before]:
                    hopeful[before] = 1
                    pending.append(before)
        first = hopeful.find(0)
        return None if first < 0 else first

    def result(self, verdict: Verdict, reason: str = "", at: int | None = None) -> Result:
        trace = () if at is None else self.trace(at)
        return Result(verdict, len(self.states), self.moves, len(self.settled), reason, trace)

    def trace(self, index: int) -> tuple[str, ...]:
        lines = [f"      in {self.states[index]}"]
        while index:
            index, label = self.parent[index]
            lines.append(label)
        lines.reverse()
        return (*(f"{i:4}. {line}" for i, line in enumerate(lines[:-1], 1)), lines[-1])


def explore(model: Model[S], limit: int = 2_000_000) -> Result:
    """Visit every reachable state of a model.

    Args:
        model: a finite model.
        limit: states to store at most.

    Raises:
        TooManyStates: the model has more than `limit` states.
    """
    search = _Search(model, limit)
    search.add(model.initial(), 0, "")
    while search.pending:
        wrong = search.visit(search.pending.popleft())
        if wrong:
            return wrong
    first = search.hopeless()
    if first is not None:
        return search.result(Verdict.NO_PROGRESS, "from here only luck leads on", first)
    return search.result(Verdict.HOLDS)
