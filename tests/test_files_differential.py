"""The file system against the host's: the same steps on a tmpfs and on a running system, with the same answers.

Sequences are generated, always the same ones. `tests/differential` has the operations, and the list of differences that
are permitted.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.differential.sides import Side, hmk_side, host_side, run
from tests.differential.steps import LOWER_UID, Step, sequences
from tests.forked import as_root
from tests.systems import Box, boot_box

pytestmark = pytest.mark.skipif(not as_root, reason="only root can make a tmpfs its root")
OPEN_TO_ALL = """
[system]
attach = "anyone"
"""
Sides = tuple[Side, Side]
_quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
quick = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=_quiet)
long = settings(quick, max_examples=1500)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A system that any user may attach to."""
    box = boot_box(tmp_path_factory.mktemp("differential"), "default", OPEN_TO_ALL)
    try:
        yield box
    finally:
        box.close()


def _sides(box: Box, uids: tuple[int, ...]) -> Iterator[Sides]:
    host, hmk = host_side(uids), hmk_side(box.name, uids)
    try:
        yield host, hmk
    finally:
        host.close()
        hmk.close()
    box.settle()


@pytest.fixture
def alone(box: Box) -> Iterator[Sides]:
    """One client, user id 0, on each side."""
    yield from _sides(box, (0,))


@pytest.fixture
def crowd(box: Box) -> Iterator[Sides]:
    """Four clients on each side: two of user id 0, two of another."""
    yield from _sides(box, (0, LOWER_UID, 0, LOWER_UID))


@quick
@given(sequences(clients=1, longest=40))
def test_root_alone(alone: Sides, steps: list[Step]) -> None:
    run(*alone, steps, 1)


@quick
@given(sequences(clients=4, longest=40))
def test_several_clients_of_two_users(crowd: Sides, steps: list[Step]) -> None:
    run(*crowd, steps, 4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@long
@given(sequences(clients=1, longest=80))
def test_root_alone_at_length(alone: Sides, steps: list[Step]) -> None:
    run(*alone, steps, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@long
@given(sequences(clients=4, longest=80))
def test_several_clients_at_length(crowd: Sides, steps: list[Step]) -> None:
    run(*crowd, steps, 4)
