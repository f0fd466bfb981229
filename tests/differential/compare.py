"""What is made of the answers of one side before they are compared.

These differences, and no others, are permitted:

* inode numbers are the order in which files were first seen;
* size and blocks of a directory, and blocks of a symbolic link, are the file system's own affair;
* a time that was not set to a value is either changed or not, since this file was last looked at; the time of
  access is not compared where the order of times is another on both sides (a clock that ticks gives equal times);
* following a symbolic link is no access to it;
* a rename with a name that is too long may have another error to tell of its paths;
* the holder of a lock is the number of the client;
* opening what is no file, seeking in a directory, and listing a file that is open are not compared (`actor.py`).
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import Any, Final

from tests.differential.steps import Step

RECENT: Final = 10**18  # nanoseconds; a later time was not set by a step
_MODE, _INODE, _SIZE, _BLOCKS, _TIMES = 1, 2, 7, 8, 10


class Reader:
    """Reads the answers of one side, in order."""

    def __init__(self, clients: dict[int, int]) -> None:
        self._clients = clients
        self._inodes: dict[int, int] = {}
        self._seen: dict[int, list[int]] = {}

    def read(self, answer: Any) -> Any:
        """The answer as it is compared."""
        if isinstance(answer, dict):
            return {key: self.read(answer[key]) for key in sorted(answer)}
        if not isinstance(answer, list):
            return answer
        if answer and answer[0] == "stat":
            return self._stat(answer)
        if answer and answer[0] == "lock":
            return [*answer[:-1], self._clients.get(answer[-1], answer[-1])]
        return [self.read(part) for part in answer]

    def _stat(self, found: list[Any]) -> list[Any]:
        inode = self._inodes.setdefault(found[_INODE], len(self._inodes))
        read = list(found[: _TIMES - 1])
        read[_INODE] = inode
        kind = stat.S_IFMT(found[_MODE])
        if kind == stat.S_IFDIR:
            read[_SIZE] = 0
        if kind in (stat.S_IFDIR, stat.S_IFLNK):
            read[_BLOCKS] = 0
        return [*read, *self._times(inode, found[_TIMES:], kind == stat.S_IFLNK)] if len(found) > _TIMES else read

    def _times(self, inode: int, times: list[int], link: bool) -> list[Any]:
        before = self._seen.get(inode, [0, 0, 0])
        self._seen[inode] = times
        told = [
            time if time < RECENT else "changed" if time != old else "same"
            for time, old in zip(times, before, strict=True)
        ]
        accessed, modified, changed = before
        if link:
            told[0] = ""
        return ["times", (accessed <= modified, accessed <= changed), *told]


def equal(mine: Any, other: Any) -> bool:
    """Whether two answers, both read, are the same."""
    if isinstance(mine, list) and isinstance(other, list):
        if mine[9:10] == ["times"] == other[9:10] and mine[10] != other[10]:
            mine, other = mine[:10] + mine[12:], other[:10] + other[12:]
        return len(mine) == len(other) and all(map(equal, mine, other))
    return bool(mine == other)


def permitted(step: Step, expected: Sequence[Any], got: Sequence[Any]) -> bool:
    """Whether two answers to a step may differ."""
    too_long = any("n" * 256 in path or len(path) > 4095 for path in step.arguments[:2] if isinstance(path, str))
    return step.name == "rename" and too_long and expected[0] == got[0] == "error"
