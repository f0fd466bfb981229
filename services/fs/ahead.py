"""Read-ahead of a volume's files: those that a program is likely to open next come with the one that it opens.

A program that opens the files of a directory one after the other, in the order of their names, is noticed; then the
volume is asked for the next files, too, and their opens are answered from here. As for a disk, it begins with few, asks
for twice as many as were used of the last ones, and stops when none was. After that it takes a longer run of names in
order to begin again, so that opens in no order cause next to nothing. While it is of use, the first open in another
directory is enough: whoever copies a tree goes on like that.

An answer is shown once, until a tenth of a second after the volume was asked, and not once the volume is known to say
something newer about the file. It holds what the volume says to everybody: whether a caller may open the file is
decided at each open. Nothing of this outlives the process.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.files import Attributes, FileAhead
from services.fs.fresh import LASTING_NS, Contents
from services.fs.volume import Walked

MOST: Final = 4 << 20  # bytes of all answers of one volume; then the oldest go
FILES: Final = 32  # asked for at once, at most
DIRECTORIES: Final = 64  # watched for opens in order, at most
_AT_FIRST: Final = 8  # asked for in a directory where nothing is known yet, while read-ahead is of use;
_TRIALS: Final = 4  # so often before it must be again
_ANSWER_BYTES: Final = 1024  # about what an answer takes beside contents and path
_LONGEST_RUN: Final = 64


@dataclass(slots=True)
class Run:
    """Opens of one directory's files: how many names came in order, and what became of the last read-ahead."""

    last: bytes = b""
    until: int = 0  # a name that comes later begins anew
    length: int = 0
    needed: int = 1  # so long a run causes a read-ahead
    came: int = 0
    used: int = 0

    def took(self, name: bytes, now: int) -> None:
        """A file was opened that had been read ahead."""
        self.last, self.until = name, now + LASTING_NS
        self.used += 1
        self.needed = 1

    def missed(self, name: bytes, now: int, useful: bool) -> int:
        """A file is opened that had not; how many are to be read ahead with it. `useful`: others have been of late."""
        in_order = name > self.last and now < self.until
        self.last, self.until = name, now + LASTING_NS
        count = min(2 * max(self.used, 1), FILES)
        if self.came and not self.used:
            self.needed, self.length = min(4 * self.needed, _LONGEST_RUN), 0
        self.length = self.length + 1 if in_order else 0
        self.came = self.used = 0
        if useful and self.needed == 1:
            return max(count, _AT_FIRST)
        return count if self.length >= self.needed else 0


class _Kept(NamedTuple):
    walked: Walked
    until: int
    cost: int


class Ahead:
    """What came ahead of the opens of one volume's files, by path. Safe to use from several threads."""

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._held = 0
        self._trials = 0  # left
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # the oldest first
        self._runs: OrderedDict[bytes, Run] = OrderedDict()  # by directory, the latest last

    def __len__(self) -> int:
        return self._held

    def take(self, path: bytes) -> tuple[Walked | None, int]:
        """The answer to an open, if it is here; else how many of the next files the volume is to be asked for."""
        directory, _, name = path.rpartition(b"/")
        now = time.monotonic_ns()
        with self._lock:
            run = self._run(directory)
            kept = self._drop(path)
            if kept is not None and now < kept.until:
                run.took(name, now)
                self._trials = _TRIALS
                return kept.walked, 0
            count = run.missed(name, now, self._trials > 0)
            self._trials -= count > 0 and self._trials > 0
            return None, count

    def _run(self, directory: bytes) -> Run:
        run = self._runs.setdefault(directory, Run())
        self._runs.move_to_end(directory)
        if len(self._runs) > DIRECTORIES:
            self._runs.popitem(last=False)
        return run

    def keep(self, path: bytes, files: list[FileAhead], until: int) -> None:
        """Keep the files that came with the one of a path."""
        directory, slash, _ = path.rpartition(b"/")
        with self._lock:
            self._run(directory).came = len(files)
            for file in files:
                at = directory + slash + file.name
                contents = None if file.contents is None else Contents(file.contents, until)
                cost = len(file.contents or b"") + len(at) + _ANSWER_BYTES
                self._drop(at)
                self._kept[at] = _Kept(Walked(len(at), file.attributes, contents=contents), until, cost)
                self._held += cost
            now = time.monotonic_ns()
            while self._kept:
                oldest = next(iter(self._kept))
                if self._held <= self._most and self._kept[oldest].until > now:
                    break
                self._drop(oldest)

    def drop(self, path: bytes, seen: Attributes | None = None) -> None:
        """The volume was asked about a path; what is kept of it goes, unless it is the same as was seen."""
        kept = self._kept.get(path)  # a step of the interpreter's own; mostly there is none
        if kept is not None and (seen is None or _state(seen) != _state(kept.walked.attributes)):
            with self._lock:
                self._drop(path)

    def _drop(self, path: bytes) -> _Kept | None:
        kept = self._kept.pop(path, None)
        if kept is not None:
            self._held -= kept.cost
        return kept


def _state(of: Attributes) -> tuple[int, ...]:
    """What is another after each change of a file."""
    return of.dev, of.ino, of.size, of.mtime, of.ctime
