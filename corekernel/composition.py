"""Compositions: which services boot, in what isolation, with what rights; each read from one short TOML file.

A composition is data. `load` reads a file and what it inherits, checks everything, and gives a frozen
`Composition` or raises `CompositionError` with every mistake found; nothing has been started by then.
`compositions/README.md` lists the keys. Reading goes in three steps, each of which may refuse: find and merge
the files (`_read_inherited`), read each table with its types and ranges (`_read_*`), and check the services
against each other (`_Draft`).

Invariants of a loaded composition:

* every service named anywhere (`after`, `calls`, `prebind`) is defined in it; `calls` may also name `core`,
  which always exists;
* `services` is in start order: each service comes after those in its `after`, services of one group stand
  together, and otherwise they keep the order in which they are written;
* services of one group share one class, and so one process; an IC1 service has a process to itself;
* a CPU with a poller is dedicated: no other service is placed on it.
"""

from __future__ import annotations

import enum
import keyword
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from corekernel.toml_lines import (
    Document,
    MistakesError,
    Place,
    Report,
    Table,
    did_you_mean,
    merge,
    read_document,
    show,
)

ROOT = Path(__file__).resolve().parent.parent
COMPOSITIONS = ROOT / "compositions"
INTERFACES = ROOT / "services" / "interfaces"
CORE = "core"
MAX_SERVICES = 60
MAX_STACKS = 30_000  # each costs two of the 65,530 mappings that a host process may have
MAX_UID = 2**32 - 2

_NAME = r"[a-z][a-z0-9_]{0,31}"
_NAME_WORDS = "a name of a-z, 0-9 and _ that begins with a letter, 32 characters at most"
_FILE_NAME = r"[a-z][a-z0-9_-]{0,63}"
_MODULE = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"

OptionValue: TypeAlias = str | int | bool
Uids: TypeAlias = tuple[int, ...]


class CompositionError(MistakesError):
    """A composition was refused; each line of the text is `FILE:LINE: what is wrong; how to mend it`."""


class Isolation(enum.Enum):
    """Isolation class of a service (Microkernel Goes General, OSDI '24: differentiated isolation)."""

    IC0 = "IC0"
    IC1 = "IC1"
    IC2 = "IC2"


class Priority(enum.IntEnum):
    """Priority class of a service's own work; a larger value goes first."""

    IDLE = 0
    NORMAL = 1
    HIGH = 2


class Language(enum.Enum):
    """What the handlers are written in; it decides how large a stack must be."""

    PYTHON = "python"
    C = "c"


class PlacementKind(enum.Enum):
    """Where the carriers of a service run."""

    FREE = "free"
    SAME_CORE = "same-core"
    CPU = "cpu"
    POLLER = "poller"


@dataclass(frozen=True)
class Placement:
    """Where carriers run; `cpu` is a CPU number for the kinds CPU and POLLER, else None."""

    kind: PlacementKind = PlacementKind.FREE
    cpu: int | None = None

    def __str__(self) -> str:
        return self.kind.value if self.cpu is None else f"{self.kind.value} {self.cpu}"


class AttachKind(enum.Enum):
    """Who may attach from outside."""

    OWNER = "owner"
    ROOT = "root"
    ANYONE = "anyone"
    LISTED = "listed"


@dataclass(frozen=True)
class AttachPolicy:
    """Who may attach from outside; `uids` (host user ids) is used by the kind LISTED alone."""

    kind: AttachKind = AttachKind.OWNER
    uids: Uids = ()

    def allows(self, uid: int, owner: int) -> bool:
        """Whether host user `uid` may attach to a system that user `owner` launched."""
        match self.kind:
            case AttachKind.ANYONE:
                return True
            case AttachKind.OWNER:
                return uid == owner
            case AttachKind.ROOT:
                return uid == 0
            case AttachKind.LISTED:
                return uid in self.uids

    def __str__(self) -> str:
        return ", ".join(map(str, self.uids)) if self.uids else self.kind.value


@dataclass(frozen=True)
class Limits:
    """Memory of the whole system, MiB: all of it, and the part that execution stacks may take."""

    memory_mib: int = 1024
    stack_memory_mib: int = 256


