"""How files are described between services and programs: attributes of one file, names in a directory, whole files.

They travel as bytes. Whoever receives them from a party it does not trust gets a `ValueError` for anything malformed.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

_ATTRIBUTES = struct.Struct("<10Q4q")
ATTRIBUTE_BYTES: Final = _ATTRIBUTES.size
NAME_MAX: Final = 255
PATH_MAX: Final = 4096  # with the NUL that C programs end it with
SYMLINKS_MAX: Final = 40
LARGEST_WHOLE: Final = 128 << 10  # bytes of a file that is read or made in one call
ROOT: Final = -1  # as the directory that a relative path starts from: the root of the namespace
AT_POSITION: Final = -1  # as an offset: the open file description's own
NOW: Final = -(2**63)  # as a time: the present
OMIT: Final = -(2**63) + 1  # as a time: leave it


class Attributes(NamedTuple):
    """What `stat` tells of a file. Sizes in bytes, `blocks` of 512 bytes, times in nanoseconds since 1970."""

    ino: int
    dev: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blksize: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    btime: int

    def pack(self) -> bytes:
        """As they travel."""
        return _ATTRIBUTES.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Attributes:
        """From what came.

        Raises:
            ValueError: these are not attributes.
        """
        if len(raw) != ATTRIBUTE_BYTES:
            raise ValueError(f"{len(raw)} bytes are no attributes")
        return cls._make(_ATTRIBUTES.unpack(raw))

    @property
    def kind(self) -> int:
        """The file type, as `stat.S_IFMT` gives it."""
        return stat.S_IFMT(self.mode)


pack_attributes = _ATTRIBUTES.pack  # the fields of `Attributes`, without making one
unpack_attributes = _ATTRIBUTES.unpack


class Entry(NamedTuple):
    """One name in a directory; `kind` is the file type as `stat.S_IFMT` gives it."""

    name: bytes
    ino: int
    kind: int


def pack_entries(entries: Sequence[Entry]) -> bytes:
    """Entries as they travel: their number, all inode numbers, all types (4 bits of the mode), all names.

    By columns, because a name holds no slash: what takes one step per entry is done by the interpreter's own
    loops, at both ends.
    """
    names, inodes, kinds = zip(*entries, strict=True) if entries else ((), (), ())
    types = bytes([kind >> 12 for kind in kinds])
    return pack_columns(names, struct.pack(f"<{len(names)}Q", *inodes), types)


def pack_columns(names: Sequence[bytes], inodes: bytes, types: bytes) -> bytes:
    """As `pack_entries`, from columns: names, inode numbers of 8 bytes each, types of one byte each."""
    return struct.pack("<I", len(names)) + inodes + types + b"/".join(names)


def unpack_entries(raw: bytes) -> list[Entry]:
    """Entries from what came.

    Raises:
        ValueError: it is not a list of entries.
    """
    names = unpack_names(raw)
    count = len(names)
    inodes = struct.unpack_from(f"<{count}Q", raw, 4)
    kinds = [kind << 12 for kind in raw[4 + 8 * count : 4 + 9 * count]]
    return list(map(Entry, names, inodes, kinds))


def unpack_names(raw: bytes) -> list[bytes]:
    """Only the names of entries from what came.

    Raises:
        ValueError: it is not a list of entries.
    """
    if len(raw) < 4:
        raise ValueError(f"{len(raw)} bytes are no list of entries")
    count = int.from_bytes(raw[:4], "little")
    if len(raw) < 4 + 9 * count:
        raise ValueError(f"{len(raw)} bytes cannot list {count} entries")
    names = raw[4 + 9 * count :].split(b"/") if count else []
    if len(names) != count:
        raise ValueError(f"{len(names)} names for {count} entries")
    return names


_AHEAD = struct.Struct("<BBI10Q4q")  # length of the name, whether the contents come with it, their length; attributes


class FileAhead(NamedTuple):
    """A regular file that nobody has asked for yet; `contents` are all that it holds, unless they are None."""

    name: bytes
    attributes: Attributes
    contents: bytes | None

    def pack(self) -> tuple[bytes, bytes]:
        """As it travels, in two parts, the second of which are the contents."""
        whole, contents = (0, b"") if self.contents is None else (1, self.contents)
        return _AHEAD.pack(len(self.name), whole, len(contents), *self.attributes) + self.name, contents


def unpack_ahead(raw: bytes | bytearray | memoryview, at: int) -> list[FileAhead]:
    """Packed files of one directory, one after the other in the order of their names, from an offset on to the end.

    Raises:
        ValueError: these are no such files.
    """
    files: list[FileAhead] = []
    before = b""
    while at < len(raw):
        if len(raw) - at < _AHEAD.size:
            raise ValueError("the last file is cut short")
        named, whole, length, *fields = _AHEAD.unpack_from(raw, at)
        start = at + _AHEAD.size
        at = start + named + length
        name, attributes = bytes(raw[start : start + named]), Attributes._make(fields)
        if at > len(raw) or whole > 1 or (length and not whole):
            raise ValueError("contents without an end")
        regular = attributes.mode >> 12 == stat.S_IFREG >> 12
        if not regular or name <= before or name in (b".", b"..") or b"/" in name or 0 in name:
            raise ValueError(f"{name!r} is no regular file, or out of its order")
        files.append(FileAhead(name, attributes, bytes(raw[start + named : at]) if whole else None))
        before = name
    return files
