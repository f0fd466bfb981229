"""Figures out of short rounds.

A *probe* runs one thing a number of times, for some ten microseconds, and returns the nanoseconds that one run took.
Probes take turns, so that whatever else the machine does falls on all of them alike. The median of all rounds is what
a step costs here and now; the tenth percentile is what it costs while nobody disturbs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

Probe: TypeAlias = Callable[[], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """Nanoseconds per run, by nearest rank over rounds."""

    p10: float
    p50: float
    rounds: int


Figures: TypeAlias = dict[str, Figure]
Samples: TypeAlias = dict[str, list[float]]


@dataclasses.dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        passes: times that everything is gone through. The host may move a virtual CPU meanwhile, and a cache line then
            travels another way: figures that are to be added must be taken close to each other, and often.
        rounds: of each short probe, in a pass.
        slow_rounds: of each probe that takes milliseconds, in a pass.
    """

    passes: int
    rounds: int
    slow_rounds: int


FULL = Effort(10, 40, 4)
QUICK = Effort(3, 15, 2)


def figure(samples: Sequence[float]) -> Figure:
    """Summarise rounds, at least one."""
    ordered = sorted(samples)
    ranks = [max(0, math.ceil(share * len(ordered)) - 1) for share in (0.1, 0.5)]
    return Figure(ordered[ranks[0]], ordered[ranks[1]], len(ordered))


def interleaved(probes: Mapping[str, Probe], rounds: int) -> Samples:
    """Run every probe once, then every probe again, `rounds` times."""
    samples: Samples = {name: [] for name in probes}
    for _ in range(rounds):
        for name, probe in probes.items():
            samples[name].append(probe())
    return samples


def add(samples: Samples, more: Samples) -> None:
    """Put the rounds of another pass to those before."""
    for name, found in more.items():
        samples.setdefault(name, []).extend(found)


def figures_of(samples: Samples) -> Figures:
    """Summarise whatever was measured."""
    return {name: figure(found) for name, found in samples.items() if found}


def total(formula: str, figures: Mapping[str, Figure]) -> Figure | None:
    """The value of a formula, `name + name - name`; None when one of its figures was not measured.

    The difference of two percentiles is not the percentile of a difference: it is an estimate, near enough while the
    figures are steadier than they are different.
    """
    found = [(sign, figures.get(name)) for sign, name in signed(formula)]
    known = [(sign, figure) for sign, figure in found if figure is not None]
    if len(known) < len(found):
        return None
    return Figure(
        sum(sign * figure.p10 for sign, figure in known),
        sum(sign * figure.p50 for sign, figure in known),
        min(figure.rounds for _, figure in known),
    )


def signed(formula: str) -> Iterable[tuple[int, str]]:
    """The names of a formula with their signs."""
    sign = 1
    for word in formula.split():
        if word in ("+", "-"):
            sign = 1 if word == "+" else -1
        else:
            yield sign, word