@dataclass(frozen=True)
class Pool:
    """Stack pool, in stacks: made at start, refill and shrink marks, kept back, most; and KiB of each."""

    initial: int = 4
    low: int = 2
    high: int = 16
    reserve: int = 2
    limit: int = 4096
    stack_kib: int = 4096


@dataclass(frozen=True)
class Restart:
    """Restart policy: a service that dies more often stays down (0: never restarted); the delay doubles."""

    max_per_minute: int = 60
    backoff_ms: int = 10
    backoff_max_ms: int = 2000


@dataclass(frozen=True)
class Service:
    """One service of a composition; the keys of its `[service.NAME]` table.

    `module` and `interface` default to `services.NAME` and `NAME`. `clients` says whether ordinary clients
    may call it: all, none, or these host user ids. A handler that runs longer than `handler_limit_ms` is
    taken for hung (0: never).
    """

    name: str
    module: str = ""
    interface: str = ""
    isolation: Isolation = Isolation.IC2
    group: str | None = None
    placement: Placement = Placement()
    after: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    clients: bool | Uids = True
    pool: Pool = Pool()
    memory_mib: int = 256
    language: Language = Language.PYTHON
    priority: Priority = Priority.NORMAL
    restart: Restart = Restart()
    handler_limit_ms: int = 10_000
    devices: tuple[str, ...] = ()
    options: dict[str, OptionValue] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "module", self.module or f"services.{self.name}")
        object.__setattr__(self, "interface", self.interface or self.name)

    @property
    def process(self) -> str:
        """The process it lives in: `core`, its group, or one of its own."""
        return CORE if self.isolation is Isolation.IC0 else self.group or self.name


@dataclass(frozen=True)
class Composition:
    """A checked composition; `services` is in start order, `prebind` is bound when a client thread starts."""

    name: str
    description: str
    path: Path
    prebind: tuple[str, ...] = ()
    attach: AttachPolicy = AttachPolicy()
    limits: Limits = Limits()
    services: tuple[Service, ...] = ()

    def service(self, name: str) -> Service:
        """The service of that name; raises KeyError when there is none."""
        return {service.name: service for service in self.services}[name]


def load(path_or_name: str | Path, search: Path = COMPOSITIONS, interfaces: Path | None = INTERFACES) -> Composition:
    """Read and check a composition.

    Args:
        path_or_name: a path (any `Path`, a string with a slash or ending in `.toml`), or a name in `search`.
        search: the directory of named compositions, for this one and for those it inherits.
        interfaces: the directory that must hold `INTERFACE.toml` for each service; None leaves it unchecked.

    Raises:
        CompositionError: with every mistake found.
    """
    report = Report(CompositionError)
    path = path_or_name
    if isinstance(path, str):
        path = _locate(path, Path(), search, Place(search, 1), report)
    document, removed = _read_inherited(path, search, report)
    composition = _Draft(document, removed, report).read(interfaces)
    report.stop()
    return composition


def available(search: Path = COMPOSITIONS, interfaces: Path | None = INTERFACES) -> list[tuple[str, Path, str]]:
    """The compositions in a directory: name, path, description (or why it is refused), sorted by name."""

    def describe(path: Path) -> str:
        try:
            return load(path, search, interfaces).description
        except CompositionError as error:
            return f"refused: {error.mistakes[0]}"

    return [(path.stem, path, describe(path)) for path in _named(search)]


def explain(composition: Composition) -> str:
    """A composition as a readable table, one service per line in start order."""
    limits = composition.limits
    rows: list[tuple[str, ...]] = [("service", "class", "process", "placement", "calls", "clients", "pool")]
    rows += [_explain_service(service) for service in composition.services]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    head = [
        f"{composition.name}: {composition.description or 'no description'}",
        f"file      {composition.path}",
        f"prebind   {', '.join(composition.prebind) or '-'}",
        f"attach    {composition.attach}",
        f"memory    {limits.memory_mib} MiB, of which stacks may take {limits.stack_memory_mib} MiB",
    ]
    return "\n".join([*head, "", *lines])


