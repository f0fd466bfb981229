"""The metadata engine: inodes and names in plain objects, a cache of the rows of a database (`database.py`).

Whatever changes metadata does so in one `Transaction`: it commits or it did not happen, and no cache remembers what did
not. Each transaction has a number, kept in the database; it is also the number of the inode that it makes and the
place in its directory of each name that it enters. So a number is never used twice, and a listing that goes by place
shows each lasting name once.

What a transaction changed stays in the caches until the database has it; so what is not in them is looked up there
without writing first what is pending.

All of this is used under the lock of `filesystem.FileSystem`.
"""

from __future__ import annotations

import errno
import stat
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeAlias

import apsw

from corekernel.errors import ServiceError
from services.files import NAME_MAX, pack_attributes, pack_columns
from services.fs import database
from services.fs.blocks import BlockMap
from services.fs.database import INODE_COLUMNS, Database
from services.fs.device import BLOCK, Device
from services.fs.journal import Request
from services.fs.redo import Change, Value

ROOT_INODE: Final = 1
DEVICE_NUMBER: Final = 0x484D
EMPTY_DIRECTORY: Final = 40  # bytes that a directory seems to have, and what each name adds: as tmpfs says
ENTRY_SIZE: Final = 20
_NAMES_PER_TRANSACTION = 4
_CACHED_INODES, _CACHED_NAMES = 150_000, 200_000

Extent: TypeAlias = tuple[int, int, int]  # first block of the file, how many, first block of the device


