"""Copying a tree: the standard library of Python, all its regular files, by one client, each read and written whole.

It is read where it lies on the host, with the functions of `os`; where the composition mounts the host's directories,
hmk reads it there instead, through the system. The row's note says which.
"""

from __future__ import annotations

import dataclasses
import os
import sysconfig
import time
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from bench.files.cells import make_root, row_of
from bench.files.places import HOST, Calls, Place, Session
from bench.files.plan import Plan
from bench.hmk import cell
from bench.hmk.cell import CellError, Start
from bench.stats import Row

CASE: Final = "tree-copy"
HOST_MOUNT: Final = "/host"
_LARGEST = 16 << 20
_ADDED = {"site-packages", "dist-packages"}


class Tree(NamedTuple):
    """What is copied: the directory, and relative paths of the directories and files below it."""

    root: str
    directories: list[str]
    files: list[str]


class Copied(NamedTuple):
    """What a copy took: nanoseconds for each file, for all together, bytes, calls of services, and the source."""

    samples: array[int]
    elapsed_ns: int
    size: int
    calls: int
    source: str


def library(most: int) -> Tree:
    """Python's standard library, or the first files of it."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path.relative_to(root) for path in islice(_regular_files(root), most)]
    directories = {parent for path in files for parent in path.parents if parent.parts}
    return Tree(str(root), sorted(map(str, directories)), list(map(str, files)))


def _regular_files(root: Path) -> Iterator[Path]:
    """Readable files below a directory, sorted within each; what was added to the library and giants are left out."""
    for directory, below, names in os.walk(root):
        below[:] = sorted(set(below) - _ADDED)
        for name in sorted(names):
            path = Path(directory, name)
            regular = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
            if regular and path.stat().st_size <= _LARGEST:
                yield path


def rows(places: Sequence[Place], plan: Plan) -> Iterator[Row]:
    """A row for each round and place; `per_s` is files per second."""
    tree = library(plan.tree_files)
    for _ in range(plan.tree_rounds):
        for place in places:
            yield _measure(place, tree)


def _measure(place: Place, tree: Tree) -> Row:
    row = row_of(place, CASE)
    try:
        found = cell.run(place, lambda _, start: _work(place, tree, start), len(tree.files) / 500).results[0]
    except CellError as error:
        return row.unmeasured(str(error))
    return dataclasses.replace(
        row.timed(found.samples),
        per_s=round(len(found.samples) / found.elapsed_ns * 1e9, 1),
        mb_per_s=round(found.size / found.elapsed_ns * 1e3, 1),
        ipc_per_operation=round(found.calls / len(found.samples), 4) or None,
        note=f"from {found.source}",
    )


def _work(place: Place, tree: Tree, start: Start) -> Copied:
    session = place.session()
    make_root(session, place)
    source, root = _source(session, tree)
    target = f"{place.root}/tree"
    start()
    calls, began = session.made(), time.perf_counter_ns()
    samples, size = copy(source, root, session.calls, target, tree)
    elapsed, calls = time.perf_counter_ns() - began, session.made() - calls
    session.calls.remove(target)
    where = "the host, read with os" if source is HOST else f"{HOST_MOUNT}, within hmk"
    return Copied(samples, elapsed, size, calls, where)


def _source(session: Session, tree: Tree) -> tuple[Calls, str]:
    """With what to read the tree, and where it is then."""
    if HOST_MOUNT in session.mounts:
        within = HOST_MOUNT + tree.root
        try:
            session.calls.stat(f"{within}/{tree.files[0]}")
            return session.calls, within
        except OSError:
            pass
    return HOST, tree.root


def copy(source: Calls, root: str, calls: Calls, target: str, tree: Tree) -> tuple[array[int], int]:
    """Copy directories and files; nanoseconds per file, and bytes in all."""
    clock, samples, size = time.perf_counter_ns, array("q"), 0
    calls.mkdir(target)
    for name in tree.directories:
        calls.mkdir(f"{target}/{name}")
    for name in tree.files:
        before = clock()
        size += calls.write_bytes(f"{target}/{name}", source.read_bytes(f"{root}/{name}"))
        samples.append(clock() - before)
    return samples, size
