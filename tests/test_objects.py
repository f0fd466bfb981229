"""Kernel objects: sizes and seals that no holder can change, rights, the table of grants and the account of memory."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator

import pytest

from corekernel.errors import Denied, NoSuchService
from corekernel.objects import Grant, KernelObject, Kind, ObjectTable, Rights

PAGE = mmap.PAGESIZE


@pytest.fixture
def table() -> Iterator[ObjectTable]:
    """A table whose objects are freed with the test."""
    made = ObjectTable()
    yield made
    for number in (1, 2, 3, 100):
        made.forget(number)


@pytest.fixture
def made(table: ObjectTable) -> KernelObject:
    """Two pages on the account of client 100."""
    return table.create(Kind.BUFFER, "test", 2 * PAGE, 100)


@pytest.mark.parametrize(
    "size",
    [0, PAGE, 2 * PAGE - 1, 2 * PAGE + 1, 1 << 30],
    ids=["nothing", "less", "a byte less", "a byte more", "1 GiB"],
)
@pytest.mark.parametrize("rights", Rights)
def test_no_holder_can_resize_an_object(table: ObjectTable, made: KernelObject, rights: Rights, size: int) -> None:
    fd = table.grant(made, 1, rights)
    with pytest.raises(OSError):
        os.ftruncate(fd, size)
    assert os.fstat(fd).st_size == 2 * PAGE
    os.close(fd)


@pytest.mark.parametrize("seal", [fcntl.F_SEAL_WRITE, 0x10, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SEAL])
def test_no_holder_can_seal_an_object_further(table: ObjectTable, made: KernelObject, seal: int) -> None:
    fd = table.grant(made, 1, Rights.WRITE)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seal)
    os.close(fd)


def test_an_object_is_its_owner_s_only_and_closes_on_exec(made: KernelObject) -> None:
    assert os.fstat(made.fd).st_mode & 0o777 == 0o600
    assert not os.get_inheritable(made.fd)


def test_a_read_only_grant_can_be_read_and_nothing_else(table: ObjectTable, made: KernelObject) -> None:
    os.pwrite(made.fd, b"seen", 0)
    fd = table.grant(made, 1, Rights.READ)
    assert os.pread(fd, 4, 0) == b"seen"
    with pytest.raises(OSError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, PAGE)
    os.close(fd)


def test_holders_of_a_writable_grant_share_memory(table: ObjectTable, made: KernelObject) -> None:
    one, other = (table.grant(made, holder, Rights.WRITE) for holder in (1, 2))
    with mmap.mmap(one, PAGE) as first, mmap.mmap(other, PAGE) as second:
        first[:4] = b"both"
        assert second[:4] == b"both"
    os.close(one)
    os.close(other)


def test_each_grant_is_recorded_once(table: ObjectTable, made: KernelObject) -> None:
    for _ in range(3):
        os.close(table.grant(made, 1, Rights.READ))
    os.close(table.grant(made, 2, Rights.WRITE))
    assert made.grants == [Grant(made.number, 1, Rights.READ), Grant(made.number, 2, Rights.WRITE)]
    assert table.holds(made.number, 1).rights is Rights.READ


def test_who_was_granted_nothing_holds_nothing(table: ObjectTable, made: KernelObject) -> None:
    with pytest.raises(Denied):
        table.holds(made.number, 1)
    with pytest.raises(NoSuchService):
        table.holds(made.number + 1, 100)


def test_what_stood_on_the_account_of_the_dead_is_freed_and_their_grants_struck(table: ObjectTable) -> None:
    theirs = table.create(Kind.FRAMES, "theirs", PAGE, 1)
    other = table.create(Kind.FRAMES, "other", PAGE, 2)
    state = table.create(Kind.STATE, "state", PAGE, 1)
    for made in (theirs, other, state):
        os.close(table.grant(made, 1, Rights.WRITE))
    table.forget(1)
    with pytest.raises(NoSuchService):
        table.get(theirs.number)
    assert table.get(other.number).grants == []
    assert table.get(state.number).grants == []
    table.release(state)


def test_an_object_handed_over_costs_no_descriptor_and_stays_on_its_account(
    table: ObjectTable, made: KernelObject
) -> None:
    number = made.fd
    table.hand_over(made)
    with pytest.raises(OSError):
        os.fstat(number)
    assert table.usage(100, Kind.BUFFER) == 2 * PAGE
    assert table.summary()["buffer"]["resident"] == 2 * PAGE
    table.release(made)
    assert table.usage(100, Kind.BUFFER) == 0


def test_freeing_twice_frees_once(table: ObjectTable, made: KernelObject) -> None:
    table.release(made)
    again = os.open(os.devnull, os.O_RDONLY)
    table.release(made)
    os.fstat(again)
    os.close(again)


def test_the_account_tells_promised_from_resident_memory(table: ObjectTable, made: KernelObject) -> None:
    os.pwrite(made.fd, b"x", 0)
    table.create(Kind.BUFFER, "more", PAGE, 2)
    assert table.usage(100, Kind.BUFFER) == 2 * PAGE
    assert table.usage(100, Kind.FRAMES) == 0
    assert made.resident() == PAGE
    assert table.summary() == {"buffer": {"count": 2, "bytes": 3 * PAGE, "resident": PAGE, "grants": 0}}
