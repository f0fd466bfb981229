"""The state of the file system, and how an operation runs on it.

One lock is held while an operation looks at or changes anything here. It is never held over a call: an operation that
needs a volume's answer is begun again with it (`FileSystem.run`).
"""

from __future__ import annotations

import errno
import gc
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from corekernel.errors import CallError, NoSuchService, ServiceError
from corekernel.port import Caller
from corekernel.process_table import LIVE, ProcessRecord, ProcessTable
from corekernel.service import DeviceKind, Environment
from services.files import PATH_MAX, ROOT
from services.fs import watches
from services.fs.contents import Contents
from services.fs.descriptions import (
    DESCRIPTIONS_SIZE,
    DESCRIPTORS_SIZE,
    DEVICE,
    LOCAL,
    PATHS_SIZE,
    VOLUME,
    Description,
    Descriptions,
)
from services.fs.device import Device
from services.fs.fresh import Fresh
from services.fs.host import HostVolume
from services.fs.journal import CLOSE, MOVE, Journal, Request
from services.fs.journal import SIZE as JOURNAL_SIZE
from services.fs.locks import LOCKS_SIZE, Locks
from services.fs.mounts import Kinds, Mounts
from services.fs.names import Names
from services.fs.proc import ProcVolume, pools
from services.fs.store import ROOT_INODE, Inode, Store
from services.fs.volume import VOLUME_ROOT, Answers, NeedVolume, Remote, Volume, root_of
from services.fs.walk import Node, Place, Walker, place_of
from services.fs.watches import WATCHES_SIZE, Watches
from services.memory import keep_freed
from services.stubs.core import CoreClient
from services.stubs.devmgr import DevmgrClient

T = TypeVar("T")

STATE = {
    "processes": 0,
    "descriptions": DESCRIPTIONS_SIZE,
    "paths": PATHS_SIZE,
    "descriptors": DESCRIPTORS_SIZE,
    "requests": JOURNAL_SIZE,
    "locks": LOCKS_SIZE,
    "watches": WATCHES_SIZE,
}
EMPTY_PATH = 0x1000
NOFOLLOW = 0x100


def _may_call(environment: Environment, service: str) -> bool:
    try:
        environment.port(service)
    except NoSuchService:
        return False
    return True


def _disk(environment: Environment) -> memoryview:
    """The memory of the device that the composition gives this service."""
    disks = [device.name for device in environment.devices.values() if device.kind is DeviceKind.RAM]
    if len(disks) != 1:
        raise ValueError(f"the file system needs one device of kind ram, and was given {disks or 'none'}")
    return environment.device(disks[0])


def _ask(answers: Answers, volume: Volume, path: bytes) -> None:
    try:
        answers.ask(volume, path)
    except CallError as error:
        raise ServiceError(errno.EIO, str(error)) from error


