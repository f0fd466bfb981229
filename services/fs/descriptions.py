"""Descriptors and open file descriptions, in objects that the core holds, so that open files survive this service.

A descriptor is (client, number) -> description; a description says what is open, how, and at which position. In the
objects each is a record of 64-bit words, of which one makes the record valid and is stored last; what is here in
plain Python is an index of them, made anew after a death. A description that no descriptor refers to is dropped then:
its `open` was never answered.

    descriptions   8 words: kind (0: free), file, mount, flags, position, length of the path, type, device
    paths          4,096 bytes for each description: the path of a file that is not on the device
    descriptors    4 words: client + 1 (0: free), number | close-on-exec << 32, description, request that opened it
"""

from __future__ import annotations

import errno
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from operator import not_
from typing import Final

from corekernel.errors import ServiceError
from services.files import PATH_MAX

DESCRIPTIONS: Final = 8192
DESCRIPTORS: Final = 16384
PER_CLIENT: Final = 1024
LOCAL, VOLUME, DEVICE = 1, 2, 3

_DESCRIPTION_WORDS, _DESCRIPTOR_WORDS = 8, 4
DESCRIPTIONS_SIZE: Final = DESCRIPTIONS * _DESCRIPTION_WORDS * 8
DESCRIPTORS_SIZE: Final = DESCRIPTORS * _DESCRIPTOR_WORDS * 8
PATHS_SIZE: Final = DESCRIPTIONS * PATH_MAX
_KIND, _FILE, _MOUNT, _FLAGS, _POSITION, _LENGTH, _TYPE, _DEVICE = range(8)
_BUT_KIND, _BUT_CLIENT = struct.Struct("<7Q"), struct.Struct("<3Q")
_CLIENT, _NUMBER, _DESCRIPTION, _REQUEST = 0, 1, 2, 3
_CLOSE_ON_EXEC = 1 << 32


@dataclass(slots=True, eq=False)
class Description:
    """An open file description.

    Attributes:
        index: of its record.
        kind: LOCAL, VOLUME or DEVICE.
        file: inode number; a device's handle.
        mount: of a VOLUME, the number of its mount.
        flags: O_ flags of Linux.
        position: where reading and writing go on.
        path: of a VOLUME, where in it the file is.
        type: of the file, as `stat.S_IFMT` gives it; 0 of a device.
        device: of a VOLUME, the number that the file's device has there; of a DEVICE, the inode that names it.
        references: how many descriptors refer to it.
        place: of a LOCAL, directory and name under which it was opened; not known after a death.
    """

    index: int
    kind: int
    file: int
    mount: int
    flags: int
    position: int
    path: bytes
    type: int
    device: int
    references: int = 0
    place: tuple[int, bytes] | None = None

    @property
    def readable(self) -> bool:
        """Opened for reading."""
        return self.flags & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR) and not self.flags & os.O_PATH

    @property
    def writable(self) -> bool:
        """Opened for writing."""
        return self.flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR) and not self.flags & os.O_PATH


@dataclass(slots=True, eq=False)
class Descriptor:
    """One client's number for a description; `index` is of its record."""

    index: int
    client: int
    number: int
    description: Description
    close_on_exec: bool
    request: int


@dataclass(eq=False)
class _Client:
    by_number: dict[int, Descriptor] = field(default_factory=dict)
    by_request: dict[int, Descriptor] = field(default_factory=dict)
    lowest: int = 0  # nothing below is free


