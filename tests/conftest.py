"""Fixtures: systems for one test or for a module, and the rule that nothing outlives a test.

Two checks follow every test:

* pools: once all clients of a system have gone, no stack of a service that only clients call is bound (`Box.settle`);
* residue: no process, no entry of /dev/shm, no abstract socket, no mount and no control group that was not there
  before (`residue.py`).
"""

from __future__ import annotations

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
from tests.systems import FAULTY, Boots, Box, boot_box, living

CONSOLE_SHOWN = 4000
SERVICES_LEFT_ALONE = (
    "faulty",
    "echo",
    "cecho",
    "chain_a",
    "chain_b",
    "chain_c",
    "procmgr",
    "memmgr",
    "devmgr",
    "example",
)


def pytest_collection_finish() -> None:
    """Do once what every system would do at its boot, for it is a fork of this process.

    It imports its services, and goes through all objects that it has of us, a hundred megabytes, for garbage.
    """
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

    def start(base: str = "bench", text: str = "", **options: Any) -> Box:
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
    return system()


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("shared"), "bench", FAULTY)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def shared(_shared: Box) -> Iterator[Box]:
    """A system of `bench` and the service `faulty`, for all tests of a module; each leaves its pools settled."""
    yield _shared
    _shared.settle()
    _shared.children.clear()
    _shared.attached.clear()


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
def residue() -> Iterator[None]:
    """Nothing outlives a test; systems of wider scope are there before it."""
    before = Residue.now()
    yield
    no_residue(before)
