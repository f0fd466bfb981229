"""Kernel objects and the table of grants.

Everything shared is a kernel object: one anonymous file, mode 0600, of fixed size, made by the core and reachable only
through a descriptor that the core hands out. Holding a mapping is the capability; the host's MMU enforces it. The core
is the only granter, and every grant is recorded here.

Sealing: size and seals are fixed at creation (SHRINK, GROW, SEAL), so that no holder can truncate an object under
another's mapping or add a seal that would block later grants. A read-only grant is a descriptor reopened for
reading: with mode 0600 and another user id its holder can neither reopen it for writing nor map it so.
"""

from __future__ import annotations

import enum
import fcntl
import os
from dataclasses import dataclass, field

from corekernel.errors import Denied, NoSuchService

_SEALS = 0x1 | 0x2 | 0x4  # SEAL, SHRINK, GROW


class Kind(enum.Enum):
    """What an object is for."""

    FRAMES = "frames"
    BUFFER = "buffer"
    POOL = "pool"
    STACKS = "stacks"
    STATE = "state"


class Rights(enum.Enum):
    """What a grant allows."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True)
class Grant:
    """One capability handed out."""

    object: int
    grantee: int
    rights: Rights


@dataclass
class KernelObject:
    """One shared object; `owner` is the client or service number on whose account it is."""

    number: int
    kind: Kind
    name: str
    size: int
    owner: int
    generation: int
    fd: int
    grants: list[Grant] = field(default_factory=list)

    def resident(self) -> int:
        """Bytes of memory it takes now; of an object handed over, at most."""
        return os.fstat(self.fd).st_blocks * 512 if self.fd >= 0 else self.size


class ObjectTable:
    """All kernel objects of a system. Used by the core's loop thread only."""

    def __init__(self) -> None:
        self._objects: dict[int, KernelObject] = {}
        self._next = 1

    def create(self, kind: Kind, name: str, size: int, owner: int, generation: int = 0) -> KernelObject:
        """Make an object of `size` bytes (rounded up to pages by the host), zero-filled and sparse."""
        fd = os.memfd_create(f"hmk:{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        made = KernelObject(self._next, kind, name, size, owner, generation, fd)
        self._objects[made.number] = made
        self._next += 1
        return made

    def get(self, number: int) -> KernelObject:
        """The object of that number.

        Raises:
            NoSuchService: there is none.
        """
        if number not in self._objects:
            raise NoSuchService(f"no object {number}")
        return self._objects[number]

    def grant(self, made: KernelObject, grantee: int, rights: Rights) -> int:
        """Record a grant and return a descriptor for it; the caller closes it once sent."""
        given = Grant(made.number, grantee, rights)
        if given not in made.grants:
            made.grants.append(given)
        if rights is Rights.WRITE:
            return os.dup(made.fd)
        return os.open(f"/proc/self/fd/{made.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def holds(self, number: int, grantee: int) -> Grant:
        """The grant by which `grantee` holds an object.

        Raises:
            Denied: it holds none.
        """
        for grant in self.get(number).grants:
            if grant.grantee == grantee:
                return grant
        raise Denied(f"client {grantee} holds no token of object {number}")

    def forget(self, grantee: int) -> None:
        """A client or service generation is gone: strike its grants, free the objects on its account."""
        for made in list(self._objects.values()):
            made.grants = [grant for grant in made.grants if grant.grantee != grantee]
            if made.owner == grantee and made.kind is not Kind.STATE:
                self.release(made)

    def hand_over(self, made: KernelObject) -> None:
        """Keep an object on its account only: nobody else will be granted it, so it shall cost no descriptor."""
        if made.fd >= 0:
            os.close(made.fd)
            made.fd = -1

    def release(self, made: KernelObject) -> None:
        """Free an object; holders keep their mappings until they unmap."""
        if self._objects.pop(made.number, None):
            self.hand_over(made)

    def usage(self, owner: int, kind: Kind) -> int:
        """Bytes promised to an owner in objects of one kind."""
        return sum(o.size for o in self._objects.values() if o.owner == owner and o.kind is kind)

    def summary(self) -> dict[str, dict[str, int]]:
        """Count, promised and resident bytes by kind."""
        result: dict[str, dict[str, int]] = {}
        for made in self._objects.values():
            entry = result.setdefault(made.kind.value, {"count": 0, "bytes": 0, "resident": 0, "grants": 0})
            entry["count"] += 1
            entry["bytes"] += made.size
            entry["resident"] += made.resident()
            entry["grants"] += len(made.grants)
        return result
