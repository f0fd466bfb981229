"""Bad input to the file system, and what runs out: names, depth, descriptors, blocks, room for metadata."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from corekernel.errors import ServiceError
from services.files import ROOT
from services.fs.descriptions import PER_CLIENT
from services.fs.locks import RANGES_PER_CLIENT
from services.fs.watches import CREATE
from services.fs.watches import PER_CLIENT as WATCHES_PER_CLIENT
from tests.file_calls import Files
from tests.processes import until
from tests.systems import Box, boot_box

SMALL = """
[device.ram0]
size_mib = 4
"""


def refused(act: Callable[[], object]) -> str:
    """Name of the errno by which an operation was refused; "" if it was not."""
    try:
        act()
    except ServiceError as error:
        return errno.errorcode[error.errno or 0]
    return ""


@pytest.fixture(scope="module")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("small"), "default", SMALL)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def files(_small: Box) -> Iterator[Files]:
    """A file system of 4 MiB with an empty directory /d, which is emptied again."""
    files = Files(_small.attach().client("fs"))
    files.mkdir(b"/d")
    yield files
    files = Files(_small.attach().client("fs"))
    _remove(files, b"/d")
    _small.settle()
    _small.attached.clear()


def _remove(files: Files, path: bytes) -> None:
    """Remove a tree, depth first, without a path longer than a name or two."""
    for child, (_, mode, *_rest) in sorted(files.tree(path).items(), reverse=True):
        files.unlink(child, directory=mode & 0o170000 == 0o040000)
    files.unlink(path, directory=True)


# ---- names


def test_names_may_hold_every_byte_but_two(files: Files) -> None:
    names = {bytes([byte]) for byte in range(1, 256)} - {b"/", b"."}
    for name in names:
        files.put(b"/d/" + name, name)
    assert files.names(b"/d") == names
    assert all(files.get(b"/d/" + name) == name for name in names)
    assert refused(lambda: files.put(b"/d/a\0b", b"")) == "EINVAL"


@pytest.mark.parametrize(
    ("length", "answer"), [(1, ""), (254, ""), (255, ""), (256, "ENAMETOOLONG"), (3000, "ENAMETOOLONG")]
)
def test_names_have_255_bytes(files: Files, length: int, answer: str) -> None:
    name = b"/d/" + b"n" * length
    if answer:
        assert refused(lambda: files.put(name, b"")) == answer
    else:
        files.put(name, b"x")
        assert files.get(name) == b"x"


def test_paths_have_4095_bytes(files: Files) -> None:
    path = b"/d" + b"/." * 2046 + b"/"
    assert len(path) == 4095
    assert files.stat(path).nlink == 2
    assert refused(lambda: files.stat(path + b"/")) == "ENAMETOOLONG"


def test_above_the_root_is_the_root(files: Files) -> None:
    assert files.stat(b"/../../..").ino == files.stat(b"/").ino
    assert files.stat(b"/d/../../d/../..").ino == files.stat(b"/").ino


def test_links_are_followed_forty_times(files: Files) -> None:
    files.put(b"/d/0", b"end")
    for index in range(41):
        files.symlink(b"%d" % index, b"/d/%d" % (index + 1))
    assert files.get(b"/d/40") == b"end"
    assert refused(lambda: files.get(b"/d/41")) == "ELOOP"
    files.symlink(b"loop", b"/d/loop")
    assert refused(lambda: files.get(b"/d/loop")) == "ELOOP"
    assert refused(lambda: files.get(b"/d/loop/x")) == "ELOOP"


def test_a_tree_may_be_a_thousand_deep(files: Files) -> None:
    where = files.open(b"/d", os.O_DIRECTORY)
    for _ in range(1000):
        files.client.make_directory(next(files.numbers), where, 0o755, b"d")
        below = files.client.open(next(files.numbers), where, os.O_DIRECTORY, 0, b"d").descriptor
        files.close(where)
        where = below
    assert files.client.path_of(where) == b"/d" + b"/d" * 1000
    for _ in range(1000):
        above = files.client.open(next(files.numbers), where, os.O_DIRECTORY, 0, b"..").descriptor
        files.client.unlink(next(files.numbers), above, 0x200, b"d")
        files.close(where)
        where = above
    files.close(where)
    assert files.names(b"/d") == set()


# ---- descriptors


def test_a_client_may_have_so_many_files_open_and_no_more(_small: Box, files: Files) -> None:
    files.put(b"/d/a", b"x")
    numbers = [files.open(b"/d/a") for _ in range(PER_CLIENT)]
    assert numbers == list(range(PER_CLIENT))
    assert refused(lambda: files.open(b"/d/b", os.O_CREAT)) == "EMFILE"
    assert refused(lambda: files.client.duplicate(next(files.numbers), 0, 0, False, 0)) == "EMFILE"
    assert Files(_small.attach().client("fs")).get(b"/d/a") == b"x"
    assert not files.exists(b"/d/b")
    files.close(500)
    assert files.open(b"/d/a") == 500


def test_all_clients_together_may_not_take_the_last_descriptor_from_anyone(_small: Box, files: Files) -> None:
    files.put(b"/d/a", b"x")
    greedy: list[Files] = []
    answers: set[str] = set()
    while not answers:
        greedy.append(Files(_small.attach().client("fs")))
        try:
            for _ in range(PER_CLIENT):
                greedy[-1].open(b"/d/a")
        except ServiceError as error:
            answers.add(errno.errorcode[error.errno or 0])
    assert answers == {"ENFILE"}
    for system in _small.attached[1:]:
        system.close()
    del _small.attached[1:]
    until(lambda: refused(lambda: files.get(b"/d/a")) == "", "fs hears that they are gone")


def test_a_client_may_hold_so_many_locks_and_watches_and_no_more(_small: Box, files: Files) -> None:
    number = files.open(b"/d/a", os.O_CREAT | os.O_RDWR)
    for start in range(RANGES_PER_CLIENT):
        files.client.lock_range(number, fcntl.F_WRLCK, 2 * start, 1, False)
    assert refused(lambda: files.client.lock_range(number, fcntl.F_WRLCK, 10**6, 1, False)) == "ENOLCK"
    assert refused(lambda: files.client.lock_range(number, fcntl.F_UNLCK, 0, 0, False)) == ""
    for index in range(WATCHES_PER_CLIENT):
        files.put(b"/d/%d" % index, b"")
        files.client.watch(next(files.numbers), CREATE, b"/d/%d" % index)
    assert refused(lambda: files.client.watch(next(files.numbers), CREATE, b"/d")) == "ENOSPC"


# ---- request numbers that mean something else


def test_the_answer_to_another_request_is_no_inode_to_open(files: Files) -> None:
    files.put(b"/d/secret", b"secret")
    secret = files.stat(b"/d/secret").ino
    number = files.open(b"/d/mine", os.O_CREAT | os.O_RDWR)
    request = next(files.numbers)
    assert files.client.write(request, number, 0, bytes(secret)) == secret
    opened = files.client.open(request, -1, os.O_CREAT | os.O_RDWR, 0o600, b"/d/other").descriptor
    assert files.names(b"/d") == {b"secret", b"mine", b"other"}
    assert files.read(opened, 0) == b""


def test_a_number_that_is_used_for_everything_does_no_harm(files: Files) -> None:
    files.put(b"/d/a", b"0123456789" * 1000)
    number, directory = files.open(b"/d/a", os.O_RDWR), files.open(b"/d", os.O_DIRECTORY)
    same = next(files.numbers)
    acts: list[Callable[[], object]] = [
        lambda: files.client.seek(same, number, 2**62, os.SEEK_SET),
        lambda: files.client.read(same, number, -1, 100),
        lambda: files.client.write(same, number, -1, b"x"),
        lambda: files.client.entries(same, directory, 4096),
        lambda: files.client.make_directory(same, -1, 0o755, b"/d/e"),
        lambda: files.client.open(same, -1, os.O_CREAT, 0o600, b"/d/f"),
        lambda: files.client.duplicate(same, number, 0, False, 0),
    ]
    for first, second in itertools.permutations(acts, 2):
        for act in (first, second):
            with contextlib.suppress(ServiceError):
                act()
        files.client.seek(next(files.numbers), number, 0, os.SEEK_SET)
    assert files.get(b"/d/a")[:10] in (b"0123456789", b"x123456789")


# ---- a full device


def _stored(files: Files, path: bytes) -> None:
    if not files.store(path, b"s" * 9000):
        raise ServiceError(errno.ENOSPC)


OPERATIONS: dict[str, Callable[[Files], object]] = {
    "store": lambda f: _stored(f, b"/d/new"),
    "store over": lambda f: _stored(f, b"/d/b"),
    "create": lambda f: f.open(b"/d/new", os.O_CREAT | os.O_EXCL),
    "write": lambda f: f.write(f.open(b"/d/a", os.O_WRONLY), b"y" * 9000, 3000),
    "append": lambda f: f.write(f.open(b"/d/a", os.O_WRONLY | os.O_APPEND), b"y" * 70000),
    "allocate": lambda f: f.allocate(f.open(b"/d/a", os.O_WRONLY), 0, 200_000),
    "make directory": lambda f: f.mkdir(b"/d/new"),
    "symlink": lambda f: f.symlink(b"t" * 3000, b"/d/new"),
    "link": lambda f: f.link(b"/d/a", b"/d/new"),
    "rename": lambda f: f.rename(b"/d/a", b"/d/" + b"r" * 255),
    "rename over": lambda f: f.rename(b"/d/a", b"/d/b"),
    "attribute": lambda f: f.set_attribute(b"/d/a", b"user.x", b"v" * 60_000),
    "mode": lambda f: f.chmod(b"/d/a", 0o600),
    "truncate": lambda f: f.truncate(b"/d/b", 100),
    "unlink": lambda f: f.unlink(b"/d/b"),
}


def _prepared(files: Files) -> None:
    files.put(b"/d/a", b"a" * 5000)
    files.put(b"/d/b", b"b" * 5000)


def _fill_blocks(files: Files, left: int) -> None:
    """Leave so many blocks free."""
    number = files.open(b"/d/fill", os.O_CREAT | os.O_WRONLY)
    wanted = (files.free() - left) * 4096
    position = 0
    while position < wanted:
        position += files.write(number, bytes(min(1 << 20, wanted - position)), position)
    assert files.free() == left
    files.close(number)


def _fill_metadata(files: Files) -> None:
    """Enter long names until there is no room for one more, then short ones."""
    for length in (250, 100, 10):
        index = 0
        try:
            while True:
                files.symlink(b"t" * length, b"/d/%0*d" % (length, index))
                index += 1
        except ServiceError as error:
            assert error.errno == errno.ENOSPC


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("left", [0, 1, 3])
def test_on_a_device_without_blocks_an_operation_is_done_or_not(files: Files, name: str, left: int) -> None:
    _prepared(files)
    _fill_blocks(files, left)
    _done_or_not(files, name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_without_room_for_metadata_an_operation_is_done_or_not(full_of_names: Files, name: str) -> None:
    _done_or_not(full_of_names, name)


@pytest.fixture
def full_of_names(files: Files) -> Files:
    """A file system with no room for one more name."""
    _prepared(files)
    _fill_metadata(files)
    return files


def _done_or_not(files: Files, name: str) -> None:
    """Run an operation: when it is refused for want of room, nothing has changed; and what was there can go."""
    before, free, contents = files.tree(b"/d"), files.free(), files.get(b"/d/a")
    try:
        OPERATIONS[name](files)
    except ServiceError as error:
        assert error.errno == errno.ENOSPC
        assert (files.tree(b"/d"), files.free(), files.get(b"/d/a")) == (before, free, contents)
    else:
        assert files.tree(b"/d") != before or name in ("write", "allocate", "attribute")


def test_reading_takes_no_room(full_of_names: Files) -> None:
    files = full_of_names
    assert (files.fetch(b"/d/a"), files.get(b"/d/b")) == (b"a" * 5000, b"b" * 5000)
    assert len(files.names(b"/d")) > 100


def test_a_file_full_of_attributes_lists_them_and_goes(files: Files) -> None:
    files.put(b"/d/a", b"")
    names: set[bytes] = set()
    with pytest.raises(ServiceError) as caught:
        for index in itertools.count():
            files.set_attribute(b"/d/a", b"user.%050d" % index, b"")
            names.add(b"user.%050d" % index)
    assert caught.value.errno == errno.ENOSPC
    listed = bytes(files.client.list_attributes(-1, 0, b"/d/a"))
    assert set(listed[:-1].split(b"\0")) == names
    files.set_attribute(b"/d/a", b"user.%050d" % 0, b"another value")
    files.unlink(b"/d/a")
    assert files.names(b"/d") == set()


def test_a_write_that_does_not_fit_is_a_short_one(files: Files) -> None:
    _prepared(files)
    _fill_blocks(files, 2)
    number = files.open(b"/d/a", os.O_RDWR | os.O_APPEND)
    assert files.write(number, b"z" * 50_000) == 8192 - 5000 + 2 * 4096
    assert refused(lambda: files.write(number, b"z")) == "ENOSPC"
    assert files.read(number, 0) == b"a" * 5000 + b"z" * (4 * 4096 - 5000)
    files.unlink(b"/d/fill")
    assert files.write(number, b"z") == 1


# ---- arguments


def test_arguments_out_of_range_are_refused(files: Files) -> None:
    number = files.open(b"/d/a", os.O_CREAT | os.O_RDWR)
    client, big = files.client, 2**64 - 1
    refusals: dict[str, list[Callable[[], object]]] = {
        "EBADF": [
            lambda: client.read(1, big, 0, 1),
            lambda: client.write(1, 99, 0, b""),
            lambda: client.stat(99, 0, b"x"),
            lambda: client.close(1, big),
            lambda: client.duplicate(1, 99, 0, False, 0),
        ],
        "EINVAL": [
            lambda: client.read(1, number, -2, 1),
            lambda: client.seek(1, number, -1, os.SEEK_SET),
            lambda: client.seek(1, number, 0, 9),
            lambda: client.stat(ROOT, 1 << 40, b"/"),
            lambda: client.rename(1, ROOT, ROOT, 99, 1, b"ab"),
            lambda: client.rename(1, ROOT, ROOT, 0, big, b"ab"),
            lambda: client.truncate(1, number, big, b""),
            lambda: client.lock_file(number, 77),
            lambda: client.lock_range(number, 0, big, big, False),
            lambda: client.change_owner(1, ROOT, 0, big, big, b"/d/a"),
        ],
        "ENOTDIR": [lambda: client.stat(number, 0, b"x"), lambda: client.entries(1, number, 4096)],
        "ENOENT": [lambda: client.stat(ROOT, 0, b"")],
    }
    for name, acts in refusals.items():
        assert [refused(act) for act in acts] == [name] * len(acts)
