"""What is mounted where. The mounts stand in the database of the device that they are mounted on."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import TypeAlias

from corekernel.errors import ServiceError
from services.fs.database import MOUNT, UNMOUNT
from services.fs.journal import Request
from services.fs.store import Inode, Store
from services.fs.volume import Volume

Kinds: TypeAlias = "dict[str, Callable[[int, int], Volume]]"

_DOTS_OR_SLASHES = re.compile(rb"/\.{0,2}(?:/|\Z)")  # more than one slash, one at the end, `.` or `..`


class Mounts:
    """The mounts; `kinds` makes a volume of a kind, given its number and the directory that it covers.

    Attributes:
        on: what is mounted on a directory, by its inode number.
        paths: where each is mounted, by its number.
    """

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._kinds = kinds
        self._volumes: dict[int, Volume] = {}
        self.on: dict[int, Volume] = {}
        self.paths: dict[int, bytes] = {}
        self._starts: list[
            tuple[bytes, Volume]
        ] = []  # of the paths into each; replaced, not changed: read without lock
        for number, kind, covers, path in store.database.query(
            "SELECT number, kind, covers, path FROM mount"
        ).fetchall():
            if kind in kinds:
                self._enter(kinds[kind](number, covers), path)

    def _enter(self, volume: Volume, path: bytes) -> None:
        self._volumes[volume.number] = volume
        self.on[volume.covers] = volume
        self.paths[volume.number] = path
        self._foresee()

    def _foresee(self) -> None:
        self._starts = [(path + b"/", self._volumes[number]) for number, path in self.paths.items()]

    # ---- finding

    def foreseen(self, path: bytes) -> tuple[Volume, bytes] | None:
        """Which volume the walk of a path from the root will ask for what, if nothing interferes, such as a link.

        So it may be asked before the walk; whether that was the right question, the walk decides.
        """
        for start, volume in self._starts:
            if path.startswith(start) and _DOTS_OR_SLASHES.search(path) is None:
                return volume, path[len(start) :]
        return None

    def volume(self, number: int) -> Volume:
        """A mount by its number.

        Raises:
            ServiceError: ESTALE, it was unmounted.
        """
        if number not in self._volumes:
            raise ServiceError(errno.ESTALE)
        return self._volumes[number]

    def table(self) -> list[dict[str, str]]:
        """The mounts, the oldest first, for people."""
        root = {"path": "/", "kind": "hmk", "source": "device", "options": "rw"}
        rows = [
            {"path": os.fsdecode(self.paths[number]), "kind": v.kind, "source": v.source, "options": "ro"}
            for number, v in sorted(self._volumes.items())
        ]
        return [root, *rows]

    # ---- changing

    def mount(self, kind: str, directory: Inode, path: bytes, request: Request | None = None) -> None:
        """Mount a volume on a directory, whose path is given, as a request wants it.

        Raises:
            ServiceError: ENODEV, no such kind; EBUSY, something is mounted there.
        """
        if kind not in self._kinds:
            raise ServiceError(errno.ENODEV)
        if directory.ino in self.on:
            raise ServiceError(errno.EBUSY)
        with self._store.transaction(request) as change:
            change.change(MOUNT, change.number, kind, directory.ino, path)
            number = change.number
        self._enter(self._kinds[kind](number, directory.ino), path)

    def unmount(self, volume: Volume, request: Request) -> None:
        """Undo a mount."""
        with self._store.transaction(request) as change:
            change.change(UNMOUNT, volume.number)
        del self._volumes[volume.number], self.on[volume.covers], self.paths[volume.number]
        self._foresee()
