"""The process table: state that outlives the process manager, in an object the core holds.

One record per process. The core writes who exists and how it ended (it is the one that learns it from the host); the
process manager writes what its policy decided; each field has one writer. Clients hold a read-only token. A process is
a client of the core: its pid is its client number.

Record, little-endian, 128 bytes:
  core:     pid u32, state u32 (0 none, 1 live, 2 ended), parent u32, uid u32, host pid u32, status i32,
            started u64 (CLOCK_MONOTONIC ns), name 32 bytes
  procmgr:  reaped u32, reported status i32 (what `exit` said; -2**31 when nothing), limit u64 x 4 (soft and hard of
            open files, then of processes)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

RECORDS = 1024
RECORD_BYTES = 128
SIZE = RECORDS * RECORD_BYTES
NOT_REPORTED = -(2**31)

NONE, LIVE, ENDED = 0, 1, 2

_CORE = struct.Struct("<IIIIIiQ32s")
_POLICY = struct.Struct("<Ii4Q")
_POLICY_AT = 72
_NAME_AT, _NAME_BYTES = 32, 32
_STATE = struct.Struct("<I")
_STATUS = struct.Struct("<i")

assert _CORE.size <= _POLICY_AT and _POLICY_AT + _POLICY.size <= RECORD_BYTES


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process as the table shows it."""

    index: int
    pid: int
    state: int
    parent: int
    uid: int
    host_pid: int
    status: int
    started_ns: int
    name: str
    reaped: int
    reported: int
    limits: tuple[int, int, int, int]


class ProcessTable:
    """A view of the table; whoever holds it read-only can only read."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def read(self, index: int) -> ProcessRecord:
        """The record at an index, copied once."""
        at = index * RECORD_BYTES
        raw = bytes(self._memory[at : at + RECORD_BYTES])
        pid, state, parent, uid, host_pid, status, started, name = _CORE.unpack_from(raw)
        reaped, reported, *limits = _POLICY.unpack_from(raw, _POLICY_AT)
        text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
        return ProcessRecord(
            index, pid, state, parent, uid, host_pid, status, started, text, reaped, reported,
            (limits[0], limits[1], limits[2], limits[3]),
        )  # fmt: skip

    def __iter__(self) -> Iterator[ProcessRecord]:
        for index in range(RECORDS):
            if _STATE.unpack_from(self._memory, index * RECORD_BYTES + 4)[0] != NONE:
                yield self.read(index)

    def find(self, pid: int) -> ProcessRecord | None:
        """The record of a process, live or ended."""
        return next((record for record in self if record.pid == pid), None)

    # ---- the core's part

    def born(self, pid: int, parent: int, uid: int, host_pid: int, started_ns: int, name: str) -> bool:
        """Enter a process; False when the table is full."""
        for index in range(RECORDS):
            at = index * RECORD_BYTES
            state = _STATE.unpack_from(self._memory, at + 4)[0]
            if state == NONE or (state == ENDED and self.read(index).reaped):
                raw = name.encode("utf-8", "replace")[:32]
                _POLICY.pack_into(self._memory, at + _POLICY_AT, 0, NOT_REPORTED, 0, 0, 0, 0)
                _CORE.pack_into(self._memory, at, pid, NONE, parent, uid, host_pid, 0, started_ns, raw)
                _STATE.pack_into(self._memory, at + 4, LIVE)
                return True
        return False

    def placed(self, pid: int, host_pid: int) -> None:
        """A process that was entered before its start has a host pid now."""
        record = self.find(pid)
        if record is not None:
            _STATE.pack_into(self._memory, record.index * RECORD_BYTES + 16, host_pid)

    def ended(self, pid: int, status: int) -> None:
        """A process is gone: its status, then its state."""
        record = self.find(pid)
        if record is not None:
            at = record.index * RECORD_BYTES
            _STATUS.pack_into(self._memory, at + 20, status)
            _STATE.pack_into(self._memory, at + 4, ENDED)

    def may_rename(self, pid: int, offset: int, length: int) -> bool:
        """Whether these bytes lie within the name of the process's own record: all that a token holder may change."""
        record = self.find(pid)
        if record is None or record.state != LIVE:
            return False
        start = record.index * RECORD_BYTES + _NAME_AT
        return start <= offset and offset + length <= start + _NAME_BYTES

    # ---- the process manager's part

    def decide(self, record: ProcessRecord, reaped: int, reported: int, limits: tuple[int, ...]) -> None:
        """Write the process manager's fields of a record."""
        _POLICY.pack_into(self._memory, record.index * RECORD_BYTES + _POLICY_AT, reaped, reported, *limits)
