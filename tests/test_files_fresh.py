"""What comes with the opening of a volume's file: how long it is shown, how much is kept, what is asked beforehand."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from services.fs.device import MINIMUM, Device
from services.fs.fresh import Contents, Fresh, lasting
from services.fs.mounts import Mounts
from services.fs.store import ROOT_INODE, Store

LONG = 2**62


def test_every_part_of_what_is_kept_is_told_and_nothing_beyond_its_end() -> None:
    fresh = Fresh()
    fresh.keep(1, Contents(b"content", LONG))
    parts = [
        fresh.read(1, offset, size) for offset, size in ((0, 7), (0, 1 << 24), (3, 2), (7, 5), (1 << 62, 5), (2, 0))
    ]
    assert parts == [b"content", b"content", b"te", b"", b"", b""]
    assert fresh.read(2, 0, 7) is None


def test_an_empty_file_is_known_to_be_empty() -> None:
    fresh = Fresh()
    fresh.keep(1, Contents(b"", LONG))
    assert fresh.read(1, 0, 10) == b""


def test_contents_are_not_shown_for_longer_than_a_tenth_of_a_second() -> None:
    before = time.monotonic_ns()
    assert before + 100_000_000 <= lasting() <= time.monotonic_ns() + 100_000_000
    fresh = Fresh()
    fresh.keep(1, Contents(b"content", time.monotonic_ns()))
    assert fresh.read(1, 0, 7) is None
    assert len(fresh) == 0


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    fresh = Fresh(10)
    for index in range(5):
        fresh.keep(index, Contents(b"%d234" % index, LONG))
        assert len(fresh) <= 10
    assert [fresh.read(index, 0, 1) for index in range(5)] == [None, None, None, b"3", b"4"]
    fresh.drop(3)
    fresh.drop(3)
    assert len(fresh) == 4
    fresh.keep(5, Contents(b"larger than all together", LONG))
    assert len(fresh) == 0


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (b"/host/a", b"a"), (b"/host/a/.hidden/b..", b"a/.hidden/b.."), (b"/host/...", b"..."), (b"/host", None),
        (b"/host/", None), (b"/host/a/", None), (b"/host//a", None), (b"/host/a/./b", None), (b"/host/a/..", None),
        (b"/host/../a", None), (b"/hostile/a", None), (b"host/a", None), (b"", None), (b"/other/host/a", None),
    ],
)  # fmt: skip
def test_a_volume_is_asked_beforehand_only_where_the_path_plainly_leads(path: bytes, asked: bytes | None) -> None:
    store = Store(Device(memoryview(bytearray(MINIMUM))))
    made: Any = {"hostfs": lambda number, covers: SimpleNamespace(number=number, covers=covers)}
    mounts = Mounts(store, made)
    mounts.mount("hostfs", store.inode(ROOT_INODE), b"/host")
    found = mounts.foreseen(path)
    assert (found and (found[0].covers, found[1])) == (asked and (ROOT_INODE, asked))
    store.database.close()
