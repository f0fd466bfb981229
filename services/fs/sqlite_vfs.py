"""SQLite's files on a device: a virtual file system with exactly two files, the database and its log.

SQLite runs with `locking_mode=EXCLUSIVE`, set before the write-ahead log: nobody else has the device open, so there
is no lock and no shared memory. The lengths of both files stand in the superblock.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from services.fs.device import Area, Device

DATABASE, LOG = "/metadata", "/metadata-wal"


class DeviceFile:
    """One of the two files."""

    def __init__(self, device: Device, number: int, area: Area) -> None:
        self._device = device
        self._memory = device.memory[area.start : area.start + area.size]
        self._write = device.write
        self._start = area.start
        self._size = area.size
        self._number = number
        self._length = device.length(number)

    def xRead(self, amount: int, offset: int) -> bytes:
        """Bytes, fewer at the end."""
        return bytes(self._memory[offset : min(offset + amount, self._length)])

    def xWrite(self, data: bytes, offset: int) -> None:
        """Write, growing the file."""
        end = offset + len(data)
        if end > self._length:
            if end > self._size:
                raise apsw.FullError("the metadata area is full")
            self._write(self._start + offset, data)
            self.xTruncate(end)
        else:
            self._write(self._start + offset, data)

    def xTruncate(self, length: int) -> None:
        """Cut or extend."""
        self._device.set_length(self._number, length)
        self._length = length

    def xFileSize(self) -> int:
        """Length."""
        return self._length

    def xSync(self, flags: int) -> None:
        """Memory needs none."""

    def xLock(self, level: int) -> None:
        """Nobody else is there."""

    def xUnlock(self, level: int) -> None:
        """Nobody else is there."""

    def xCheckReservedLock(self) -> bool:
        """Nobody else is there."""
        return False

    def xFileControl(self, operation: int, pointer: int) -> bool:
        """None is known."""
        return False

    def xSectorSize(self) -> int:
        """A block."""
        return 4096

    def xDeviceCharacteristics(self) -> int:
        """A write does not disturb what is around it."""
        return int(apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE | apsw.SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN)

    def xClose(self) -> None:
        """The device stays."""


class DeviceVFS(apsw.VFS):
    """The two files by name."""

    def __init__(self, device: Device) -> None:
        layout = device.layout
        self._files = {
            DATABASE: DeviceFile(device, 0, layout.database),
            LOG: DeviceFile(device, 1, layout.log),
        }
        self._device = device
        self.vfs_name = f"hmk-{id(self)}"
        super().__init__(self.vfs_name, base="")

    # apsw takes any object with the methods of a file; its annotations say its own class, which opens one of the host.
    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> DeviceFile:  # type: ignore[override]
        """One of the two; SQLite has no reason to ask for another."""
        found = self._files.get(name.filename() if isinstance(name, apsw.URIFilename) else str(name))
        if found is None:
            raise apsw.CantOpenError(f"no file {name} on the device")
        flags[1] = flags[0]
        return found

    def xAccess(self, pathname: str, flags: int) -> bool:
        """Whether there is such a file: one of no length is not."""
        number = list(self._files).index(pathname) if pathname in self._files else -1
        return number >= 0 and self._device.length(number) > 0

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Make it empty."""
        if filename in self._files:
            self._files[filename].xTruncate(0)

    def xFullPathname(self, name: str) -> str:
        """Names are full."""
        return name


def open_database(device: Device, first: Sequence[tuple[str, tuple[int | str | bytes, ...]]]) -> apsw.Connection:
    """SQLite on a device, set up; `first` are statements and their values, run if the device is new."""
    if not device.formatted:  # whatever is there was not finished
        device.set_length(0, 0)
        device.set_length(1, 0)
    vfs = DeviceVFS(device)  # registered while a connection uses it
    connection = apsw.Connection(DATABASE, vfs=vfs.vfs_name, statementcachesize=200)
    pages = device.layout.log.size // 4096 // 4
    if not device.formatted:
        connection.execute("PRAGMA journal_mode=MEMORY").fetchall()  # until there is a log
    for pragma in (
        "page_size=4096",
        "locking_mode=EXCLUSIVE",
        "journal_mode=WAL",
        "synchronous=OFF",
        "temp_store=MEMORY",
        "cache_size=-16384",
        f"wal_autocheckpoint={min(pages, 1000)}",
        f"max_page_count={device.layout.database.size // 4096}",  # else it is a checkpoint that finds no room
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    if not device.formatted:
        with connection:
            for statement, values in first:
                connection.execute(statement, values)
        device.format()
    return connection