def _explain_service(service: Service) -> tuple[str, ...]:
    pool, clients = service.pool, service.clients
    who = {True: "all", False: "none"}[clients] if isinstance(clients, bool) else ", ".join(map(str, clients))
    marks = f"{pool.initial} ({pool.low}..{pool.high}, reserve {pool.reserve}, limit {pool.limit})"
    return (
        service.name,
        service.isolation.value,
        service.process,
        str(service.placement),
        ", ".join(service.calls) or "-",
        who or "none",
        f"{marks} x {pool.stack_kib} KiB",
    )


def _named(search: Path) -> list[Path]:
    return sorted(path for path in search.glob("*.toml") if re.fullmatch(_FILE_NAME, path.stem))


def _locate(word: str, beside: Path, search: Path, place: Place, report: Report) -> Path:
    if "/" in word or word.endswith(".toml"):
        return beside / word
    names = [path.stem for path in _named(search)]
    if word not in names:
        report.add(place, f"there is no composition {show(word)}", did_you_mean(word, names))
        report.stop()
    return search / f"{word}.toml"


def _read_inherited(path: Path, search: Path, report: Report) -> tuple[Document, dict[str, Place]]:
    """The document of a file merged over all it inherits, and the place where each service was removed."""
    chain = _inheritance(path, search, report)
    removed: dict[str, Place] = {}
    document = Document(path, {}, {})
    for over in reversed(chain):
        removed.update(_remove_services(document, over, report))
        document.values.pop("description", None)
        document = merge(document, over)
    return document, removed


def _inheritance(path: Path, search: Path, report: Report) -> list[Document]:
    chain: list[Document] = []
    seen: list[str] = []
    while True:
        document = read_document(path, report)
        chain.append(document)
        seen.append(os.path.realpath(path))
        word, place = document.values.pop("inherit", None), document.place(("inherit",))
        if word is None:
            return chain
        if not isinstance(word, str):
            report.add(place, f"inherit must be a name, not {show(word)}", 'write it as inherit = "default"')
            report.stop()
        path = _locate(word, path.parent, search, place, report)
        if not (word.isprintable() and path.is_file()):
            report.add(place, f"there is no file {show(word)} to inherit", "name one that exists")
            report.stop()
        if os.path.realpath(path) in seen:
            report.add(place, f"inherit goes round: {show(word)} inherits this file", "inherit another one")
            report.stop()


def _remove_services(base: Document, over: Document, report: Report) -> dict[str, Place]:
    """Take out of `base` what `over` removes, and the removals out of `over`; returns their places."""
    mine, inherited = _service_tables(over), _service_tables(base)
    removed: dict[str, Place] = {}
    for name in [name for name, table in mine.items() if isinstance(table, dict) and "remove" in table]:
        place = over.place(("service", name, "remove"))
        if mine.pop(name) != {"remove": True}:
            report.add(place, "remove must be true and the only key of its table", "delete the other keys")
        elif name not in inherited:
            what = f"service {show(name)} is not inherited, so it cannot be removed"
            report.add(place, what, did_you_mean(name, inherited))
        else:
            del inherited[name]
            removed[name] = place
    return removed


def _service_tables(document: Document) -> dict[str, Any]:
    tables = document.values.get("service")
    return tables if isinstance(tables, dict) else {}


def _read_service(name: str, table: Table) -> Service:
    language = table.choice("language", Language.PYTHON, {member.value: member for member in Language})
    service = Service(
        name=name,
        module=_read_module(name, table),
        interface=table.text("interface", name, _NAME, _NAME_WORDS),
        isolation=table.choice("class", Isolation.IC2, {member.value: member for member in Isolation}),
        group=table.text("group", "", f"({_NAME})?", f'{_NAME_WORDS}, or "" for none') or None,
        placement=_read_placement(table),
        after=table.names("after", _NAME, "the name of a service"),
        calls=table.names("calls", _NAME, "the name of a service"),
        clients=_read_clients(table),
        pool=_read_pool(table.table("pool"), language),
        memory_mib=table.integer("memory_mib", 256, 16, 1 << 20),
        language=language,
        priority=table.choice("priority", Priority.NORMAL, {member.name.lower(): member for member in Priority}),
        restart=_read_restart(table.table("restart")),
        handler_limit_ms=table.integer("handler_limit_ms", 10_000, 0, 3_600_000),
        devices=table.names("devices", r"[a-z][a-z0-9_.:-]{0,63}", "the name of a device"),
        options=_read_options(table.table("options")),
    )
    table.close()
    return service


