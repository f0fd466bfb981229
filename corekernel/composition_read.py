"""Reads a composition: the file, what it inherits, and each table with its types and ranges.

A file lies over the one that it inherits (`merge`); what it removes is taken out of that first, and the place
of the removal is kept, because a mistake may turn out to be there. A key that is absent or wrong gives its
default, so that one pass finds all mistakes.
"""

from __future__ import annotations

import keyword
import os
import re
from pathlib import Path
from typing import Any, TypeAlias

from corekernel.composition_model import (
    CORE,
    DEVICE_NAMES,
    MAX_DEVICES,
    MAX_SERVICES,
    MAX_STACKS,
    MAX_UID,
    AttachKind,
    AttachPolicy,
    Composition,
    Device,
    DeviceKind,
    Isolation,
    Language,
    Limits,
    OptionValue,
    Placement,
    PlacementKind,
    Pool,
    Priority,
    Restart,
    Service,
    Uids,
)
from corekernel.host_paths import PYTHON
from corekernel.toml_lines import Document, Place, Report, Table, did_you_mean, merge, read_document, show

_NAME = r"[a-z][a-z0-9_]{0,31}"
_NAME_WORDS = "a name of a-z, 0-9 and _ that begins with a letter, 32 characters at most"
_DEVICE = r"[a-z][a-z0-9_.:-]{0,63}"
_DEVICE_WORDS = "a name of a-z, 0-9, and _.:- that begins with a letter, 64 characters at most"
_REMOVABLE = ("service", "device")
_FILE_NAME = r"[a-z][a-z0-9_-]{0,63}"
# No empty, "." or ".." component, no slash at the end (but "/" itself), no control character.
_HOST_PATH = rf"{PYTHON}|/|(/(?!\.\.?(/|$))[^/\x00-\x1f\x7f]{{1,255}})+"
_MODULE = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"


Removed: TypeAlias = dict[tuple[str, str], Place]
"""Where what was removed: ("service" or "device", its name) -> the place of the removal."""


def named(search: Path) -> list[Path]:
    """The files in a directory that are compositions by their names, sorted."""
    return sorted(path for path in search.glob("*.toml") if re.fullmatch(_FILE_NAME, path.stem))


def locate(word: str, beside: Path, search: Path, place: Place, report: Report) -> Path:
    """The file that a word means: a path from `beside`, or a name in `search`; told at `place` if neither.

    Raises:
        CompositionError: there is no composition of that name.
    """
    if "/" in word or word.endswith(".toml"):
        return beside / word
    names = [path.stem for path in named(search)]
    if word not in names:
        report.refuse(place, f"there is no composition {show(word)}", did_you_mean(word, names))
    return search / f"{word}.toml"


def read_inherited(path: Path, search: Path, report: Report) -> tuple[Document, Removed]:
    """The document of a file merged over all it inherits, and what was removed on the way."""
    chain = _inheritance(path, search, report)
    removed: Removed = {}
    document = Document(path, {}, {})
    for over in reversed(chain):
        for table in _REMOVABLE:
            removed.update(_remove(table, document, over, report))
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
            report.refuse(place, f"inherit must be a name, not {show(word)}", 'write it as inherit = "default"')
        path = locate(word, path.parent, search, place, report)
        if not (word.isprintable() and path.is_file()):
            report.refuse(place, f"there is no file {show(word)} to inherit", "name one that exists")
        if os.path.realpath(path) in seen:
            report.refuse(place, f"inherit goes round: {show(word)} inherits this file", "inherit another one")


def _remove(what: str, base: Document, over: Document, report: Report) -> Removed:
    """Take out of `base` the services or devices that `over` removes, and the removals out of `over`."""
    mine, inherited = _tables(over, what), _tables(base, what)
    removed: Removed = {}
    for name in [name for name, table in mine.items() if isinstance(table, dict) and "remove" in table]:
        place = over.place((what, name, "remove"))
        if mine.pop(name) != {"remove": True}:
            report.add(place, "remove must be true and the only key of its table", "delete the other keys")
        elif name not in inherited:
            text = f"{what} {show(name)} is not inherited, so it cannot be removed"
            report.add(place, text, did_you_mean(name, inherited))
        else:
            del inherited[name]
            removed[what, name] = place
    return removed


