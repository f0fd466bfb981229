"""State that a kill leaves whole: the journal of the terminal, and the last answer in each lane of each client.

Journal: a word that counts commits, and two places. A commit writes the place that is not current and then counts,
with one store: until that the old state holds, from then on the new one. A process that is killed has made all its
stores up to some point, in order.

Answers: a request that changes the terminal goes into the commit together with its answer (`Answer`); only then is the
answer entered in the record of its lane (`lanes.py`), and after a restart once more. So a change is made if and only if
its answer is there for the re-issue that will ask for it.

The file system commits otherwise (`fs/journal.py`): its state is much larger than a record, and most of its requests
change a few words of it, so a record says what to do with them instead of being part of the whole.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass

from services.lanes import Lanes

JOURNAL_BYTES = 256 << 10
_PLACES_AT = 64

LANES = 256
LANES_PER_CLIENT = 32
ANSWER_BYTES = 4096
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


class Answers:
    """The last answer of each lane. Record: `Answer`, with a count of uses in its word 7; request 0 means free."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory.cast("B")
        self._words = self._memory.cast("Q")
        self._lock = threading.Lock()
        self._lanes = Lanes(LANES_PER_CLIENT)
        for at in sorted(range(0, LANES_BYTES, _RECORD_BYTES), key=lambda at: self._words[at // 8 + 7]):
            request, client = self._words[at // 8], self._words[at // 8 + 1]
            if request:
                self._lanes.enter(client, request, at)
            else:
                self._lanes.vacate(at)
        self._uses = max(self._words[at // 8 + 7] for at in range(0, LANES_BYTES, _RECORD_BYTES))

    def find(self, client: int, request: int, operation: int) -> Answer | None:
        """What this request was answered, if it is the last of its lane."""
        with self._lock:
            at = self._lanes.find(client, request) if request else -1
            if at < 0 or self._words[at // 8] != request or self._words[at // 8 + 2] != operation:
                return None
            return Answer.unpack(self._memory[at : at + _RECORD_BYTES])[0]

    def store(self, answer: Answer) -> None:
        """Enter an answer in its lane."""
        if not answer.request:
            return
        with self._lock:
            at = self._lanes.use(answer.client, answer.request)
            self._words[at // 8] = 0
            raw = answer.pack()
            self._memory[at + 8 : at + len(raw)] = raw[8:]
            self._uses += 1
            self._words[at // 8 + 7] = self._uses
            self._words[at // 8] = answer.request

    def forget(self, client: int) -> None:
        """A client is gone."""
        with self._lock:
            for at in self._lanes.forget(client):
                self._words[at // 8] = 0

    def clients(self) -> list[int]:
        """Whoever has a lane."""
        with self._lock:
            return self._lanes.clients()