def _read_module(name: str, table: Table) -> str:
    module = table.text("module", f"services.{name}", _MODULE, "the dotted name of a Python module")
    if any(map(keyword.iskeyword, module.split("."))):
        table.wrong("module", "must not hold a Python keyword", "rename the module or the service")
    return module


def _read_placement(table: Table) -> Placement:
    text = table.text(
        "placement",
        "free",
        r"free|same-core|(cpu|poller) ([0-9]|[1-9][0-9]{1,3})",
        '"free", "same-core", "cpu N" or "poller N"',
    )
    kind, _, cpu = text.partition(" ")
    return Placement(PlacementKind(kind), int(cpu) if cpu else None)


def _read_uids(table: Table, key: str, value: object, words: str) -> Uids:
    if isinstance(value, list) and all(type(uid) is int and 0 <= uid <= MAX_UID for uid in value):
        return tuple(dict.fromkeys(value))
    table.wrong(key, f"must be {words} or an array of user ids", f"a user id is from 0 to {MAX_UID}")
    return ()


def _read_clients(table: Table) -> bool | Uids:
    value = table.value("clients")
    if value is None or isinstance(value, bool):
        return value is not False
    return _read_uids(table, "clients", value, "true, false")


def _read_attach(table: Table) -> AttachPolicy:
    value = table.value("attach")
    words = {kind.value: kind for kind in AttachKind if kind is not AttachKind.LISTED}
    if value is None:
        return AttachPolicy()
    if isinstance(value, str) and value in words:
        return AttachPolicy(words[value])
    uids = _read_uids(table, "attach", value, ", ".join(map(show, words)))
    return AttachPolicy(AttachKind.LISTED, uids)


def _read_pool(table: Table, language: Language) -> Pool:
    usual, least = (4096, 256) if language is Language.PYTHON else (64, 32)
    pool = Pool(
        initial=table.integer("initial", Pool.initial, 0, MAX_STACKS),
        low=table.integer("low", Pool.low, 0, MAX_STACKS),
        high=table.integer("high", Pool.high, 1, MAX_STACKS),
        reserve=table.integer("reserve", Pool.reserve, 0, MAX_STACKS),
        limit=table.integer("limit", Pool.limit, 1, MAX_STACKS),
        stack_kib=table.integer("stack_kib", usual, least, 8192, step=4),
    )
    _check_order(table, pool, ("low", "high"), ("high", "limit"), ("initial", "limit"), ("reserve", "limit"))
    table.close()
    return pool


def _read_restart(table: Table) -> Restart:
    restart = Restart(
        max_per_minute=table.integer("max_per_minute", Restart.max_per_minute, 0, 6000),
        backoff_ms=table.integer("backoff_ms", Restart.backoff_ms, 1, 60_000),
        backoff_max_ms=table.integer("backoff_max_ms", Restart.backoff_max_ms, 1, 600_000),
    )
    _check_order(table, restart, ("backoff_ms", "backoff_max_ms"))
    table.close()
    return restart


def _read_limits(table: Table) -> Limits:
    limits = Limits(
        memory_mib=table.integer("memory_mib", Limits.memory_mib, 64, 1 << 20),
        stack_memory_mib=table.integer("stack_memory_mib", Limits.stack_memory_mib, 8, 1 << 20),
    )
    _check_order(table, limits, ("stack_memory_mib", "memory_mib"))
    return limits


def _check_order(table: Table, record: Pool | Restart | Limits, *pairs: tuple[str, str]) -> None:
    for small, large in pairs:
        low, high = getattr(record, small), getattr(record, large)
        if low > high:
            what = f"{small} ({low}) is above {large} ({high})"
            table.report.add(table.place(small, large), what, f"lower {small} or raise {large}")


