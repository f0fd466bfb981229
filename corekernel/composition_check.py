"""Checks the services of a composition against each other, and puts them in start order.

Each service has been read by itself; here are the rules that take two of them, or a service and the system:
who may be named, which class goes with which placement, what a group shares, whom a CPU belongs to, and that
an order of starting exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from corekernel.composition_model import (
    CORE,
    MAX_RAM_DEVICES,
    Composition,
    Device,
    DeviceKind,
    Isolation,
    PlacementKind,
    Service,
)
from corekernel.composition_read import Removed
from corekernel.toml_lines import Document, Report, did_you_mean


def check_services(
    written: Composition, document: Document, removed: Removed, interfaces: Path | None, report: Report
) -> tuple[Service, ...]:
    """Check the services of a composition that has been read; every mistake goes to `report`.

    Args:
        written: the composition; its services in the order of the file.
        document: where its keys stand.
        removed: where each service and device was removed that `document` does not inherit any more.
        interfaces: the directory that must hold `INTERFACE.toml` for each service; None leaves it unchecked.
        report: takes the mistakes.

    Returns:
        The services in start order (of no use if there were mistakes).
    """
    services = {service.name: service for service in written.services}
    devices = {device.name: device for device in written.devices}
    check = _Check(document, removed, report, services, devices)
    check.prebind(written.prebind)
    for service in written.services:
        check.names_in(service)
        if interfaces is not None:
            check.interface(service, interfaces)
        check.placement(service)
        check.host_paths(service)
    check.groups()
    check.cpus()
    check.device_lists()
    return check.start_order()


@dataclass
class _Check:
    """The services and devices under check, by name in the order of the file, and where their keys stand."""

    document: Document
    removed: Removed
    report: Report
    services: dict[str, Service]
    devices: dict[str, Device]

    def wrong(self, path: tuple[str, ...], what: str, mend: str) -> None:
        self.report.add(self.document.place(path), what, mend)

    def prebind(self, prebind: tuple[str, ...]) -> None:
        self._check_names(("system", "prebind"), "prebind", prebind, core=False)
        for name in prebind:
            if name in self.services and self.services[name].clients in (False, ()):
                what = f"prebind names {name}, which clients may not call"
                self.wrong(("system", "prebind"), what, "take it out, or set its clients to true")

    def names_in(self, service: Service) -> None:
        path = ("service", service.name)
        self._check_names((*path, "after"), f"after of {service.name}", service.after, core=False)
        self._check_names((*path, "calls"), f"calls of {service.name}", service.calls, core=True)
        if service.name in service.calls:
            self.wrong((*path, "calls"), f"{service.name} lists itself in calls", "take it out")

    def interface(self, service: Service, interfaces: Path) -> None:
        if not (interfaces / f"{service.interface}.toml").is_file():
            known = sorted(path.stem for path in interfaces.glob("*.toml"))
            what = f"there is no interface {service.interface} in {interfaces}"
            self.wrong(("service", service.name, "interface"), what, did_you_mean(service.interface, known))

    def _check_names(self, path: tuple[str, ...], what: str, names: Iterable[str], core: bool) -> None:
        known = [*self.services, CORE] if core else list(self.services)
        for name in names:
            if name in known:
                continue
            if ("service", name) in self.removed:
                self._still_named("service", name, path, what)
            elif name == CORE:
                self.wrong(path, f"{what} names core, which is always there first", "take it out")
            else:
                self.wrong(path, f"{what} names {name}, which is no service here", did_you_mean(name, known))

    def _still_named(self, kind: str, name: str, path: tuple[str, ...], what: str) -> None:
        """Something that was removed is still named; told at the removal."""
        text = f"{kind} {name} is removed, but {self.document.place(path)} still has it in {what}"
        self.report.add(self.removed[kind, name], text, f"state {path[-1]} in this file too")

    def device_lists(self) -> None:
        """Every device listed is there; memory and the console, whose input is consumed, are one service's alone."""
        owners: dict[str, str] = {}
        for service in self.services.values():
            path, what = ("service", service.name, "devices"), f"devices of {service.name}"
            for name in service.devices:
                device = self.devices.get(name)
                if device is None and ("device", name) in self.removed:
                    self._still_named("device", name, path, what)
                elif device is None:
                    mend = did_you_mean(name, self.devices) if self.devices else f"add a [device.{name}] table"
                    self.wrong(path, f"{what} names {name}, which is no device here", mend)
                elif device.kind is not DeviceKind.MEMORY and owners.setdefault(name, service.name) != service.name:
                    text = f"{what} names {name}, which is {owners[name]}'s"
                    self.wrong(path, text, "it belongs to one service: take it out of one of them")
            known = [self.devices[name] for name in service.devices if name in self.devices]
            if (count := sum(device.kind is DeviceKind.RAM for device in known)) > MAX_RAM_DEVICES:
                self.wrong(path, f"{what} names {count} devices of memory", f"keep to {MAX_RAM_DEVICES}")

    def placement(self, service: Service) -> None:
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

    def host_paths(self, service: Service) -> None:
        """What it may read is enforced on its process, so it must have one, and for itself."""
        if not service.host_paths:
            return
        path, name = ("service", service.name, "host_paths"), f"service {service.name}"
        if service.isolation is Isolation.IC0:
            what = f"{name} is IC0 and has host_paths, but in the core's process nothing would enforce them"
            self.wrong(path, what, 'set class to "IC2" or leave host_paths out')
        elif service.group:
            what = f"{name} is in group {service.group} and has host_paths, which the whole group would get"
            self.wrong(path, what, 'set group to "" or leave host_paths out')

    def groups(self) -> None:
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

    def cpus(self) -> None:
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

    def start_order(self) -> tuple[Service, ...]:
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
