"""State that a kill leaves whole: the journal of the terminal, and the last answer in each lane of each client.

Journal: a word that counts commits, and two places. A commit writes the place that is not current and then counts,
with one store: until that the old state holds, from then on the new one. A process that is killed has made all its
stores up to some point, in order.

Answers: a request that changes the terminal goes into the commit together with its answer (`Answer`); only then is the
answer entered in the table of lanes, and after a restart once more. So a change is made if and only if its answer is
there for the re-issue that will ask for it. Of the lanes the least recently used goes when the table is full, of the
client's own if it has its share: what is asked for again was done just before.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass

JOURNAL_BYTES = 256 << 10
_PLACES_AT = 64

LANES = 256
LANES_PER_CLIENT = 32
ANSWER_BYTES = 4096
_LANE_SHIFT = 48
_ANSWER = struct.Struct("<QQQqQ24x")  # request, client, operation, result, length; 8 of the rest are a count of uses
_RECORD_BYTES = _ANSWER.size + ANSWER_BYTES
LANES_BYTES = LANES * _RECORD_BYTES

assert _ANSWER.size == 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered; request 0 is none."""

    request: int = 0
    client: int = 0
    operation: int = 0
    result: int = 0
    data: bytes = b""

    def pack(self) -> bytes:
        """As bytes."""
        head = _ANSWER.pack(self.request, self.client, self.operation, self.result, len(self.data))
        return head + self.data

    @classmethod
    def unpack(cls, raw: bytes | memoryview) -> tuple[Answer, int]:
        """From the beginning of `raw`; and where it ends."""
        request, client, operation, result, length = _ANSWER.unpack_from(raw)
        end = _ANSWER.size + length
        return cls(request, client, operation, result, bytes(raw[_ANSWER.size : end])), end


class Journal:
    """One state, replaced as a whole. Its owner's lock protects it."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory.cast("B")
        self._words = self._memory.cast("Q")
        self._place = (len(memory) - _PLACES_AT) // 2 & ~7

    def _at(self, sequence: int) -> int:
        return _PLACES_AT + (sequence & 1) * self._place

    def load(self) -> bytes | None:
        """The state that was last committed; None when none was."""
        if not self._words[0]:
            return None
        at = self._at(self._words[0])
        return bytes(self._memory[at + 8 : at + 8 + self._words[at // 8]])

    def commit(self, state: bytes) -> None:
        """Replace it."""
        sequence = self._words[0] + 1
        at = self._at(sequence)
        if len(state) + 8 > self._place:
            raise ValueError(f"a state of {len(state)} bytes")
        self._words[at // 8] = len(state)
        self._memory[at + 8 : at + 8 + len(state)] = state
        self._words[0] = sequence


class Lanes:
    """The last answer of each lane. Record: `Answer`, with a count of uses in its word 7; request 0 means free."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory.cast("B")
        self._words = self._memory.cast("Q")
        self._lock = threading.Lock()
        self._where: dict[tuple[int, int], int] = {}  # (client, lane) -> offset, the least recently used first
        self._free: list[int] = []
        for at in sorted(range(0, LANES_BYTES, _RECORD_BYTES), key=lambda at: self._words[at // 8 + 7]):
            request, client = self._words[at // 8], self._words[at // 8 + 1]
            if request:
                self._where[client, request >> _LANE_SHIFT] = at
            else:
                self._free.append(at)
        self._uses = max(self._words[at // 8 + 7] for at in range(0, LANES_BYTES, _RECORD_BYTES))

    def find(self, client: int, request: int, operation: int) -> Answer | None:
        """What this request was answered, if it is the last of its lane."""
        with self._lock:
            at = self._where.get((client, request >> _LANE_SHIFT)) if request else None
            if at is None or self._words[at // 8] != request or self._words[at // 8 + 2] != operation:
                return None
            return Answer.unpack(self._memory[at : at + _RECORD_BYTES])[0]

    def store(self, answer: Answer) -> None:
        """Enter an answer in its lane."""
        if not answer.request:
            return
        key = answer.client, answer.request >> _LANE_SHIFT
        with self._lock:
            at = self._where.pop(key, None)
            if at is None:
                at = self._room(answer.client)
            self._words[at // 8] = 0
            raw = answer.pack()
            self._memory[at + 8 : at + len(raw)] = raw[8:]
            self._uses += 1
            self._words[at // 8 + 7] = self._uses
            self._words[at // 8] = answer.request
            self._where[key] = at

    def _room(self, client: int) -> int:
        own = [key for key in self._where if key[0] == client]
        if self._free and len(own) < LANES_PER_CLIENT:
            return self._free.pop()
        return self._where.pop(own[0] if len(own) >= LANES_PER_CLIENT else next(iter(self._where)))

    def forget(self, client: int) -> None:
        """A client is gone."""
        with self._lock:
            for key in [key for key in self._where if key[0] == client]:
                at = self._where.pop(key)
                self._words[at // 8] = 0
                self._free.append(at)

    def clients(self) -> list[int]:
        """Whoever has a lane."""
        with self._lock:
            return list({client for client, _ in self._where})