class Descriptions:
    """Both tables."""

    def __init__(self, descriptions: memoryview, paths: memoryview, descriptors: memoryview) -> None:
        self._description_memory = descriptions
        self._descriptions = descriptions.cast("Q")
        self._paths = paths
        self._descriptor_memory = descriptors
        self._descriptors = descriptors.cast("Q")
        self._open: dict[int, Description] = {}
        self._users: dict[int, int] = {}  # open descriptions of an inode
        self._clients: defaultdict[int, _Client] = defaultdict(_Client)
        self._free_descriptors: list[int] = []
        self._free_descriptions: list[int] = []
        self.on_close: Callable[[Description], None] = lambda description: None
        self._recover()

    def _recover(self) -> None:
        """Index what the objects hold."""
        # Nearly all records are free, and somebody waits: what goes through all of them is the interpreter's own loops.
        kinds = self._descriptions[::_DESCRIPTION_WORDS].tolist()
        clients = self._descriptors[::_DESCRIPTOR_WORDS].tolist()
        known = {index: self._read(index) for index in _used(kinds)}
        for index in _used(clients):
            at = index * _DESCRIPTOR_WORDS
            client, word, of, request = self._descriptors[at : at + _DESCRIPTOR_WORDS].tolist()
            number, close_on_exec = word & (_CLOSE_ON_EXEC - 1), bool(word & _CLOSE_ON_EXEC)
            self._index(Descriptor(index, client - 1, number, known[of], close_on_exec, request))
        for index, description in known.items():
            if not description.references:
                self._descriptions[index * _DESCRIPTION_WORDS + _KIND] = kinds[index] = 0
        self._free_descriptors = _free(clients)
        self._free_descriptions = _free(kinds)

    def _read(self, index: int) -> Description:
        at = index * _DESCRIPTION_WORDS
        kind, file, mount, flags, position, length, of_type, device = self._descriptions[at : at + 8].tolist()
        path = bytes(self._paths[index * PATH_MAX : index * PATH_MAX + length])
        return Description(index, kind, file, mount, flags, position, path, of_type, device)

    def _index(self, descriptor: Descriptor) -> None:
        owner = self._clients[descriptor.client]
        owner.by_number[descriptor.number] = descriptor
        owner.by_request[descriptor.request] = descriptor
        description = descriptor.description
        description.references += 1
        if description.index not in self._open:
            self._open[description.index] = description
            if description.kind == LOCAL:
                self._users[description.file] = self._users.get(description.file, 0) + 1

    # ---- finding

    def get(self, client: int, number: int) -> Descriptor:
        """A client's descriptor.

        Raises:
            ServiceError: EBADF.
        """
        owner = self._clients.get(client)
        found = owner.by_number.get(number) if owner else None
        if found is None:
            raise ServiceError(errno.EBADF)
        return found

    def description(self, index: int) -> Description | None:
        """An open description by the index of its record."""
        return self._open.get(index)

    def opened_by(self, client: int, request: int) -> Descriptor | None:
        """The descriptor that a request of a client made, if it is still open."""
        owner = self._clients.get(client)
        if owner is None:
            return None
        return owner.by_request.get(request)

    def is_open(self, inode: int) -> bool:
        """Whether there is an open description of a file on the device."""
        return inode in self._users

    def of(self, client: int) -> list[Descriptor]:
        """A client's descriptors, ascending."""
        owner = self._clients.get(client)
        return [owner.by_number[number] for number in sorted(owner.by_number)] if owner else []

    def clients(self) -> list[int]:
        """Who has any."""
        return list(self._clients)

    def __iter__(self) -> Iterator[Description]:
        return iter(list(self._open.values()))

    # ---- opening

    def room(self, client: int, lowest: int = 0) -> int:
        """The lowest free number of a client, from `lowest` on.

        Raises:
            ServiceError: EMFILE, the client has too many; ENFILE, all together have.
        """
        owner = self._clients[client]
        number = max(owner.lowest, lowest)
        while number in owner.by_number:
            number += 1
        if lowest <= owner.lowest:
            owner.lowest = number
        if number >= PER_CLIENT:
            raise ServiceError(errno.EMFILE)
        if not self._free_descriptors or not self._free_descriptions:
            raise ServiceError(errno.ENFILE)
        return number

    def open(
        self,
        client: int,
        request: int,
        flags: int,
        kind: int,
        file: int,
        of_type: int,
        mount: int = 0,
        device: int = 0,
        path: bytes = b"",
    ) -> Descriptor:
        """A new description, see `Description`, and a descriptor of it.

        Raises:
            ServiceError: EMFILE, ENFILE.
        """
        number = self.room(client)
        index = self._free_descriptions.pop()
        at, kept = index * _DESCRIPTION_WORDS, flags & ~os.O_CLOEXEC
        _BUT_KIND.pack_into(
            self._description_memory, (at + _FILE) * 8, file, mount, kept, 0, len(path), of_type, device
        )
        if path:
            self._paths[index * PATH_MAX : index * PATH_MAX + len(path)] = path
        self._descriptions[at + _KIND] = kind
        description = Description(index, kind, file, mount, kept, 0, path, of_type, device)
        return self.refer(client, number, description, kept != flags, request)

    def refer(
        self, client: int, number: int, description: Description, close_on_exec: bool, request: int
    ) -> Descriptor:
        """A descriptor, with a number that is free, of a description."""
        index = self._free_descriptors.pop()
        at, shown = index * _DESCRIPTOR_WORDS, number | (_CLOSE_ON_EXEC if close_on_exec else 0)
        _BUT_CLIENT.pack_into(self._descriptor_memory, (at + _NUMBER) * 8, shown, description.index, request)
        self._descriptors[at + _CLIENT] = client + 1
        made = Descriptor(index, client, number, description, close_on_exec, request)
        self._index(made)
        return made

    # ---- changing

    def move(self, description: Description, position: int) -> None:
        """Set a description's position."""
        self._descriptions[description.index * _DESCRIPTION_WORDS + _POSITION] = position
        description.position = position

    def set_flags(self, description: Description, flags: int) -> None:
        """Set a description's flags."""
        self._descriptions[description.index * _DESCRIPTION_WORDS + _FLAGS] = flags
        description.flags = flags

    def set_close_on_exec(self, descriptor: Descriptor, wanted: bool) -> None:
        """Set a descriptor's flag."""
        at = descriptor.index * _DESCRIPTOR_WORDS + _NUMBER
        self._descriptors[at] = descriptor.number | (_CLOSE_ON_EXEC if wanted else 0)
        descriptor.close_on_exec = wanted

    def close(self, descriptor: Descriptor) -> None:
        """Close a descriptor; `on_close` is told of a description that thereby goes."""
        owner = self._clients[descriptor.client]
        del owner.by_number[descriptor.number]
        if owner.by_request.get(descriptor.request) is descriptor:
            del owner.by_request[descriptor.request]
        owner.lowest = min(owner.lowest, descriptor.number)
        if not owner.by_number:
            del self._clients[descriptor.client]
        self._descriptors[descriptor.index * _DESCRIPTOR_WORDS + _CLIENT] = 0
        self._free_descriptors.append(descriptor.index)
        description = descriptor.description
        description.references -= 1
        if not description.references:
            self._descriptions[description.index * _DESCRIPTION_WORDS + _KIND] = 0
            del self._open[description.index]
            if description.kind == LOCAL:
                self._users[description.file] -= 1
                if not self._users[description.file]:
                    del self._users[description.file]
            self._free_descriptions.append(description.index)
            self.on_close(description)

    def close_index(self, index: int) -> None:
        """Close the descriptor of a record, if it is open."""
        client = self._descriptors[index * _DESCRIPTOR_WORDS + _CLIENT]
        if client:
            number = self._descriptors[index * _DESCRIPTOR_WORDS + _NUMBER] & (_CLOSE_ON_EXEC - 1)
            self.close(self.get(client - 1, number))


def _used(column: list[int]) -> Iterator[int]:
    """The records that are not free, ascending."""
    return compress(range(len(column)), column)


def _free(column: list[int]) -> list[int]:
    """Those that are, descending, so that the first one is taken first."""
    return list(compress(range(len(column)), map(not_, column)))[::-1]
