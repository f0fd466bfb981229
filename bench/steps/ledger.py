"""Of which steps a call consists: sums, set against the measured whole.

A *line* is a step: what it does, and the formula over figures that is its cost. A *ledger* is a path through the
system: lines in the order in which they happen, the figure of the whole, and a name for the *residue*, what the
whole has beyond the sum. The name is a guess where it says so: what can be measured alone is a line. A negative
residue means that steps overlap in the call which in their loops cannot. A ledger whose figures were not measured (one
CPU) is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from bench.stats import number
from bench.steps.probes import Figure, Figures, signed, total


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One step."""

    step: str
    does: str
    formula: str


@dataclasses.dataclass(frozen=True, slots=True)
class Ledger:
    """One path; a list of figures that are not to be added has no `whole`."""

    title: str
    lines: Sequence[Line]
    whole: str = ""
    residue: str = ""


_CLOCK = Line("clock", "the measuring loop reads the time", "c.clock")
_CARRIER = (
    Line("stamp", "carrier: time and CPU (`rdtscp`)", "c.ticks_cpu"),
    Line("admit", "copy each field once, check it", "c.admit"),
    Line("handler", "find it and run it: null", "c.run"),
    Line("stamp", "time again (`rdtsc`)", "c.ticks"),
    Line("publish", "status, lengths, results into the leg", "c.publish"),
    Line("answer", "state word to REPLY: load, compare-and-swap", "c.swap"),
    Line(
        "accounts",
        "class, pause, crowd, placement, counters of the carrier's record",
        "c.serve - c.ticks_cpu - c.admit - c.run - c.ticks - c.publish - c.swap",
    ),
)
_CALLER = (
    Line("take", "is the link free? mark it busy", "c.start - c.fill - c.swap"),
    Line("fill", "operation, class, deadline into the leg", "c.fill - c.ticks_cpu"),
    Line("stamp", "caller: time and CPU (`rdtscp`)", "c.ticks_cpu"),
    Line("submit", "state word to REQUEST: load, compare-and-swap", "c.swap"),
)
_END = (
    Line("collect", "copy the reply's fields once, check them", "c.collect"),
    Line("finish", "set up the wait, find the reply there, free the link", "c.call - c.start - c.serve - c.collect"),
)
_THERE = Line("request crosses", "the doorbell line goes to the other CPU, whose poll sees it", "line.fields")
_BACK = Line("reply crosses", "the same, the other way", "line.fields")
_STUB = (
    Line("stub", "check arguments, encode, decode", "py.stub - py.port - py.nothing"),
    Line("port", "in C: the thread's link is at hand; a message out of objects", "py.port - py.settle"),
    Line("client half", "take, fill, submit; collect, finish", "c.call - c.serve"),
)


def _service(place: str) -> tuple[Line, Line]:
    return (
        Line("service half", "stamps, admit, publish, answer, accounts", "c.serve - c.run"),
        Line(
            "handler",
            "find, decode, run, encode: between its own time stamps",
            f"seen.py.handler.{place} - c.admit - c.ticks",
        ),
    )


def _switched(formula: str) -> tuple[Line, Line]:
    return (
        Line("switch there", "the CPU goes to the carrier's process", formula),
        Line("switch back", "and back", formula),
    )


_YIELD = _switched("switch.yield")
_YIELD_STAMPS = Line(
    "stamps",
    "both sides: before (`rdtscp`) and after (`rdtsc`) a yield",
    "c.ticks_cpu + c.ticks + c.ticks_cpu + c.ticks",
)
_LOOK = Line("look", "caller: may the reply come soon? its CPU (`rdtscp`) is the carrier's", "c.ticks_cpu")
_LET_GO = Line("lock given", "caller lets other threads of its own run", "lock.give - c.ticks")
_TAKE_BACK = Line("lock again", "caller takes it back", "lock.take - c.ticks")
_GATE = Line("gate", "carrier: nobody in line for the interpreter's lock", "c.gate")
_LOCK = Line("lock", "carrier takes it", "lock.take - c.ticks")
_UNLOCK = Line("lock back", "carrier gives it back, the reply being out", "lock.give - c.ticks")
_FLAGS = Line(
    "flags", "both sides: stamp (`rdtscp`), SLEEP into the word", "c.ticks_cpu + c.swap + c.ticks_cpu + c.swap"
)


def _slept(place: str, flags: Sequence[Line], rest: str) -> Ledger:
    lines = (Line("both halves", "all code of the call, in one thread", "c.call"), *flags, _CLOCK)
    there, back = _switched(f"switch.sleep.{place}")
    return Ledger(f"null call, C, {place}, both sides sleep", (there, *lines, back), f"blocking.c.null.{place}", rest)