def _tables(document: Document, what: str) -> dict[str, Any]:
    tables = document.values.get(what)
    return tables if isinstance(tables, dict) else {}


def read_composition(document: Document, report: Report) -> Composition:
    """The composition that a document writes down; its services stand as written, not yet checked together."""
    top = Table(document, (), document.values, report)
    words = "one line of at most 200 characters"
    description = top.text("description", "", r"[^\x00-\x1f\x7f]{0,200}", words)
    top.value("inherit")
    system, tables, devices = top.table("system"), top.table("service"), top.table("device")
    prebind = system.names("prebind", _NAME, "the name of a service")
    attach, limits = _read_attach(system), _read_limits(system)
    system.close()
    top.close()
    services, found = _read_services(tables), _read_devices(devices)
    return Composition(document.file.stem, description, document.file, prebind, attach, limits, services, found)


def _read_devices(tables: Table) -> tuple[Device, ...]:
    devices: list[Device] = []
    for name in tables.values:
        if not re.fullmatch(_DEVICE, name):
            tables.report.add(tables.place(name), f"device {show(name)} is not {_DEVICE_WORDS}", "rename it")
        elif not isinstance(tables.values[name], dict):
            tables.table(name)  # says so
        else:
            devices += _read_device(name, tables.table(name))
    if len(devices) > MAX_DEVICES:
        what = f"{len(devices)} devices are too many"
        tables.report.add(tables.place(devices[-1].name), what, f"keep to {MAX_DEVICES}")
        tables.report.stop()
    return tuple(devices)


def _read_device(name: str, table: Table) -> list[Device]:
    """The device, unless its kind is missing or wrong: without it nothing can be said of it."""
    kinds = {member.value: member for member in DeviceKind}
    kind = table.choice("kind", None, {**kinds})
    if "kind" not in table.values:
        words = ", ".join(map(show, kinds))
        table.report.add(table.place(), f"device {name} has no kind", f"give it one of {words}")
    size = table.integer("size_mib", 256, 1, 1 << 16) << 20 if kind is DeviceKind.RAM else 0
    if kind is None:
        table.value("size_mib")
        table.close()
        return []
    table.close()
    _check_device_name(name, kind, table)
    return [Device(name, kind, size)]


def _check_device_name(name: str, kind: DeviceKind, table: Table) -> None:
    names = DEVICE_NAMES.get(kind)
    owner = next((other for other, theirs in DEVICE_NAMES.items() if name in theirs), kind)
    if names is not None and name not in names:
        what = f"there is no device {name} of kind {show(kind.value)}"
        table.report.add(table.place("kind"), what, did_you_mean(name, names))
    elif owner is not kind:
        what = f"device {name} is of kind {show(owner.value)}, not {show(kind.value)}"
        table.report.add(table.place("kind"), what, "give it that kind or another name")


def _read_services(tables: Table) -> tuple[Service, ...]:
    services: list[Service] = []
    for name in tables.values:
        if name == CORE:
            what = "core is the core itself, not a service"
            tables.report.add(tables.place(name), what, "give the service another name")
        elif not re.fullmatch(_NAME, name):
            tables.report.add(tables.place(name), f"service {show(name)} is not {_NAME_WORDS}", "rename it")
        else:
            services.append(_read_service(name, tables.table(name)))
    if tables.document.values.get("service", {}) == {}:
        tables.report.add(tables.place(), "no service is defined", "add a [service.NAME] table, or inherit one")
    if len(services) > MAX_SERVICES:
        what = f"{len(services)} services are too many"
        tables.report.add(tables.place(services[-1].name), what, f"keep to {MAX_SERVICES}")
        tables.report.stop()
    return tuple(services)


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
        host_paths=_read_host_paths(table),
        devices=table.names("devices", _DEVICE, "the name of a device"),
        options=_read_options(table.table("options")),
    )
    table.close()
    return service


def _read_module(name: str, table: Table) -> str:
    module = table.text("module", f"services.{name}", _MODULE, "the dotted name of a Python module")
    if any(map(keyword.iskeyword, module.split("."))):
        table.wrong("module", "must not hold a Python keyword", "rename the module or the service")
    return module


def _read_host_paths(table: Table) -> tuple[str, ...]:
    words = f"an absolute path in its shortest form, or {show(PYTHON)}"
    return table.names("host_paths", _HOST_PATH, words)


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
