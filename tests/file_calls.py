"""The operations of `fs` as its tests call them: straight, without the file API."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from corekernel.errors import ServiceError
from services.files import AT_POSITION, ROOT, Attributes, unpack_entries
from services.stubs.fs import FsClient


@dataclass
class Files:
    """The interface `fs` with request numbers; short names for what tests do. All paths are absolute."""

    client: FsClient
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def open(self, path: bytes, flags: int = os.O_RDONLY) -> int:
        return self.client.open(next(self.numbers), ROOT, flags, 0o644, path).descriptor

    def put(self, path: bytes, data: bytes) -> None:
        number = self.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        assert self.write(number, data) == len(data)
        self.close(number)

    def get(self, path: bytes) -> bytes:
        number = self.open(path)
        data = self.read(number)
        self.close(number)
        return data

    def fetch(self, path: bytes) -> bytes | int:
        """Contents, or a descriptor."""
        found = self.client.fetch(next(self.numbers), ROOT, path)
        return bytes(found.data) if found.whole else found.descriptor

    def store(self, path: bytes, data: bytes) -> bool:
        return self.client.store(next(self.numbers), ROOT, 0o644, len(path), path + data)

    def read(self, number: int, offset: int = AT_POSITION, size: int = 1 << 20) -> bytes:
        return self.client.read(next(self.numbers), number, offset, size)

    def write(self, number: int, data: bytes, offset: int = AT_POSITION) -> int:
        return self.client.write(next(self.numbers), number, offset, data)

    def close(self, number: int) -> None:
        self.client.close(next(self.numbers), number)

    def seek(self, number: int, offset: int) -> int:
        return self.client.seek(next(self.numbers), number, offset, os.SEEK_SET)

    def mkdir(self, path: bytes) -> None:
        self.client.make_directory(next(self.numbers), ROOT, 0o755, path)

    def unlink(self, path: bytes, directory: bool = False) -> None:
        self.client.unlink(next(self.numbers), ROOT, 0x200 if directory else 0, path)

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        self.client.rename(next(self.numbers), ROOT, ROOT, flags, len(old), old + new)

    def link(self, old: bytes, new: bytes) -> None:
        self.client.link(next(self.numbers), ROOT, ROOT, 0, len(old), old + new)

    def truncate(self, path: bytes, length: int) -> None:
        self.client.truncate(next(self.numbers), ROOT, length, path)

    def stat(self, path: bytes) -> Attributes:
        return Attributes.unpack(self.client.stat(ROOT, 0, path))

    def exists(self, path: bytes) -> bool:
        try:
            self.stat(path)
        except ServiceError as error:
            assert error.errno == errno.ENOENT
            return False
        return True

    def names(self, path: bytes) -> set[bytes]:
        number = self.open(path, os.O_DIRECTORY)
        found = self.client.entries(next(self.numbers), number, 1 << 20)
        assert found.finished
        self.close(number)
        return {entry.name for entry in unpack_entries(bytes(found.entries))}

    def free(self) -> int:
        return self.client.statfs(ROOT, b"/").free

    def symlink(self, target: bytes, path: bytes) -> None:
        self.client.make_symlink(next(self.numbers), ROOT, len(target), target + path)

    def chmod(self, path: bytes, mode: int) -> None:
        self.client.change_mode(next(self.numbers), ROOT, 0, mode, path)

    def set_attribute(self, path: bytes, name: bytes, value: bytes) -> None:
        self.client.set_attribute(next(self.numbers), ROOT, 0, 0, name, len(path), path + value)

    def allocate(self, number: int, offset: int, length: int) -> None:
        self.client.allocate(next(self.numbers), number, 0, offset, length)

    def tree(self, path: bytes = b"/") -> dict[bytes, tuple[int, ...]]:
        """What can be seen below a directory: of each path its mode, links, size, blocks, owner."""
        found: dict[bytes, tuple[int, ...]] = {}
        for name in sorted(self.names(path)):
            child = path.rstrip(b"/") + b"/" + name
            seen = Attributes.unpack(self.client.stat(ROOT, 0x100, child))
            found[child] = (seen.ino, seen.mode, seen.nlink, seen.size, seen.blocks, seen.uid)
            if seen.kind == 0o040000 and child != b"/proc":
                found |= self.tree(child)
        return found