PATHS: tuple[Ledger, ...] = (
    Ledger(
        "null call, C, cross-core",
        (*_CALLER, _THERE, *_CARRIER, _BACK, *_END, _CLOCK),
        "live.c.null.cross-core",
        "probably: each fill and each publish first takes its lines back from the other CPU; the loops own theirs",
    ),
    Ledger(
        "null call, Python, cross-core",
        (*_STUB, _THERE, *_service("cross-core"), _BACK),
        "live.py.null.cross-core",
        "probably: lines taken back from the other CPU, as in C; code of two interpreters",
    ),
    Ledger(
        "null call, C, same-core",
        (Line("both halves", "all code of the call, in one thread", "c.call"), _YIELD_STAMPS, *_YIELD, _CLOCK),
        "live.c.null.same-core",
        "probably: first touch of everything after a switch of address space",
    ),
    Ledger(
        "null call, Python, same-core",
        (
            *_STUB,
            _LOOK,
            _LET_GO,
            _YIELD_STAMPS,
            _YIELD[0],
            _GATE,
            _LOCK,
            *_service("same-core"),
            _UNLOCK,
            _YIELD[1],
            _TAKE_BACK,
        ),
        "live.py.null.same-core",
        "probably: first touch of everything, two interpreters' code, after each switch",
    ),
    _slept("same-core", [_FLAGS], "probably: a colder cache"),
    _slept("cross-core", [], "not known: leaving an idle state takes longer in some rounds than in others"),
    Ledger(
        "echo of 8 bytes, C, cross-core",
        (
            Line("null call", "measured", "live.c.null.cross-core"),
            Line("fill", "one register, 8 bytes", "c8.fill - c.fill"),
            Line("lines there", "registers and payload cross with the doorbell", "line.lines - line.fields"),
            Line("admit", "one register copied", "c8.admit - c.admit"),
            Line("handler", "payload copied once, echoed", "c8.run - c.run"),
            Line("publish", "one result", "c8.publish - c.publish"),
            Line("lines back", "result and payload cross", "line.lines - line.fields"),
            Line("collect", "one result, 8 bytes copied once", "c8.collect - c.collect"),
        ),
        "live.c.echo8.cross-core",
        "below 0: in the call the lines travel together; in the ping-pong each is waited for",
    ),
    Ledger(
        "echo of 8 bytes, Python, cross-core",
        (
            Line("null call", "measured", "live.py.null.cross-core"),
            Line(
                "stub",
                "bytes checked, length encoded, reply checked",
                "py8.stub - py8.port - py.stub + py.port",
            ),
            Line("port", "one register out of objects", "py8.port - py8.settle - py.port + py.settle"),
            Line("both halves", "register and payload, in C", "c8.call - c.call"),
            Line("lines there", "registers and payload cross", "line.lines - line.fields"),
            Line("service stub", "views made, result encoded", "py8.service - py.service"),
            Line("lines back", "result and payload cross", "line.lines - line.fields"),
        ),
        "live.py.echo8.cross-core",
        "probably: objects made of words, on both sides: tuples, integers, bytes",
    ),
    Ledger(
        "echo of 1 MiB, C, cross-core",
        (
            Line("null call", "measured", "live.c.null.cross-core"),
            Line("fill", "copied into the shared buffer", "cm.fill - c.fill"),
            Line("handler", "echoed in place", "cm.run - c.run"),
            Line("collect", "copied out of it", "cm.collect - c.collect"),
        ),
        "live.c.mib.cross-core",
        "probably: lines of the buffer in the other CPU's cache; the lower caches are shared with all else that runs",
    ),
    Ledger(
        "echo of 1 MiB, Python, cross-core",
        (
            Line("null call", "measured", "live.py.null.cross-core"),
            Line("stub", "lengths checked", "pym.stub - pym.port - py.stub + py.port"),
            Line("port", "one register out of objects", "pym.port - pym.settle - py.port + py.settle"),
            Line("fill", "copied into the shared buffer", "cm.fill - c.fill"),
            Line("service stub", "a read-only view, nothing copied", "pym.service - py.service"),
            Line("bytes", "a new object, copied once out of the buffer", "pym.bytes"),
        ),
        "live.py.mib.cross-core",
        "probably: pages of the new object, taken from the host and given back at each call",
    ),
)


def _seen(side: str, name: str, place: str) -> tuple[Line, ...]:
    waited, handler, whole = f"seen.{side}.waited.{place}", f"seen.{side}.handler.{place}", f"live.{side}.null.{place}"
    return (
        Line(f"{name}, {place}", "issued to handler's start", waited),
        Line("", "handler, admission included", handler),
        Line("", "the rest: before issue, after the handler", f"{whole} - {waited} - {handler}"),
    )


