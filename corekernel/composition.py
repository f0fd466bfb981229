"""Compositions: which services boot, in what isolation, with what rights; each read from one short TOML file.

A composition is data. `load` reads a file and what it inherits, checks everything, and gives a frozen
`Composition` or raises `CompositionError` with every mistake found; nothing has been started by then.
`compositions/README.md` lists the keys. Reading goes in three steps, each of which may refuse: find and merge
the files, read each table with its types and ranges (both in `composition_read`), and check the services
against each other (`composition_check`). `composition_model` has what comes out, and its invariants.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from corekernel.composition_check import check_services
from corekernel.composition_model import (
    CORE,
    AttachKind,
    AttachPolicy,
    Composition,
    CompositionError,
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
from corekernel.composition_read import locate, named, read_composition, read_inherited
from corekernel.toml_lines import Place, Report

__all__ = [
    "COMPOSITIONS",
    "CORE",
    "INTERFACES",
    "AttachKind",
    "AttachPolicy",
    "Composition",
    "CompositionError",
    "Device",
    "DeviceKind",
    "Isolation",
    "Language",
    "Limits",
    "OptionValue",
    "Placement",
    "PlacementKind",
    "Pool",
    "Priority",
    "Restart",
    "Service",
    "Uids",
    "available",
    "explain",
    "load",
]

ROOT = Path(__file__).resolve().parent.parent
COMPOSITIONS = ROOT / "compositions"
INTERFACES = ROOT / "services" / "interfaces"


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
        path = locate(path, Path(), search, Place(search, 1), report)
    document, removed = read_inherited(path, search, report)
    written = read_composition(document, report)
    order = check_services(written, document, removed, interfaces, report)
    report.stop()
    return dataclasses.replace(written, services=order)


def available(search: Path = COMPOSITIONS, interfaces: Path | None = INTERFACES) -> list[tuple[str, Path, str]]:
    """The compositions in a directory: name, path, description (or why it is refused), sorted by name."""

    def describe(path: Path) -> str:
        try:
            return load(path, search, interfaces).description
        except CompositionError as error:
            return f"refused: {error.mistakes[0]}"

    return [(path.stem, path, describe(path)) for path in named(search)]


def explain(composition: Composition) -> str:
    """A composition as readable tables: one service per line in start order, then one device per line."""
    limits = composition.limits
    rows: list[tuple[str, ...]] = [("service", "class", "process", "placement", "calls", "clients", "pool")]
    rows += [_explain_service(service) for service in composition.services]
    head = [
        f"{composition.name}: {composition.description or 'no description'}",
        f"file      {composition.path}",
        f"prebind   {', '.join(composition.prebind) or '-'}",
        f"attach    {composition.attach}",
        f"memory    {limits.memory_mib} MiB, of which stacks may take {limits.stack_memory_mib} MiB",
        *(f"host      {s.name} reads {', '.join(s.host_paths)}" for s in composition.services if s.host_paths),
    ]
    devices = ["", *_aligned(_explain_devices(composition))] if composition.devices else []
    return "\n".join([*head, "", *_aligned(rows), *devices])


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _explain_devices(composition: Composition) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("device", "kind", "size", "services")]
    for device in composition.devices:
        users = ", ".join(service.name for service in composition.services if device.name in service.devices)
        rows.append((device.name, device.kind.value, f"{device.size >> 20} MiB" if device.size else "-", users or "-"))
    return rows


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