class FileSystem:
    """What the operations share; the operations are in the classes deriving from it."""

    def __init__(self, environment: Environment) -> None:
        # The caches are many objects without cycles: a full collection goes through all of them, and everybody waits.
        gc.set_threshold(50_000, 20, 1000)
        keep_freed()
        self._environment = environment
        self._lock = threading.Lock()
        self._core = CoreClient(environment.port("core"))
        self.started_ns = time.monotonic_ns()
        self._processes = ProcessTable(environment.object("processes"))
        self._store = Store(Device(_disk(environment)), environment.owner)
        self._contents = Contents(self._store)
        self._open = Descriptions(
            environment.object("descriptions"), environment.object("paths"), environment.object("descriptors")
        )
        self._locks = Locks(environment.object("locks"), environment.condition())
        self._watches = Watches(environment.object("watches"), environment.condition())
        kinds: Kinds = {"proc": lambda number, covers: ProcVolume(number, covers, self)}
        if _may_call(environment, "hostfs"):
            port = environment.port("hostfs")
            kinds["hostfs"] = lambda number, covers: HostVolume(number, covers, port)
        self._mounts = Mounts(self._store, kinds)
        self._devices = DevmgrClient(environment.port("devmgr")) if _may_call(environment, "devmgr") else None
        self._walker = Walker(self._store, self._root, self._mounts.on)
        self._names = Names(self._store, self._open.is_open)
        self._journal = Journal(environment.object("requests"), self._redo)
        self._fresh = Fresh()
        self._released: list[int] = []  # handles of the device manager, to be given back outside the lock
        self._open.on_close = self._closed
        self._recover()
        self._furnish({kind: str(environment.options[kind]) for kind in kinds if kind in environment.options})

    def _furnish(self, mounts: dict[str, str]) -> None:
        """Make what a new file system has: the mounts, /dev with its devices, then /tmp, which says that it is done."""
        root = self._store.inode(ROOT_INODE)
        if self._store.lookup(root, b"tmp") is not None:
            return
        for kind, path in mounts.items():
            at = root
            for name in path.split("/")[1:]:
                at = self._furnished(at, name.encode(), stat.S_IFDIR | 0o755)
            if at.ino not in self._mounts.on:
                self._mounts.mount(kind, at, path.encode())
        devices = json.loads(self._devices.devices()) if self._devices is not None else []
        directory = self._furnished(root, b"dev", stat.S_IFDIR | 0o755)
        for device in devices:
            rdev = os.makedev(device["major"], device["minor"])
            self._furnished(directory, device["name"].encode(), stat.S_IFCHR | 0o666, rdev)
        self._furnished(root, b"tmp", stat.S_IFDIR | 0o1777)

    def _furnished(self, parent: Inode, name: bytes, mode: int, rdev: int = 0) -> Inode:
        found = self._store.lookup(parent, name)
        if found is not None:
            return found
        with self._store.transaction() as change:
            change.touch(parent)
            return self._names.enter_new(
                change, parent, name, change.make(mode, self._environment.owner, 0, rdev, parent.ino)
            )

    def _recover(self) -> None:
        """After a death: finish what was under way, and drop what belongs to clients that have gone meanwhile."""
        self._journal.recover(self._store.database.number)
        living = {record.pid for record in self._processes if record.state == LIVE}
        known = (self._open, self._journal, self._locks, self._watches)
        for client in {client for part in known for client in part.clients()} - living:
            self._forget(client)
        self._locks.keep({description.index for description in self._open})
        orphans = [number for number in self._store.orphans() if not self._open.is_open(number)]
        for number in orphans:
            self._erase(number)

    def _redo(self, kind: int, first: int, second: int) -> None:
        """What a request's record says is to be done with its change."""
        if kind == MOVE:
            description = self._open.description(first)
            if description is not None:
                self._open.move(description, second)
        elif kind == CLOSE:
            self._open.close_index(first)

    def client_gone(self, client: int) -> None:
        """Host hook: a client's descriptors, locks and answers go with it."""
        with self._lock:
            self._forget(client)
            self._released.clear()  # the device manager has heard of it, too

    def _forget(self, client: int) -> None:
        for descriptor in self._open.of(client):
            self._open.close(descriptor)
        self._locks.forget(client)
        self._watches.forget(client)
        self._journal.forget(client)

    def _closed(self, description: Description) -> None:
        """The last descriptor of a description has gone."""
        self._locks.unlock_description(description.index)
        if self._watches.active:
            self.noted(description, watches.CLOSE_WRITE if description.writable else watches.CLOSE_NOWRITE)
        if description.kind == VOLUME:
            self._fresh.drop(description.index)
        elif description.kind == DEVICE:
            self._released.append(description.file)
        elif description.kind == LOCAL:
            inode = self._store.inode(description.file)
            if not inode.nlink and not self._open.is_open(inode.ino):
                self._erase(inode.ino)

    def _erase(self, number: int) -> None:
        with self._store.transaction() as change:
            change.erase(self._store.inode(number))
        self._watches.gone(number)

    # ---- what watchers are told; asked for only while there are any

    def noted(self, description: Description, mask: int) -> None:
        """Something has happened to an open file: note it of the file, and of its directory if it is still there."""
        if description.kind == LOCAL and not description.flags & os.O_PATH:
            self.note(self._store.inode(description.file), mask, description.place)

    def note(self, inode: Inode, mask: int, place: tuple[int, bytes] | None) -> None:
        """Something has happened to a file that stands at a place."""
        mask |= watches.IS_DIRECTORY if inode.is_directory else 0
        if place is not None and self._store.names.get(place) == inode.ino:
            self._watches.note(place[0], mask, place[1])
        self._watches.note(inode.ino, mask)

    # ---- what /proc shows

    def processes(self) -> list[ProcessRecord]:
        """The living processes."""
        return [record for record in self._processes if record.state == LIVE]

    def process(self, pid: int) -> ProcessRecord | None:
        """A process, if it lives."""
        record = self._processes.find(pid)
        return record if record is not None and record.state == LIVE else None

    def paths_of(self, client: int) -> list[tuple[str, bytes]]:
        """A client's descriptors: number, and path of the file or what else it is."""
        with self._lock:
            return [(str(d.number), self._shown(d.description)) for d in self._open.of(client)]

    def _shown(self, description: Description) -> bytes:
        if description.kind == DEVICE:
            return b"device:[%d]" % description.file
        if description.kind == VOLUME:
            base = self._mounts.paths.get(description.mount, b"")
            return base + b"/" + description.path if description.path else base
        try:
            return self.path(self._store.inode(description.file))
        except ServiceError:
            return b"inode:[%d] (deleted)" % description.file

    def path(self, inode: Inode) -> bytes:
        """A path of a file on the device.

        Raises:
            ServiceError: ENOENT, it has none any more.
        """
        names: list[bytes] = []
        while inode.ino != ROOT_INODE:
            found = self._store.name_of(inode)
            if found is None:
                raise ServiceError(errno.ENOENT)
            names.append(found[1])
            inode = self._store.inode(found[0])
        return b"/" + b"/".join(names[::-1])

    def mount_table(self) -> list[dict[str, str]]:
        """The mounts, the oldest first."""
        with self._lock:
            return self._mounts.table()

    def device_blocks(self) -> tuple[int, int]:
        """Blocks of the device: all, and free."""
        return self._store.blocks.total, self._store.blocks.free

    def pools(self) -> dict[str, dict[str, int]]:
        """Every service's stack pool."""
        return pools(self._core.pools)

    # ---- running an operation

    def run(self, caller: Caller, operation: Callable[[Answers], T], path: bytes = b"", size: int = 0) -> T:
        """Run an operation under the lock, again for each answer of a volume that it turns out to need.

        Args:
            caller: whose operation it is.
            operation: what to run.
            path: where it will go, if that is known: what a volume will be asked is asked at once.
            size: how much of the file there is welcome with the answer, as it will be read next.
        """
        answers = Answers(caller, size)
        missing = self._mounts.foreseen(path) if path else None
        while True:
            if missing is not None:
                _ask(answers, *missing)
            try:
                with self._lock:
                    return operation(answers)
            except NeedVolume as need:
                missing = need.volume, need.path

    def once(self, caller: Caller, number: int, operation: Callable[[Request, Answers], None]) -> None:
        """Run an operation that answers nothing, unless this request has been answered before."""

        def unless_answered(answers: Answers) -> None:
            asked = self.request(caller, number)
            if asked.answer() is None:
                operation(asked, answers)

        self.run(caller, unless_answered)

    def request(self, caller: Caller, number: int) -> Request:
        """A request of a caller, perhaps one that was answered before; under the lock."""
        return self._journal.request(caller.client, number)

    # ---- from what callers say to what they mean

    def _root(self) -> Node:
        volume = self._mounts.on.get(ROOT_INODE)
        return self._store.inode(ROOT_INODE) if volume is None else root_of(volume)

    def node_of(self, description: Description, answers: Answers) -> Node:
        """What a description is open on.

        Raises:
            ServiceError: ESTALE, it is gone, or a volume's file that is another one now.
        """
        if description.kind == LOCAL:
            return self._store.inode(description.file)
        if description.kind == DEVICE:
            return self._store.inode(description.device)
        volume = self._mounts.volume(description.mount)
        if not description.path:
            return root_of(volume)
        walked = answers.of(volume, description.path)
        return Remote(volume, description.path, walked.attributes, walked.target)

    def opened(self, description: Description, answers: Answers) -> Node:
        """As `node_of`, but of a volume's file only what cannot change, so that the volume need not be asked.

        Its permissions are not known here: who may search or list a volume's directory, the volume decides.
        """
        return self.opened_remote(description) if description.kind == VOLUME else self.node_of(description, answers)

    def opened_remote(self, description: Description) -> Remote:
        """What a description of a volume's file was opened on: type, and what names it to the volume."""
        known = VOLUME_ROOT._replace(ino=description.file, dev=description.device, mode=description.type | 0o555)
        return Remote(self._mounts.volume(description.mount), description.path, known)

    def _start(self, caller: Caller, directory: int, path: bytes, answers: Answers) -> Node:
        """The open directory that a relative path starts from."""
        description = self._open.get(caller.client, directory).description
        itself = path[:1] == b"."  # perhaps: then its attributes may be wanted
        node = self.node_of(description, answers) if itself else self.opened(description, answers)
        if not node.is_directory:
            raise ServiceError(errno.ENOTDIR)
        return node

    def place(
        self, caller: Caller, directory: int, path: bytes, follow: bool, answers: Answers, creating: bool = False
    ) -> Place:
        """Walk a path that a caller gives."""
        if not path or len(path) >= PATH_MAX:  # before the directory is looked at
            raise ServiceError(errno.ENAMETOOLONG if path else errno.ENOENT)
        absolute = path[0] == 47 or directory == ROOT
        start = self._root() if absolute else self._start(caller, directory, path, answers)
        return self._walker.walk(caller, start, path, follow, answers, creating)

    def node(self, caller: Caller, directory: int, flags: int, path: bytes, answers: Answers) -> Node:
        """The file that a caller means: by path, or by descriptor alone with AT_EMPTY_PATH.

        Raises:
            ServiceError: what the walk raises; EINVAL for unknown flags.
        """
        if not path:
            return self._without_path(caller, directory, flags, answers)[0]
        follow = not flags & NOFOLLOW or path[-1] == 47
        return self.place(caller, directory, path, follow, answers).existing()

    def located(
        self, caller: Caller, directory: int, flags: int, path: bytes, answers: Answers
    ) -> tuple[Node, tuple[int, bytes] | None]:
        """As `node`, and the directory and name under which the file was found, for those who watch it."""
        if not path:
            return self._without_path(caller, directory, flags, answers)
        place = self.place(caller, directory, path, not flags & NOFOLLOW or path[-1] == 47, answers)
        return place.existing(), place_of(place)

    def _without_path(
        self, caller: Caller, directory: int, flags: int, answers: Answers
    ) -> tuple[Node, tuple[int, bytes] | None]:
        if not flags & EMPTY_PATH:
            raise ServiceError(errno.ENOENT)
        if directory == ROOT:
            return self._root(), None
        description = self._open.get(caller.client, directory).description
        return self.node_of(description, answers), description.place

    def regular(self, description: Description) -> Inode:
        """The regular file on the device that a description is open on.

        Raises:
            ServiceError: EISDIR, EINVAL (another type, or a device's), EROFS (a volume's).
        """
        if description.kind == DEVICE:
            raise ServiceError(errno.EINVAL)
        if description.kind == VOLUME:
            raise ServiceError(errno.EROFS)
        inode = self._store.inode(description.file)
        if not inode.is_regular:
            raise ServiceError(errno.EISDIR if inode.is_directory else errno.EINVAL)
        return inode