LISTS: tuple[Ledger, ...] = (
    Ledger(
        "the same calls by their own time stamps (trace ring)",
        tuple(
            line
            for side, name in (("c", "C"), ("py", "Python"))
            for place in ("cross-core", "same-core")
            for line in _seen(side, name, place)
        ),
    ),
    Ledger(
        "beside the path",
        (
            Line("gate", "Python, cross-core: before every 33rd call, nobody in line", "c.gate"),
            Line("lock", "and the interpreter's lock taken", "lock.take - c.ticks"),
            Line("lock back", "and given back, the 33rd reply being out", "lock.give - c.ticks"),
            Line("place", "a carrier that is not pinned, and stays where it is", "c.place"),
        ),
    ),
    Ledger(
        "slow paths, Python",
        (
            Line("bind", "a slot's first call: core, service, a parked carrier", "slow.bind"),
            Line("buffer", "64 KiB made, granted, mapped on both sides", "slow.buffer"),
            Line("wait", "`notify` to the return of the re-issued call, another thread's", "slow.wait"),
            Line("deadline", "how late a call of 2 ms ends", "slow.deadline"),
            Line("next call", "its slot is held still: another is bound", "slow.after_deadline"),
            Line("death", "call that kills the service, to `ServiceDied`", "slow.death"),
            Line("re-open", "next call: restart (10 ms of it back-off), open, bind", "slow.reopen"),
        ),
    ),
    Ledger(
        "observation",
        (
            Line("off", "a load and a branch, in a loop with and without", "c.watched - c.unwatched"),
            Line("statistics", "three counters", "c1.serve - c.serve"),
            Line("trace", "one event", "c2.serve - c.serve"),
            Line("both", "", "c3.serve - c.serve"),
            Line("statistics, live", "on a null call, C", "watched.operations - watched.off"),
            Line("trace, live", "on a null call, C", "watched.trace - watched.off"),
        ),
    ),
    Ledger(
        "host",
        (
            Line("`rdtsc`", "", "c.ticks"),
            Line("`sched_yield`", "with whoever else is there", "c.yield"),
            Line("futex wake", "nobody sleeps there", "c.wake"),
            Line("line, tight poll", "no `pause` between two looks", "line.spin"),
            Line("copy, aliased", "1 MiB copied to a page offset 16 bytes higher", "cm.collect_aliased"),
            Line("loop", "empty, a part of each figure in C", "c.nothing"),
        ),
    ),
)

Row = tuple[str, str, str, str, str]
HEAD: Row = ("step", "what it does", "p50 ns", "p10 ns", "how measured")


def kind(formula: str) -> str:
    """How a formula's figures were found."""
    names = {name.split(".")[0] for _, name in signed(formula)}
    if names & {"line", "switch"}:
        found = "ping-pong"
    elif names & {"live", "blocking", "watched", "slow"}:
        found = "calls"
    elif "seen" in names:
        found = "trace ring"
    else:
        found = "loop"
    if len(formula.split()) > 1:
        found = "difference" if " - " in formula else "sum"
    return f"{found}: {formula}"


def rows(ledger: Ledger, figures: Figures) -> Iterator[Row]:
    """A ledger as table rows; none when a figure of it was not measured."""
    costs = [(line, total(line.formula, figures)) for line in ledger.lines]
    known = [(line, cost) for line, cost in costs if cost is not None]
    if ledger.whole and (len(known) < len(costs) or ledger.whole not in figures):
        return
    for line, cost in known:
        yield _row(line.step, line.does, cost, kind(line.formula))
    if ledger.whole:
        yield from _closing(ledger, [cost for _, cost in known], figures[ledger.whole])


def _closing(ledger: Ledger, costs: Sequence[Figure], whole: Figure) -> Iterator[Row]:
    added = Figure(sum(cost.p10 for cost in costs), sum(cost.p50 for cost in costs), whole.rounds)
    left = Figure(whole.p10 - added.p10, whole.p50 - added.p50, whole.rounds)
    yield _row("**sum**", "", added, "")
    yield _row("**whole**", "", whole, f"calls: {ledger.whole}")
    yield _row("**residue**", ledger.residue, left, "whole - sum")


def _row(step: str, does: str, cost: Figure, how: str) -> Row:
    return step, does, _signed_number(cost.p50), _signed_number(cost.p10), how


def _signed_number(value: float) -> str:
    """Nanoseconds in three digits; never finer than a tenth, which no loop here resolves."""
    value = round(value, 1)
    if abs(value) < 10:
        return f"{value:.1f}"
    return f"-{number(-value)}" if value < 0 else number(value)


def markdown(figures: Figures) -> str:
    """Every ledger that was measured, as a Markdown table."""
    parts = []
    for ledger in (*PATHS, *LISTS):
        found = list(rows(ledger, figures))
        if found:
            lines = ["| " + " | ".join(row) + " |" for row in (HEAD, ("---", "---", "--:", "--:", "---"), *found)]
            parts.append("\n".join([f"### {ledger.title[0].upper()}{ledger.title[1:]}", "", *lines, ""]))
    return "\n".join(parts)


def text(figures: Figures) -> str:
    """The same for a terminal."""
    parts = []
    for ledger in (*PATHS, *LISTS):
        found = [tuple(cell.replace("*", "").replace("`", "") for cell in row) for row in rows(ledger, figures)]
        if found:
            body = "\n".join(f"  {step:18}{p50:>9} {p10:>9}  {does}" for step, does, p50, p10, _ in (HEAD, *found))
            parts.append(f"{ledger.title}\n\n{body}\n")
    return "\n".join(parts)