def _read_options(table: Table) -> dict[str, OptionValue]:
    for key, value in table.values.items():
        table.asked.append(key)
        if not re.fullmatch(_NAME, key):
            table.report.add(table.place(key), f"option {show(key)} is not {_NAME_WORDS}", "rename it")
        if not isinstance(value, str | int) or (isinstance(value, int) and abs(value) >= 2**63):
            table.wrong(key, "must be a string, a 64-bit integer or a boolean", "write one of these")
    return dict(table.values)


@dataclass
class _Draft:
    """A composition whose file is read and whose services are being checked against each other."""

    document: Document
    removed: dict[str, Place]
    report: Report
    services: dict[str, Service] = field(default_factory=dict)

    def read(self, interfaces: Path | None) -> Composition:
        top = Table(self.document, (), self.document.values, self.report)
        words = "one line of at most 200 characters"
        description = top.text("description", "", r"[^\x00-\x1f\x7f]{0,200}", words)
        top.value("inherit")
        system, tables = top.table("system"), top.table("service")
        prebind = system.names("prebind", _NAME, "the name of a service")
        attach, limits = _read_attach(system), _read_limits(system)
        system.close()
        top.close()
        self._read_services(tables)
        self._check(prebind, interfaces)
        order = self._start_order()
        return Composition(self.document.file.stem, description, self.document.file, prebind, attach, limits, order)

    def wrong(self, path: tuple[str, ...], what: str, mend: str) -> None:
        self.report.add(self.document.place(path), what, mend)

    def _read_services(self, tables: Table) -> None:
        for name in tables.values:
            path = ("service", name)
            if name == CORE:
                self.wrong(path, "core is the core itself, not a service", "give the service another name")
            elif not re.fullmatch(_NAME, name):
                self.wrong(path, f"service {show(name)} is not {_NAME_WORDS}", "rename it")
            else:
                self.services[name] = _read_service(name, tables.table(name))
        if self.document.values.get("service", {}) == {}:
            self.wrong(("service",), "no service is defined", "add a [service.NAME] table, or inherit one")
        if len(self.services) > MAX_SERVICES:
            self.wrong(("service", name), f"{len(self.services)} services are too many", f"keep to {MAX_SERVICES}")
            self.report.stop()

    def _check(self, prebind: tuple[str, ...], interfaces: Path | None) -> None:
        self._check_names(("system", "prebind"), "prebind", prebind, core=False)
        for name in prebind:
            if name in self.services and self.services[name].clients in (False, ()):
                what = f"prebind names {name}, which clients may not call"
                self.wrong(("system", "prebind"), what, "take it out, or set its clients to true")
        for service in self.services.values():
            path = ("service", service.name)
            self._check_names((*path, "after"), f"after of {service.name}", service.after, core=False)
            self._check_names((*path, "calls"), f"calls of {service.name}", service.calls, core=True)
            if service.name in service.calls:
                self.wrong((*path, "calls"), f"{service.name} lists itself in calls", "take it out")
            if interfaces is not None and not (interfaces / f"{service.interface}.toml").is_file():
                known = sorted(path.stem for path in interfaces.glob("*.toml"))
                what = f"there is no interface {service.interface} in {interfaces}"
                self.wrong((*path, "interface"), what, did_you_mean(service.interface, known))
            self._check_class(service)
        self._check_groups()
        self._check_cpus()

    def _check_names(self, path: tuple[str, ...], what: str, names: Iterable[str], core: bool) -> None:
        known = [*self.services, CORE] if core else list(self.services)
        for name in names:
            if name in known:
                continue
            if name in self.removed:
                where = self.document.place(path)
                text = f"service {name} is removed, but {where} still has it in {what}"
                self.report.add(self.removed[name], text, f"state {path[-1]} in this file too")
            elif name == CORE:
                self.wrong(path, f"{what} names core, which is always there first", "take it out")
            else:
                self.wrong(path, f"{what} names {name}, which is no service here", did_you_mean(name, known))

    def _check_class(self, service: Service) -> None:
        path, kind = ("service", service.name), service.placement.kind
        name, isolation = f"service {service.name}", service.isolation
        if isolation is Isolation.IC1 and service.group:
            self.wrong((*path, "group"), f"{name} is IC1 and in a group", 'set group to "" or class to "IC2"')
        if isolation is Isolation.IC0 and kind is not PlacementKind.FREE:
            what = f"{name} is IC0, which runs on its caller's thread and cannot be placed"
            self.wrong((*path, "placement"), what, 'set placement to "free" or class to "IC2"')
        if isolation is Isolation.IC1 and kind in (PlacementKind.CPU, PlacementKind.SAME_CORE):
            what = f"{name} is IC1, which is served by a poller, and is placed as {service.placement}"
            self.wrong((*path, "placement"), what, 'set placement to "poller N" or "free"')
        if isolation is Isolation.IC2 and kind is PlacementKind.POLLER:
            what = f"{name} is IC2, and only IC1 has a poller"
            self.wrong((*path, "placement"), what, 'set class to "IC1" or placement to "cpu N"')

    def _check_groups(self) -> None:
        first: dict[str, Service] = {}
        for service in self.services.values():
            group, path = service.group, ("service", service.name)
            if group is None:
                continue
            leader = first.setdefault(group, service)
            if service.isolation is not leader.isolation:
                what = f"group {group} mixes {leader.name} ({leader.isolation.value}) and "
                what += f"{service.name} ({service.isolation.value})"
                self.wrong((*path, "class"), what, "give all services of a group one class")
            alone = group in self.services and self.services[group].group != group
            if group == CORE or alone:
                what = f"group {group} has the name of another process"
                self.wrong((*path, "group"), what, "give the group another name")

    def _check_cpus(self) -> None:
        placed = [service for service in self.services.values() if service.placement.cpu is not None]
        pollers: dict[int | None, Service] = {}
        for service in placed:
            if service.placement.kind is PlacementKind.POLLER:
                pollers.setdefault(service.placement.cpu, service)
        for service in placed:
            owner = pollers.get(service.placement.cpu, service)
            if owner is not service:
                what = f"cpu {service.placement.cpu} is dedicated to the poller of {owner.name}"
                self.wrong(("service", service.name, "placement"), what, "choose another cpu")

    def _start_order(self) -> tuple[Service, ...]:
        """Services in start order; a group starts as one, so an order that enters it twice is refused."""
        services = self.services
        needs = {name: {*service.after} & services.keys() for name, service in services.items()}
        order, cycles = _sort(needs)
        for cycle in cycles:
            what = f"start order goes round: {' after '.join([*cycle, cycle[0]])}"
            self.wrong(("service", cycle[0], "after"), what, "take one of these out of its after")
        unit = {name: f"group {service.group}" if service.group else name for name, service in services.items()}
        unit_needs: dict[str, set[str]] = {}
        for name, before in needs.items():
            unit_needs.setdefault(unit[name], set()).update({unit[other] for other in before} - {unit[name]})
        units, unit_cycles = _sort(unit_needs)
        for cycle in [] if cycles else unit_cycles:
            self._refuse_group_cycle(cycle, unit, needs)
        return tuple(services[name] for whole in units for name in order if unit[name] == whole)

    def _refuse_group_cycle(self, cycle: list[str], unit: dict[str, str], needs: dict[str, set[str]]) -> None:
        later, sooner = cycle[0], cycle[1]
        members = (name for name in unit if unit[name] == later)
        guilty = next(name for name in members if any(unit[other] == sooner for other in needs[name]))
        what = f"start order goes round: {' after '.join([*cycle, later])}, and a group starts as one"
        self.wrong(("service", guilty, "after"), what, "mend after, or take a service out of its group")


def _sort(needs: Mapping[str, set[str]]) -> tuple[list[str], list[list[str]]]:
    """Order the names: each after what it needs, else as given; also give the cycles that forbid it."""
    order: list[str] = []
    cycles: list[list[str]] = []
    left = dict(needs)
    while left:
        name = next((name for name, before in left.items() if not before & left.keys()), None)
        if name is None:
            cycles.append(_cycle(left))
            name = cycles[-1][0]
        order.append(name)
        del left[name]
    return order, cycles


def _cycle(left: Mapping[str, set[str]]) -> list[str]:
    """A cycle among names that each need another one of them."""
    trail = [next(iter(left))]
    while True:
        name = next(name for name in left if name in left[trail[-1]])
        if name in trail:
            return trail[trail.index(name) :]
        trail.append(name)
