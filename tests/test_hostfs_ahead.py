"""What hostfs sends ahead: the regular files that follow one, as many as are wanted and fit; and how they travel."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corekernel.errors import ServiceError
from services.files import LARGEST_WHOLE, Attributes, FileAhead, unpack_ahead
from services.hostfs import listing
from services.hostfs.service import Service
from tests.test_hostfs_parts import PLAIN, service_of

FILE = Attributes(1, 2, stat.S_IFREG | 0o644, 1, 0, 0, 0, 5, 4096, 8, 1, 2, 3, 4)
NUMBERS = st.integers(0, 2**64 - 1)
TIMES = st.integers(-(2**63), 2**63 - 1)
ATTRIBUTES = st.builds(
    Attributes, NUMBERS, NUMBERS, st.integers(0, 0o7777).map(lambda mode: mode | stat.S_IFREG), *[NUMBERS] * 7,
    *[TIMES] * 4,
)  # fmt: skip
SOME = st.lists(
    st.builds(FileAhead, PLAIN, ATTRIBUTES, st.none() | st.binary(max_size=50)), unique_by=lambda file: file.name
).map(lambda files: sorted(files, key=lambda file: file.name))

# ---- as they travel


def packed(files: list[FileAhead]) -> bytes:
    return b"".join(itertools.chain.from_iterable(file.pack() for file in files))


@given(SOME, st.binary(max_size=20))
def test_files_arrive_as_they_were_sent(files: list[FileAhead], before: bytes) -> None:
    assert unpack_ahead(before + packed(files), len(before)) == files


@given(SOME, st.data())
def test_hostile_bytes_are_refused_or_are_files_with_sound_names(files: list[FileAhead], data: st.DataObject) -> None:
    raw = bytearray(packed(files))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        raw[start : data.draw(st.integers(start, len(raw)))] = data.draw(st.binary(max_size=4))
    try:
        found = unpack_ahead(bytes(raw), 0)
    except ValueError:
        return
    names = [file.name for file in found]
    assert packed(found) == raw
    assert names == sorted(set(names)) and not {b"", b".", b".."} & set(names)
    assert not any({0, ord("/")} & set(name) for name in names)
    assert all(file.attributes.kind == stat.S_IFREG for file in found)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0", b"b"])
def test_no_file_has_a_name_that_leads_elsewhere_or_comes_twice(name: bytes) -> None:
    with pytest.raises(ValueError, match="out of its order"):
        unpack_ahead(packed([FileAhead(b"b", FILE, b""), FileAhead(name, FILE, b"")]), 0)
    with pytest.raises(ValueError, match="no regular file"):
        unpack_ahead(packed([FileAhead(b"b", FILE._replace(mode=stat.S_IFDIR), None)]), 0)


# ---- what is sent


def following(service: Service, path: Path, count: int, size: int = LARGEST_WHOLE) -> list[FileAhead]:
    answer = service.ahead(NotImplemented, size, count, memoryview(os.fsencode(path)[1:]))
    assert len(answer.found) <= 508 << 10
    return unpack_ahead(bytes(answer.found), answer.own)


def test_no_more_comes_than_is_asked_for_and_never_very_much(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number:02}").write_bytes(bytes(100))
    (tmp_path / "large").mkdir()
    for number in range(20):
        (tmp_path / f"large/{number:02}").write_bytes(bytes(100_000))
    service = service_of(tmp_path)
    assert [len(following(service, tmp_path / "10", count)) for count in (0, 1, 5, 2**63)] == [0, 1, 5, 32]
    assert [file.name for file in following(service, tmp_path / "47", 32)] == [b"48", b"49"]
    assert len(following(service, tmp_path / "large/00", 32)) == 4
    assert [file.contents for file in following(service, tmp_path / "large/00", 3, 10)] == [None] * 3
    assert following(service, tmp_path / "large", 32) == following(service, tmp_path / "10", 32, 0) == []
    with pytest.raises(ServiceError):
        following(service, tmp_path / "none", 32)


def test_a_file_that_came_since_the_directory_was_read_is_there_and_one_that_went_is_not(tmp_path: Path) -> None:
    for name in "124":
        (tmp_path / name).write_bytes(name.encode())
    service = service_of(tmp_path)
    assert [file.contents for file in following(service, tmp_path / "1", 5)] == [b"2", b"4"]
    os.rename(tmp_path / "4", tmp_path / "3")
    os.utime(tmp_path, ns=(0, 12345))  # perhaps within one tick of the clock
    assert [file.name for file in following(service, tmp_path / "1", 5)] == [b"2", b"3"]


def test_a_link_in_the_place_of_a_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exported").mkdir()
    (tmp_path / "outside").write_bytes(b"outside")
    for name in "123":
        (tmp_path / "exported" / name).write_bytes(name.encode())
    service = service_of(tmp_path / "exported")
    real = listing.Listing.regular_after

    def late(self: listing.Listing, name: bytes, count: int) -> list[bytes]:
        found = real(self, name, count)
        (tmp_path / "exported/2").unlink()
        (tmp_path / "exported/2").symlink_to(tmp_path / "outside")
        return found

    monkeypatch.setattr(listing.Listing, "regular_after", late)
    assert [file.name for file in following(service, tmp_path / "exported/1", 5)] == [b"3"]


def test_a_large_directory_is_not_read_for_it_unless_somebody_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_LIKELY", 5)
    monkeypatch.setattr(listing, "TICK_NS", -(1 << 62))
    for number in range(10):
        (tmp_path / f"{number}").touch()
    service = service_of(tmp_path)
    for _ in range(2):
        assert following(service, tmp_path / "0", 32) == []
    service.entries(NotImplemented, 0, 1 << 20, memoryview(os.fsencode(tmp_path)[1:]))
    assert len(following(service, tmp_path / "0", 32)) == 9
