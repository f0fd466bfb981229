"""The file system against the host's: the same steps on a tmpfs and on a running system, with the same answers.

Sequences are made from seeds, always the same ones. `tests/differential` has the operations, and the list of
differences that are permitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.differential.sides import Side, both, both_sides, campaign
from tests.differential.steps import LOWER_UID, OPERATIONS, Step
from tests.forked import as_root
from tests.systems import Keeps

pytestmark = pytest.mark.skipif(not as_root, reason="only root can make a tmpfs its root")
OPEN_TO_ALL = """
[system]
attach = "anyone"
"""
EXAMPLES = settings(max_examples=80, stateful_step_count=50, derandomize=True, deadline=None, database=None)
ALONE, CROWD = (0,), (0, LOWER_UID, 0, LOWER_UID)
Sides = tuple[Side, Side]


@pytest.fixture
def sides(kept: Keeps, request: pytest.FixtureRequest) -> Iterator[Sides]:
    """Clients on each side, of the user ids that the test names."""
    uids: tuple[int, ...] = request.param
    host, hmk = both_sides(kept(OPEN_TO_ALL, "default").name, uids)
    try:
        yield host, hmk
    finally:
        host.close()
        hmk.close()


@pytest.mark.parametrize("sides", [ALONE], indirect=True, ids=["root"])
def test_root_alone(sides: Sides) -> None:
    assert campaign(*sides, (f"alone {number}" for number in range(80)), clients=1, longest=50) > 2000


@pytest.mark.parametrize("sides", [CROWD], indirect=True, ids=["two-users"])
def test_four_clients_of_two_users(sides: Sides) -> None:
    assert campaign(*sides, (f"crowd {number}" for number in range(80)), clients=4, longest=60) > 3000


@pytest.mark.parametrize("sides", [CROWD], indirect=True, ids=["two-users"])
def test_whatever_hypothesis_does_with_four_clients(sides: Sides) -> None:
    host, hmk = sides

    class Clients(RuleBasedStateMachine):
        """It chooses client, operation and arguments, and makes a failing sequence short."""

        @initialize()
        def begin(self) -> None:
            host.fresh()
            hmk.fresh()

        @rule(
            client=st.integers(0, len(CROWD) - 1),
            name=st.sampled_from(sorted(OPERATIONS.keys() - {"fallocate"})),  # what it reserves may count as data
            random=st.randoms(use_true_random=False),
        )
        def step(self, client: int, name: str, random: Random) -> None:
            self.compare(Step(client, name, tuple(draw(random) for draw in OPERATIONS[name])))

        def compare(self, step: Step) -> None:
            expected, got, right = both(host, hmk, step)
            assert right, (step, expected, got)

        def teardown(self) -> None:
            self.compare(Step(0, "tree", ()))

    run_state_machine_as_test(Clients, settings=EXAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sides", [ALONE], indirect=True, ids=["root"])
def test_root_alone_at_length(sides: Sides) -> None:
    campaign(*sides, (f"alone at length {number}" for number in range(2000)), clients=1, longest=150)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sides", [CROWD], indirect=True, ids=["two-users"])
def test_four_clients_of_two_users_at_length(sides: Sides) -> None:
    campaign(*sides, (f"crowd at length {number}" for number in range(2000)), clients=4, longest=150)
