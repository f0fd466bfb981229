"""Mounts, and noted changes."""

from __future__ import annotations

import json
import struct
from typing import Final, NamedTuple

from corekernel.errors import ServiceError
from shim.files.calls import U64, AnyPath, Calls, decoded, failure

_EVENT: Final = struct.Struct("<iIII")  # struct inotify_event, before the name


class Mount(NamedTuple):
    """Something mounted: on which directory, what kind of file system, of what, and how."""

    path: str
    kind: str
    source: str
    options: object


class Change(NamedTuple):
    """A noted change: number of the watch (-1: some were lost), IN_ flags, cookie of a rename, name."""

    number: int
    mask: int
    cookie: int
    name: str


class Namespace(Calls):
    """mount, unmount, mounts; watch, unwatch, changes. Any may raise `OSError`."""

    def mount(self, kind: str, path: AnyPath) -> None:
        """Mount a file system ("hostfs", "proc") on a directory."""
        try:
            self._fs.mount(self._lanes.request(), kind, self._whole(path))
        except ServiceError as error:
            raise failure(error, path) from None

    def unmount(self, path: AnyPath) -> None:
        """Unmount what is mounted on a directory."""
        try:
            self._fs.unmount(self._lanes.request(), self._whole(path))
        except ServiceError as error:
            raise failure(error, path) from None

    def mounts(self) -> list[Mount]:
        """What is mounted, the oldest first."""
        table = json.loads(self._fs.mounts())
        return [Mount(str(row["path"]), str(row["kind"]), str(row["source"]), row["options"]) for row in table]

    def watch(self, path: AnyPath, mask: int) -> int:
        """Have changes of a file or directory noted (inotify_add_watch); number of the watch."""
        try:
            return self._fs.watch(self._lanes.request(), mask & U64, self._whole(path))
        except ServiceError as error:
            raise failure(error, path) from None

    def unwatch(self, number: int) -> None:
        """Stop noting."""
        try:
            self._fs.unwatch(self._lanes.request(), number & U64)
        except ServiceError as error:
            raise failure(error) from None

    def changes(self, wait: bool = True) -> list[Change]:
        """What has been noted since the last time; waits for something.

        Raises:
            BlockingIOError: nothing, and `wait` is False.
        """
        try:
            raw = self._fs.changes(self._lanes.request(), wait)
        except ServiceError as error:
            raise failure(error) from None
        found, at = [], 0
        while at + _EVENT.size <= len(raw):
            number, mask, cookie, length = _EVENT.unpack_from(raw, at)
            at += _EVENT.size
            name = raw[at : at + length].split(b"\0", 1)[0]
            found.append(Change(number, mask, cookie, decoded(name)))
            at += length
        return found
