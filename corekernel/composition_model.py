"""What a composition is: the frozen records that a checked file becomes, and the bounds they keep.

Invariants of a loaded composition:

* every service named anywhere (`after`, `calls`, `prebind`) is defined in it; `calls` may also name `core`,
  which always exists;
* `services` is in start order: each service comes after those in its `after`, services of one group stand
  together, and otherwise they keep the order in which they are written;
* services of one group share one class, and so one process; an IC1 service has a process to itself, and so has one
  that may read host directories;
* a CPU with a poller is dedicated: no other service is placed on it;
* every device that a service lists is defined; one of memory, and the console, by at most one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from corekernel.toml_lines import MistakesError

CORE = "core"
MAX_SERVICES = 60
MAX_DEVICES = 64
MAX_RAM_DEVICES = 8  # of one service: it is given all it has in one message
MAX_STACKS = 30_000  # each costs two of the 65,530 mappings that a host process may have
MAX_UID = 2**32 - 2

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


class DeviceKind(enum.Enum):
    """What a device is: one of Linux's memory devices, the serial console, or memory that outlives the services."""

    MEMORY = "memory"
    SERIAL = "serial"
    RAM = "ram"


DEVICE_NAMES = {DeviceKind.MEMORY: ("null", "zero", "full", "random", "urandom"), DeviceKind.SERIAL: ("console",)}
"""The names that devices of these kinds have; a RAM device has any other."""


@dataclass(frozen=True)
class Device:
    """One device; the keys of its `[device.NAME]` table. `size` is in bytes, 0 for what has none."""

    name: str
    kind: DeviceKind
    size: int = 0


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
    backoff_ms: int = 1
    backoff_max_ms: int = 2000


@dataclass(frozen=True)
class Service:
    """One service of a composition; the keys of its `[service.NAME]` table.

    `module` and `interface` default to `services.NAME` and `NAME`. `clients` says whether ordinary clients
    may call it: all, none, or these host user ids. A handler that runs longer than `handler_limit_ms` is
    taken for hung (0: never). `host_paths` are the host directories that it may read, as written: absolute paths
    and `host_paths.PYTHON`.
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
    host_paths: tuple[str, ...] = ()
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
    devices: tuple[Device, ...] = ()

    def service(self, name: str) -> Service:
        """The service of that name; raises KeyError when there is none."""
        return {service.name: service for service in self.services}[name]

    def devices_of(self, service: Service) -> tuple[Device, ...]:
        """The devices that a service lists, in its order."""
        known = {device.name: device for device in self.devices}
        return tuple(known[name] for name in service.devices)
