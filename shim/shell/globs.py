"""`*`, `?` and `[...]` in a path, as a shell expands them."""

from __future__ import annotations

import fnmatch
import os

from shim.shell.language import plain_word
from shim.shell.places import Place

_MAGIC = frozenset("*?[")


def has_magic(word: str) -> bool:
    """Whether a word (with quoted characters still marked) is a pattern."""
    return not _MAGIC.isdisjoint(word)


def matches(base: Place, pattern: str) -> list[str]:
    """What there is that matches, sorted, written as the pattern is; `base` is where a relative one starts."""
    parts = pattern.split("/")
    found = [""]
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        found = [
            path
            for before in found
            for path in (_step(base, before, part, last) if has_magic(part) else [before + plain_word(part)])
        ]
        found = [path if last else path + "/" for path in found]
    return sorted(path for path in found if _exists(base, path))


def _step(base: Place, before: str, part: str, last: bool) -> list[str]:
    """Names in one directory that match one part; hidden ones only if the part begins with a dot."""
    directory = base.below(before) if before else base
    try:
        names = directory.side.listdir(directory.path)
    except OSError:
        return []
    pattern = _translated(part)
    return [
        before + name
        for name in names
        if name.startswith(".") <= part.startswith(".")
        and fnmatch.fnmatchcase(name, pattern)
        and (last or directory.below(name).is_directory())
    ]


def _translated(part: str) -> str:
    """A part for `fnmatch`: what was quoted stands in brackets."""
    return "".join(f"[{plain_word(letter)}]" if plain_word(letter) != letter else letter for letter in part)


def _exists(base: Place, path: str) -> bool:
    try:
        base.side.lstat(os.path.join(base.path, path))
    except OSError:
        return False
    return True
