"""Each request's answer, kept so that a request that is issued again is answered, not done again.

One record per lane (a thread of a client) in an object that the core holds: the lane's last request, its result, and
what is to be done to the tables of open files with it (*redo*). A record is written before the change that it belongs
to and takes effect with it:

* with a transaction of the metadata: once the database's number has reached the record's;
* without one: when its state is stored as COMMITTED, one word.

After a death at most one record is in between, because all is done under one lock. `recover` settles it.

Record: eight words: client + 1 (0: free), request, transaction, result, redo (3), state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from services.lanes import Lanes

RECORDS: Final = 4096
RECORD_WORDS: Final = 8
SIZE: Final = RECORDS * RECORD_WORDS * 8
LANES_PER_CLIENT: Final = 256

# Kinds of redo: set a description's position; close a descriptor; none, but the result is an inode that `open` made.
NOTHING, MOVE, CLOSE, MADE = 0, 1, 2, 3

_CLIENT, _REQUEST, _TRANSACTION, _RESULT, _REDO, _STATE = 0, 1, 2, 3, 4, 7
_INVALID, _PREPARED, _COMMITTED, _APPLIED = 0, 1, 2, 3
_BETWEEN = struct.Struct("<6Q")  # what a record has between client and state
_U64 = 2**64 - 1

Redo = Callable[[int, int, int], None]


class Journal:
    """The records."""

    def __init__(self, memory: memoryview, redo: Redo) -> None:
        self._memory = memory
        self._words = memory.cast("Q")
        self.redo = redo
        self._lanes = Lanes(LANES_PER_CLIENT)
        for at in range(0, RECORDS * RECORD_WORDS, RECORD_WORDS)[::-1]:
            if self._words[at + _CLIENT]:
                self._lanes.enter(self._words[at + _CLIENT] - 1, self._words[at + _REQUEST], at)
            else:
                self._lanes.vacate(at)

    def recover(self, number: int) -> None:
        """After a death: settle what was under way; `number` is that of the last transaction that committed."""
        for at in self._lanes:
            state = self._words[at + _STATE]
            if state == _COMMITTED or (state == _PREPARED and self._words[at + _TRANSACTION] <= number):
                self.apply(at)
            elif state == _PREPARED:
                self._words[at + _STATE] = _INVALID

    def request(self, client: int, number: int) -> Request:
        """The request `number` of a client."""
        return Request(self, client, number, self._lanes.find(client, number))

    def forget(self, client: int) -> None:
        """A client is gone."""
        for at in self._lanes.forget(client):
            self._words[at + _CLIENT] = 0
            self._words[at + _STATE] = _INVALID

    def clients(self) -> list[int]:
        """Who has a record."""
        return self._lanes.clients()

    # ---- for requests

    def moved_to(self, at: int) -> int:
        """The position that a record's redo set."""
        return self._words[at + _REDO + 2]

    def kind(self, at: int) -> int:
        """The kind of a record's redo."""
        return self._words[at + _REDO]

    def answer(self, at: int, number: int) -> int | None:
        """The result kept in a record, if it is that of this request."""
        words = self._words
        return words[at + _RESULT] if words[at + _REQUEST] == number and words[at + _STATE] == _APPLIED else None

    def write(self, client: int, number: int, transaction: int, result: int, redo: tuple[int, int, int]) -> int:
        """Fill a lane's record: prepared, or committed if no transaction belongs to it; where it is."""
        at, words = self._lanes.use(client, number), self._words
        words[at + _STATE] = _INVALID
        if words[at + _CLIENT] != client + 1:
            words[at + _CLIENT] = 0  # whatever lane of whomever it was: nobody's, until it is this one's
            words[at + _REQUEST] = number
            words[at + _CLIENT] = client + 1
        _BETWEEN.pack_into(self._memory, (at + _REQUEST) * 8, number, transaction, result & _U64, *redo)
        words[at + _STATE] = _PREPARED if transaction else _COMMITTED
        return at

    def apply(self, at: int) -> None:
        """Carry out a record's redo."""
        words = self._words
        if words[at + _REDO] != NOTHING:
            self.redo(words[at + _REDO], words[at + _REDO + 1], words[at + _REDO + 2])
        words[at + _STATE] = _APPLIED

    def finish(self, at: int) -> None:
        """A record's redo has been carried out."""
        self._words[at + _STATE] = _APPLIED

    def abandon(self, at: int) -> None:
        """What a record was prepared for did not happen."""
        self._words[at + _STATE] = _INVALID


class Request:
    """One request under way."""

    __slots__ = ("_at", "_client", "_journal", "number")

    def __init__(self, journal: Journal, client: int, number: int, at: int) -> None:
        self._journal = journal
        self._client = client
        self._at = at
        self.number = number

    def answer(self) -> int | None:
        """What was answered to it before; None: it is new."""
        return self._journal.answer(self._at, self.number) if self._at >= 0 else None

    def made(self) -> int | None:
        """The inode that it made or emptied before, for a descriptor that is still to be made; None: it is new.

        A client may use a number again for something else, whose answer is no inode that it may open.
        """
        return self.answer() if self._at >= 0 and self._journal.kind(self._at) == MADE else None

    def moved_to(self) -> int:
        """To an answered request: the position that it set."""
        return self._journal.moved_to(self._at)

    def prepare(self, transaction: int, result: int, redo: tuple[int, int, int]) -> None:
        """Write its record; with transaction 0 it is committed thereby."""
        self._at = self._journal.write(self._client, self.number, transaction, result, redo)

    def apply(self) -> None:
        """Its change is committed: do the rest of it."""
        self._journal.apply(self._at)

    def finish(self) -> None:
        """The same, for whoever has done the rest of it already."""
        self._journal.finish(self._at)

    def abandon(self) -> None:
        """Its change did not happen."""
        if self._at >= 0:
            self._journal.abandon(self._at)

    def done(self, result: int, redo: tuple[int, int, int] = (NOTHING, 0, 0)) -> int:
        """It is done without a transaction; `result`, for the caller's `return`."""
        self.prepare(0, result, redo)
        self.apply()
        return result
