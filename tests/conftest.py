"""Fixtures: systems for one test or for a module, and the rule that nothing outlives a test.

Two checks follow every test:

* pools: once all clients of a system have gone, no stack of a service that only clients call is bound (`Box.settle`);
* residue: no process, no entry of /dev/shm, no abstract socket, no mount and no control group that was not there
  before (`residue.py`).
"""

from __future__ import annotations

import compileall
import contextlib
import gc
import importlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from corekernel import boot, composition, namespaces
from tests.callers import MEGABYTE
from tests.residue import Residue, no_residue
from tests.systems import ECHOES, FAULTY, Boots, Box, Keeps, boot_box, living

CONSOLE_SHOWN = 4000
COMPILED = ("corekernel", "services", "shim", "bench")
SERVICES_LEFT_ALONE = ("faulty", "echo", "cecho", "chain_a", "chain_b", "chain_c", "procmgr", "memmgr", "example")


def pytest_collection_finish() -> None:
    """Do once what every process of the tests would do at its start.

    A system is a fork of this process: it imports its services, and goes through all objects that it has of us for
    garbage. A command or a program is a new interpreter, which would compile what it imports where nobody keeps that.
    """
    for part in COMPILED:
        compileall.compile_dir(boot.ROOT / part, quiet=2)
    compileall.compile_file(boot.ROOT / "launcher.py", quiet=2)
    for name in boot.preload_modules(composition.load("bench")):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure, show the end of the console of every system that is up."""
    report = yield
    if report.failed:
        for box in living:
            with contextlib.suppress(Exception):
                report.sections.append((f"console of {box.name}", box.log()[-CONSOLE_SHOWN:]))
    return report


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Boots]:
    """Boots systems for one test; they are killed when it ends, after their pools were seen to settle."""
    boxes: list[Box] = []

    def start(base: str = ECHOES, text: str = "", **options: Any) -> Box:
        boxes.append(boot_box(tmp_path, base, text, **options))
        return boxes[-1]

    try:
        yield start
        for box in boxes:
            box.settle()
    finally:
        for box in boxes:
            box.close()


@pytest.fixture
def bench(system: Boots) -> Box:
    """A system of the composition `bench` for one test."""
    return system("bench")


@pytest.fixture
def echoes(system: Boots) -> Box:
    """A system with the two echo services for one test."""
    return system()


@pytest.fixture(scope="module")
def _kept() -> Iterator[dict[tuple[str, str], Box]]:
    boxes: dict[tuple[str, str], Box] = {}
    try:
        yield boxes
    finally:
        for box in boxes.values():
            box.close()


@pytest.fixture
def kept(_kept: dict[tuple[str, str], Box], residue: Residue, tmp_path: Path) -> Iterator[Keeps]:
    """Boots systems that stay for the other tests of a module; each test leaves the pools settled.

    For tests to which it is all the same what was called before them. After one that leaves its pools unsettled the
    next gets a new system.
    """
    used: set[tuple[str, str]] = set()

    def get(text: str = "", base: str = ECHOES) -> Box:
        if (base, text) not in _kept:
            with residue.admitting():
                _kept[base, text] = boot_box(tmp_path, base, text)
        used.add((base, text))
        return _kept[base, text]

    yield get
    try:
        for key in used:
            _kept[key].settle()
            _kept[key].forget_clients()
    except BaseException:
        for key in used:
            _kept.pop(key).close()
        raise


@pytest.fixture
def shared(kept: Keeps) -> Box:
    """A system of `bench` and the service `faulty`, for all tests of a module."""
    return kept(FAULTY, "bench")


@pytest.fixture
def unharmed(shared: Box) -> Any:
    """The shared system; afterwards every service is the process it was before, and serves."""
    before = {name: shared.pid(name) for name in SERVICES_LEFT_ALONE}
    yield shared
    assert {name: shared.pid(name) for name in SERVICES_LEFT_ALONE} == before
    system = shared.attach()
    assert system.client("chain_a").chain(3) == 3
    assert system.client("echo").echo(MEGABYTE) == MEGABYTE


@pytest.fixture(scope="session", autouse=True)
def _subreaper() -> Iterator[None]:
    namespaces.adopt_orphans()
    before = Residue.now()
    yield
    no_residue(before)


@pytest.fixture(autouse=True)
def residue() -> Iterator[Residue]:
    """Nothing outlives a test but systems of wider scope, which are there before it or are admitted."""
    before = Residue.now()
    yield before
    no_residue(before)
