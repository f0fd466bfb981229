"""Directories of the host for tests of hostfs, some exported and some not, and a client that looks at them."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corekernel.errors import ServiceError
from services.files import Attributes, Entry, unpack_entries
from services.stubs.hostfs import HostfsClient, WalkResult
from tests.systems import Box

COMPOSITION = """
[service.hostfs]
clients = true
host_paths = ["{base}/open", "{base}/way/deep", "{base}/gone"]
restart = {{ backoff_max_ms = 10 }}
"""


class Host:
    """A directory of the host, of which `open` and, by the link `way`, `inner/deep` are exported; and its client."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.open = base / "open"
        base.chmod(0o755)
        for path in ("open", "inner/deep", "secret"):
            (base / path).mkdir(parents=True)
        (base / "secret/file").write_bytes(b"outside")
        (base / "secret/only").write_bytes(b"outside")
        (base / "inner/deep/file").write_bytes(b"deep")
        (base / "way").symlink_to("inner")

    def connect(self, box: Box) -> None:
        self.box = box
        self.client: HostfsClient = box.attach().client("hostfs")

    def path(self, path: Path | str | bytes) -> bytes:
        """As the service takes it, from the directory `open` if it is relative."""
        return os.path.join(os.fsencode(self.open), os.fsencode(path))[1:]

    def walk(self, path: Path | str | bytes) -> tuple[int, Attributes, bytes]:
        found = self.client.walk(0, self.path(path))
        assert (found.refused, found.whole) == (0, False)
        return found.consumed, Attributes.unpack(found.attributes), bytes(found.found)

    def open_file(self, path: Path | str | bytes, size: int = 1) -> WalkResult:
        """Walk to a regular file, and open it."""
        return self.client.walk(size, self.path(path))

    def stat(self, path: Path | str | bytes) -> Attributes:
        consumed, attributes, target = self.walk(path)
        assert (consumed, target) == (len(self.path(path)), b"")
        return attributes

    def read(
        self, path: Path | str | bytes, of: Attributes | None = None, offset: int = 0, size: int = 1 << 20
    ) -> bytes:
        seen = of or self.stat(path)
        return bytes(self.client.read(seen.dev, seen.ino, offset, size, self.path(path)))

    def batches(self, path: Path | str | bytes, size: int = 1 << 20) -> Iterator[list[Entry]]:
        last, finished = 0, False
        while not finished:
            last, finished, raw = self.client.entries(last, size, self.path(path))
            assert len(raw) <= size
            yield unpack_entries(bytes(raw))

    def names(self, path: Path | str | bytes, size: int = 1 << 20) -> list[bytes]:
        return [entry.name for batch in self.batches(path, size) for entry in batch]


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(ServiceError) as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]


def flips(base: Path, done: threading.Event) -> None:
    """Makes `x` a directory and a link to what is not exported, in turn."""
    x = base / "x"
    while not done.is_set():
        os.rename(x, base / "directory")
        os.rename(base / "link", x)
        os.rename(x, base / "link")
        os.rename(base / "directory", x)


def opened(host: Host) -> bytes:
    """Contents that come with a walk to a file in `x`."""
    found = host.open_file("x/file", 100)
    assert found.whole
    return bytes(found.found)


def attempt(host: Host, outside: os.stat_result) -> list[Any]:
    """Everything that can be asked of `x`, as far as it is answered; and how often it was answered."""
    found: list[Any] = []
    for call in (
        lambda: host.read("x/file"),
        lambda: host.client.read(outside.st_dev, outside.st_ino, 0, 100, host.path("x/file")),
        lambda: opened(host),
        lambda: host.names("x"),
        lambda: host.walk("x/file")[1].ino == outside.st_ino,
        lambda: host.walk("x/only"),
    ):
        try:
            found.append(call())
        except (ServiceError, AssertionError):
            continue
    return found
