"""The metadata engine by itself, on devices that stop taking writes: what was committed is there, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import random
import stat
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest

from corekernel.errors import ServiceError
from services.fs.database import ADD_EXTENT
from services.fs.device import Device
from services.fs.store import ROOT_INODE, Inode, Store, Transaction

SIZE = 4 << 20
STEPS = 40
NEW = memoryview(bytes(SIZE))
Tree: TypeAlias = "dict[bytes, tuple[Any, ...]]"


class Recording(Device):
    """A device that remembers each write, so that what it held after any of them can be had again."""

    def __init__(self, memory: memoryview) -> None:
        super().__init__(memory)
        self.writes: list[tuple[int, bytes]] = []

    def write(self, at: int, data: bytes | memoryview) -> None:
        """See `Device`."""
        self.writes.append((at, bytes(data)))
        super().write(at, data)

    def clear(self, at: int, size: int) -> None:
        """See `Device`."""
        self.writes.append((at, bytes(size)))
        super().clear(at, size)

    def put_word(self, index: int, value: int) -> None:
        """See `Device`."""
        self.writes.append((index * 8, value.to_bytes(8, "little")))
        super().put_word(index, value)


@contextlib.contextmanager
def reopened(memory: memoryview) -> Iterator[Store]:
    """A store on what a device holds now; a copy, because SQLite writes once more when it is closed."""
    store = Store(Device(memoryview(bytearray(memory))))
    yield store
    store.database.close()


def tree(store: Store) -> Tree:
    """All that is in the root directory but for times: inodes, extents and attributes."""
    query = store.database.query
    found: Tree = {}
    for name, number in query("SELECT name, ino FROM name WHERE parent=?", (ROOT_INODE,)).fetchall():
        inode = query("SELECT ino, mode, nlink, size, blocks FROM inode WHERE ino=?", (number,)).fetchone()
        extents = query("SELECT start, count, block FROM extent WHERE ino=? ORDER BY start", (number,)).fetchall()
        attributes = query("SELECT name, value FROM attribute WHERE ino=? ORDER BY name", (number,)).fetchall()
        found[name] = (inode, extents, attributes)
    return found


def consistent(store: Store) -> bool:
    """Whether just those blocks are used that extents name, and just those inodes are there that names name."""
    used = sum(count for (count,) in store.database.query("SELECT count FROM extent").fetchall())
    return store.blocks.free == store.blocks.total - used and store.files() == len(tree(store)) + 1


def extend(store: Store, change: Transaction, inode: Inode) -> None:
    """Give a file one more block."""
    block, count = change.take(1)
    change.touch(inode)
    change.change(ADD_EXTENT, inode.ino, inode.blocks, count, block)
    store.extents(inode).append((inode.blocks, count, block))
    inode.blocks += count


def make(store: Store, name: bytes) -> None:
    """A file with a block."""
    with store.transaction() as change:
        made = change.make(stat.S_IFREG | 0o644, 0, 0)
        change.enter(store.inode(ROOT_INODE), name, made)
        made.nlink = 1
        extend(store, change, made)


def step(store: Store, chosen: random.Random) -> None:
    """A transaction of some kind, on one or two of six names."""
    kind, name, other = chosen.randrange(5), b"n%d" % chosen.randrange(6), b"n%d" % chosen.randrange(6)
    root = store.inode(ROOT_INODE)
    found, there = store.lookup(root, name), store.lookup(root, other)
    if found is None:
        make(store, name)
        return
    with store.transaction() as change:
        change.touch(found)
        match kind:
            case 0:
                change.strike(root, name)
                change.erase(found)
            case 1 if there is not found:
                change.strike(root, name)
                if there is not None:
                    change.strike(root, other)
                    change.erase(there)
                change.enter(root, other, found)
            case 2:
                change.set_attribute(found, b"user." + other, name * 500)
            case 3:
                extend(store, change, found)
            case _:
                found.mode ^= 0o111


@pytest.mark.parametrize("seed", range(3))
def test_after_each_single_write_what_was_committed_is_there_and_nothing_else(seed: int) -> None:
    trees = {}
    with reopened(NEW) as reference:
        chosen = random.Random(seed)
        for _ in range(STEPS):
            trees[reference.database.number] = tree(reference)
            step(reference, chosen)
        trees[reference.database.number] = tree(reference)

    device, chosen = Recording(memoryview(bytearray(NEW))), random.Random(seed)
    store = Store(device)
    first, done = store.database.number, []  # how many writes there were when each step was done
    for index in range(STEPS):
        step(store, chosen)
        done.append(len(device.writes))
        if index % 13 == 12:
            store.database.flush()
    store.database.close()
    assert len(device.writes) > STEPS * 4

    held = memoryview(bytearray(NEW))
    for count, (at, data) in enumerate(device.writes, 1):
        held[at : at + len(data)] = data
        with reopened(held) as again:
            committed = first + sum(end <= count for end in done)
            assert again.database.number in (committed, committed + 1)
            assert tree(again) == trees[again.database.number]
            assert consistent(again)
    assert committed == first + STEPS


def test_what_was_committed_before_the_metadata_area_was_full_is_there() -> None:
    memory, made = memoryview(bytearray(NEW)), []
    store = Store(Device(memory))
    with pytest.raises(ServiceError) as caught:
        for index in range(100_000):
            make(store, b"%0200d" % index)
            made.append(b"%0200d" % index)
    assert caught.value.errno == errno.ENOSPC
    assert len(made) > 500
    with reopened(memory) as again:
        assert set(tree(again)) == set(tree(store)) == set(made)
        assert consistent(again)
    store.database.close()


def test_a_transaction_that_is_larger_than_the_redo_log_commits() -> None:
    memory = memoryview(bytearray(NEW))
    store = Store(Device(memory))
    make(store, b"a")
    with store.transaction() as change:
        found = store.lookup(store.inode(ROOT_INODE), b"a")
        assert found is not None
        change.set_attribute(found, b"user.large", b"x" * 65_536)
    with reopened(memory) as again:
        (attributes,) = (attributes for _, _, attributes in tree(again).values())
        assert attributes == [(b"user.large", b"x" * 65_536)]
    store.database.close()
