"""Required figures: what one is, how its checks are joined, how it is shown. Each bench has its own.

A figure is passed, missed, or open: whatever a run did not measure leaves it open, and says so. One missed
check misses the figure; a figure only passes when every check of it was measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from bench.stats import number

Check = tuple[str, bool | None]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure the project set itself: passed, missed, or (`ok is None`) not measured in this run."""

    name: str
    required: str
    measured: str
    ok: bool | None


def figure(name: str, required: str, checks: Iterable[Check]) -> Figure:
    """Join checks: one miss is a miss; otherwise one that was not measured leaves the figure open."""
    texts, verdicts = zip(*checks, strict=True)
    ok = False if False in verdicts else None if None in verdicts else True
    if set(verdicts) == {None} and all(text.endswith("not measured") for text in texts):
        texts = ("not measured",)
    return Figure(name, required, "; ".join(texts), ok)


def most(label: str, value: float | None, limit: float, unit: str) -> Check:
    """A check that a value is at most a limit."""
    if value is None:
        return f"{label}: not measured", None
    return f"{label} {number(value)} {unit}".rstrip(), value <= limit


def least(label: str, value: float | None, limit: float, unit: str) -> Check:
    """A check that a value is at least a limit."""
    if value is None:
        return f"{label}: not measured", None
    return f"{label} {number(value)} {unit}".rstrip(), value >= limit


def figures_table(found: Sequence[Figure]) -> str:
    """Return each figure with its verdict and, below it, what was measured; then the count of those met."""
    verdicts = {True: "pass ", False: "SHORT", None: "  -  "}
    lines = []
    for each in found:
        lines.append(f"{verdicts[each.ok]}  {each.name}: {each.required}")
        lines.append(f"         {each.measured}")
    met, short = (sum(each.ok is verdict for each in found) for verdict in (True, False))
    return "\n".join([*lines, f"{met} met, {short} short, {len(found) - met - short} not measured"])


def figures_markdown(found: Sequence[Figure]) -> list[str]:
    """The same as the lines of a Markdown table."""
    verdicts = {True: "met", False: "**short**", None: "not measured"}
    rows = [f"| {each.name} | {each.required} | {each.measured} | {verdicts[each.ok]} |" for each in found]
    return ["| figure | required | measured | |", "|---|---|---|---|", *rows]
