"""Inodes, names, extents, attributes and mounts as rows of a database, and how a transaction becomes durable.

A transaction is a list of changes, each a statement and its values. It commits by standing in the redo log (`redo.py`),
which is a copy of some hundred bytes; the database gets the changes of many transactions in one of its own. What is
not in it yet is *pending*: `query` has it written first, `peek` does not, for callers that know from their caches that
what they look for is not pending.

The database may fill up. So changes are left pending only as long as there is certainly room for all of them; nearer to
the end each transaction goes to the database at once, and is undone if that is full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import apsw

from services.fs.device import BLOCK, Device
from services.fs.redo import Change, RedoLog, Value
from services.fs.sqlite_vfs import open_database

INODE_COLUMNS: Final = "ino, mode, nlink, uid, gid, rdev, size, blocks, atime, mtime, ctime, btime, parent, target"
_SAVE_INODE: Final = f"REPLACE INTO inode({INODE_COLUMNS}) VALUES({', '.join('?' * 14)})"

_SCHEMA = (
    "CREATE TABLE counter(id INTEGER PRIMARY KEY, value INTEGER NOT NULL)",
    "INSERT INTO counter VALUES(1, 1)",
    """CREATE TABLE inode(ino INTEGER PRIMARY KEY, mode INTEGER, nlink INTEGER, uid INTEGER, gid INTEGER,
       rdev INTEGER, size INTEGER, blocks INTEGER, atime INTEGER, mtime INTEGER, ctime INTEGER, btime INTEGER,
       parent INTEGER, target BLOB)""",
    """CREATE TABLE name(parent INTEGER, place INTEGER, name BLOB, ino INTEGER, kind INTEGER,
       PRIMARY KEY(parent, place)) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX by_name ON name(parent, name)",
    """CREATE TABLE extent(ino INTEGER, start INTEGER, count INTEGER, block INTEGER,
       PRIMARY KEY(ino, start)) WITHOUT ROWID""",
    "CREATE TABLE attribute(ino INTEGER, name BLOB, value BLOB, PRIMARY KEY(ino, name)) WITHOUT ROWID",
    "CREATE TABLE mount(number INTEGER PRIMARY KEY, kind TEXT, covers INTEGER, path BLOB)",
    "CREATE INDEX orphans ON inode(ino) WHERE nlink = 0",
)

# The changes there are. Numbers are never used twice, so an inode that was dropped is not saved again.
(
    SAVE_INODE, DROP_INODE, ENTER_NAME, STRIKE_NAME, ADD_EXTENT, GROW_EXTENT, CUT_EXTENTS, DROP_EXTENTS,
    SET_ATTRIBUTE, REMOVE_ATTRIBUTE, DROP_ATTRIBUTES, MOUNT, UNMOUNT,
) = range(13)  # fmt: skip
_STATEMENTS: Final = (
    _SAVE_INODE,
    "DELETE FROM inode WHERE ino=?",
    "INSERT INTO name VALUES(?,?,?,?,?)",
    "DELETE FROM name WHERE parent=? AND name=?",
    "INSERT INTO extent VALUES(?,?,?,?)",
    "UPDATE extent SET count=? WHERE ino=? AND start=?",
    "DELETE FROM extent WHERE ino=? AND start BETWEEN ? AND ?",
    "DELETE FROM extent WHERE ino=?",
    "REPLACE INTO attribute VALUES(?,?,?)",
    "DELETE FROM attribute WHERE ino=? AND name=?",
    "DELETE FROM attribute WHERE ino=?",
    "INSERT INTO mount VALUES(?,?,?,?)",
    "DELETE FROM mount WHERE number=?",
)

_MOST_PENDING: Final = 128  # changes; writing them takes about half a millisecond, and whoever comes next waits for it
_PAGES_PER_CHANGE: Final = 8  # more than a change can add to database and log: two trees, each split at every level


class Database:
    """The rows of one device.

    Attributes:
        number: of the last transaction that committed.
    """

    def __init__(self, device: Device, root: tuple[Value, ...]) -> None:
        """Open the database, or make it with one inode, the root's."""
        first = (*((statement, ()) for statement in _SCHEMA), (_SAVE_INODE, root))
        self._connection = open_database(device, first)
        self._execute = cast("Callable[..., Any]", self._connection.execute)
        self._largest_log = device.layout.log.size // BLOCK * 3 // 4  # the rest is written back before it is reached
        self._most_pages = device.layout.database.size // BLOCK
        self.number = int(self._one("SELECT value FROM counter WHERE id=1"))
        self._redo = RedoLog(device)
        self._pending: list[tuple[int, list[Change]]] = []
        self._weight = 0
        for number, changes in self._redo:
            if number > self.number:
                self._pending.append((number, changes))
                self.number = number
        self.flush()

    # ---- reading

    def peek(self, statement: str, values: Sequence[Value] = ()) -> Any:
        """A cursor on rows that are certainly not pending."""
        return self._execute(statement, values)

    def query(self, statement: str, values: Sequence[Value] = ()) -> Any:
        """A cursor on rows."""
        if self._pending:
            self.flush()
        return self._execute(statement, values)

    def _one(self, statement: str) -> Any:
        return self._execute(statement).fetchone()[0]

    # ---- changing

    def commit(self, number: int, changes: list[Change], prepare: Callable[[], None]) -> None:
        """Commit a transaction; `prepare` is called right before.

        Raises:
            apsw.FullError: there is no room; nothing has happened.
        """
        record = self._redo.record(number, changes)
        weight = len(changes) + len(record) // BLOCK
        if self._weight + weight > self._most or not self._redo.fits(record):
            self.flush()
            if weight > self._most or not self._redo.fits(record):
                self._write(number, changes, prepare)
                return
        prepare()
        self._redo.append(record)
        self.number = number
        self._pending.append((number, changes))
        self._weight += weight

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending:
            try:
                self._write(self.number, [change for _, changes in self._pending for change in changes])
            except apsw.FullError:  # files with very much to them go, too many at once for SQLite's log
                for number, changes in self._pending:
                    self._write(number, changes)
            self._pending = []
        self._weight = 0
        self._redo.clear()
        # How many changes there is certainly room for.
        free = self._most_pages - self._one("PRAGMA page_count") + self._one("PRAGMA freelist_count")
        self._most = min(_MOST_PENDING, min(free, self._largest_log) // _PAGES_PER_CHANGE)

    def close(self) -> None:
        """Write what is pending, and let go of the device."""
        self.flush()
        self._connection.close()

    def _write(self, number: int, changes: list[Change], prepare: Callable[[], None] = lambda: None) -> None:
        """Have changes in the database, all or none."""
        try:
            self._try_to_write(number, changes, prepare)
        except apsw.FullError:
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # if it was the log, there is room now
            self._try_to_write(number, changes, prepare)

    def _try_to_write(self, number: int, changes: list[Change], prepare: Callable[[], None]) -> None:
        execute = self._execute
        execute("BEGIN IMMEDIATE")
        try:
            self._apply(changes)
            execute("UPDATE counter SET value=? WHERE id=1", (number,))
            prepare()
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        self.number = number

    def _apply(self, changes: list[Change]) -> None:
        execute, inodes = self._execute, {}
        for statement, values in changes:
            if statement == SAVE_INODE:
                inodes[values[0]] = values  # the last state is all that counts
                continue
            if statement == DROP_INODE:
                inodes.pop(values[0], None)
            execute(_STATEMENTS[statement], values)
        self._connection.executemany(_SAVE_INODE, inodes.values())