@dataclass(slots=True, eq=False)
class Inode:
    """One file: what `stat` tells; `parent` of a directory, `target` of a symbolic link. Times in ns since 1970."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    btime: int
    parent: int
    target: bytes
    extents: list[Extent] | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self.mode & 0o170000 == stat.S_IFLNK

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return self.mode & 0o170000 == stat.S_IFREG

    def packed(self) -> bytes:
        """Its attributes, as they travel."""
        return pack_attributes(
            self.ino, DEVICE_NUMBER, self.mode, self.nlink, self.uid, self.gid, self.rdev, self.size, BLOCK,
            self.blocks * (BLOCK // 512), self.atime, self.mtime, self.ctime, self.btime,
        )  # fmt: skip

    def row(self) -> tuple[Value, ...]:
        """As it stands in the database."""
        return (
            self.ino, self.mode, self.nlink, self.uid, self.gid, self.rdev, self.size, self.blocks,
            self.atime, self.mtime, self.ctime, self.btime, self.parent, self.target,
        )  # fmt: skip


class Store:
    """The files of one device; `names` has 0 for a name that is none, `inodes` None for one that is gone."""

    def __init__(self, device: Device, owner: int = 0) -> None:
        now, mode = time.time_ns(), stat.S_IFDIR | 0o755
        root = (ROOT_INODE, mode, 2, owner, 0, 0, EMPTY_DIRECTORY, 0, now, now, now, now, ROOT_INODE, b"")
        self.device = device
        self.database = Database(device, root)
        self.blocks = BlockMap(device)
        if self.blocks.unsure:
            self.blocks.rebuild(self.database.query("SELECT block, count FROM extent"))
        self.inodes: dict[int, Inode | None] = {}
        self.names: dict[tuple[int, bytes], int] = {}
        self._complete: set[int] = set()  # directories of which all names are in the cache

    # ---- reading

    def inode(self, number: int) -> Inode:
        """An inode by its number.

        Raises:
            ServiceError: ESTALE, there is none.
        """
        found = self.inodes.get(number)
        return self._read_inode(number) if found is None else found

    def _read_inode(self, number: int) -> Inode:
        row = None
        if number not in self.inodes:
            row = self.database.peek(f"SELECT {INODE_COLUMNS} FROM inode WHERE ino=?", (number,)).fetchone()
        if row is None:
            raise ServiceError(errno.ESTALE)
        if len(self.inodes) > _CACHED_INODES:
            self._shrink(self.inodes)
        self.inodes[number] = found = Inode(*row)
        return found

    def lookup(self, directory: Inode, name: bytes) -> Inode | None:
        """What a name in a directory means; None: nothing.

        Raises:
            ServiceError: ENAMETOOLONG.
        """
        key = (directory.ino, name)
        number = self.names.get(key)
        if number is None:
            if len(name) > NAME_MAX:
                raise ServiceError(errno.ENAMETOOLONG)
            row = None
            if directory.ino not in self._complete:
                row = self.database.peek("SELECT ino FROM name WHERE parent=? AND name=?", key).fetchone()
            number = row[0] if row else 0
            if len(self.names) > _CACHED_NAMES:
                self._shrink(self.names)
            self.names[key] = number
        return self.inode(number) if number else None

    def extents(self, inode: Inode) -> list[Extent]:
        """Where a file's contents are, in order."""
        if inode.extents is None:
            statement = "SELECT start, count, block FROM extent WHERE ino=? ORDER BY start"
            inode.extents = self.database.peek(statement, (inode.ino,)).fetchall()
        return inode.extents

    def entries(self, directory: Inode, after: int, count: int) -> tuple[int, int, bytes]:
        """Up to `count` names in a directory beyond a place: place of the last one, how many, all as they travel.

        Row by row: were there a tuple for each name at once, Python would look at all its objects for garbage.
        """
        names: list[bytes] = []
        inodes, types, last = array("Q"), bytearray(), after
        for name, ino, kind, place in self.database.query(
            "SELECT name, ino, kind >> 12, place FROM name WHERE parent=? AND place>? ORDER BY place LIMIT ?",
            (directory.ino, after, count),
        ):
            names.append(name)
            inodes.append(ino)
            types.append(kind)
            last = place
        return last, len(names), pack_columns(names, inodes.tobytes(), bytes(types))

    def name_of(self, inode: Inode) -> tuple[int, bytes] | None:
        """Directory and name under which a file stands; None: it has none. Of anything but a directory, one of them."""
        where = "parent=? AND ino=?" if inode.is_directory else "? AND ino=?"
        values = (inode.parent if inode.is_directory else 1, inode.ino)
        row = self.database.query(f"SELECT parent, name FROM name WHERE {where} LIMIT 1", values).fetchone()
        return (row[0], row[1]) if row and inode.nlink else None

    def is_empty(self, directory: Inode) -> bool:
        """Whether a directory has no name in it."""
        return directory.size == EMPTY_DIRECTORY

    def orphans(self) -> list[int]:
        """Inodes without a name: open when their last one went."""
        return [row[0] for row in self.database.query("SELECT ino FROM inode WHERE nlink=0")]

    def files(self) -> int:
        """How many inodes there are."""
        return int(self.database.query("SELECT count(*) FROM inode").fetchone()[0])

    def attribute(self, inode: Inode, name: bytes) -> bytes | None:
        """Value of an extended attribute."""
        row = self.database.query("SELECT value FROM attribute WHERE ino=? AND name=?", (inode.ino, name)).fetchone()
        return row[0] if row else None

    def attributes(self, inode: Inode) -> list[bytes]:
        """Names of its extended attributes."""
        return [row[0] for row in self.database.query("SELECT name FROM attribute WHERE ino=?", (inode.ino,))]

    def attributes_size(self, inode: Inode) -> int:
        """Bytes that a list of their names takes."""
        row = self.database.query("SELECT sum(length(name) + 1) FROM attribute WHERE ino=?", (inode.ino,)).fetchone()
        return row[0] or 0

    # ---- changing

    def transaction(self, request: Request | None = None) -> Transaction:
        """One change; `request` is what its result is kept under."""
        return Transaction(self, request)

    def complete(self, number: int) -> None:
        """A directory is new: there is nothing in it but what is entered from now on."""
        self._complete.add(number)

    def forget(self, inodes: Iterable[int], names: Iterable[tuple[int, bytes]]) -> None:
        """These are not as the caches have them: the database is asked again."""
        self.database.flush()
        for number in inodes:
            self.inodes.pop(number, None)
        for key in names:
            self.names.pop(key, None)
            self._complete.discard(key[0])

    def _shrink(self, cache: dict[Any, Any]) -> None:
        """Drop the quarter of a cache that has been in it longest."""
        self.database.flush()
        for key in list(cache)[: len(cache) // 4]:
            del cache[key]
        self._complete.clear()


class Transaction:
    """A change of metadata: `with store.transaction(request) as change:`; an exception undoes it.

    `result` and `redo` are for the request's answer, see `journal.py`. Inodes that are changed are to be named with
    `touch` first.
    """

    def __init__(self, store: Store, request: Request | None) -> None:
        self._store = store
        self._request = request
        self._changes: list[Change] = []
        self._touched: dict[int, Inode] = {}
        self._erased: list[int] = []
        self._names: list[tuple[int, bytes]] = []
        self._taken: list[tuple[int, int]] = []
        self._given: list[tuple[int, int]] = []
        self.number = store.database.number + 1
        self.now = time.time_ns()
        self.result = 0
        self.redo: tuple[int, int, int] = (0, 0, 0)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._commit()
                return
            except BaseException as caught:
                error = caught
        self._undo()
        if isinstance(error, apsw.FullError):
            raise ServiceError(errno.ENOSPC, "the device's metadata area is full") from error
        if kind is None:
            raise error

    def _commit(self) -> None:
        store, request = self._store, self._request
        for inode in self._touched.values():
            self._changes.append((database.SAVE_INODE, inode.row()))
        store.database.commit(self.number, self._changes, self._prepare)
        if self._taken or self._given:
            for block, count in self._given:
                store.blocks.give(block, count)
            store.blocks.settled()
        if request is not None:
            request.apply()

    def _prepare(self) -> None:
        if self._request is not None:
            self._request.prepare(self.number, self.result, self.redo)

    def _undo(self) -> None:
        store = self._store
        if self._touched or self._erased:
            store.forget([*self._touched, *self._erased], self._names)
        if self._taken or self._given:
            for block, count in self._taken:
                store.blocks.give(block, count)
            store.blocks.settled()
        if self._request is not None:
            self._request.abandon()

    # ---- what it may do

    def touch(self, *inodes: Inode) -> None:
        """These are about to change."""
        for inode in inodes:
            self._touched[inode.ino] = inode

    def change(self, statement: int, *values: Value) -> None:
        """Change rows: one of the statements of `database.py`, and its values."""
        self._changes.append((statement, values))

    def make(self, mode: int, uid: int, gid: int, rdev: int = 0, parent: int = 0, target: bytes = b"") -> Inode:
        """A new inode, with no name yet."""
        now = self.now
        size = len(target)
        if stat.S_ISDIR(mode):
            size = EMPTY_DIRECTORY
            self._store.complete(self.number)
        made = Inode(self.number, mode, 0, uid, gid, rdev, size, 0, now, now, now, now, parent, target, [])
        self._store.inodes[made.ino] = self._touched[made.ino] = made
        return made

    def enter(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Enter a name in a directory."""
        place = self.number * _NAMES_PER_TRANSACTION + len(self._names)
        kind = stat.S_IFMT(inode.mode)
        self.change(database.ENTER_NAME, directory.ino, place, name, inode.ino, kind)
        self._renamed(directory, name, inode.ino)
        directory.size += ENTRY_SIZE

    def strike(self, directory: Inode, name: bytes) -> None:
        """Strike a name from a directory."""
        self.change(database.STRIKE_NAME, directory.ino, name)
        self._renamed(directory, name, 0)
        directory.size -= ENTRY_SIZE

    def _renamed(self, directory: Inode, name: bytes, number: int) -> None:
        key = (directory.ino, name)
        self._names.append(key)
        self._store.names[key] = number
        self.touch(directory)
        directory.mtime = directory.ctime = self.now

    def erase(self, inode: Inode) -> None:
        """An inode that has no name and is not open: it goes, with its contents."""
        self.free(self._store.extents(inode))
        for statement in (database.DROP_EXTENTS, database.DROP_ATTRIBUTES, database.DROP_INODE):
            self.change(statement, inode.ino)
        self._touched.pop(inode.ino, None)
        self._erased.append(inode.ino)
        self._store.inodes[inode.ino] = None

    def take(self, wanted: int) -> tuple[int, int]:
        """Up to `wanted` adjoining free blocks: first and how many; (0, 0): there is none."""
        self._moving()
        block, count = self._store.blocks.take(wanted)
        if count:
            self._taken.append((block, count))
        return block, count

    def free(self, extents: list[Extent]) -> None:
        """Give blocks back once this is committed."""
        if extents:
            self._moving()
            self._given += [(block, count) for _, count, block in extents]

    def _moving(self) -> None:
        if not self._taken and not self._given:
            self._store.blocks.begin()

    def set_attribute(self, inode: Inode, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        self.change(database.SET_ATTRIBUTE, inode.ino, name, value)
        self._changed(inode)

    def remove_attribute(self, inode: Inode, name: bytes) -> None:
        """Remove one."""
        self.change(database.REMOVE_ATTRIBUTE, inode.ino, name)
        self._changed(inode)

    def _changed(self, inode: Inode) -> None:
        self.touch(inode)
        inode.ctime = self.now
