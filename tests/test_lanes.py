"""Which record a lane has, and who gives one up when there are not enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.lanes import LANE_SHIFT, Lanes

PER_CLIENT, RECORDS = 3, 8


def table() -> Lanes:
    """Nobody's yet."""
    lanes = Lanes(PER_CLIENT)
    for record in range(RECORDS):
        lanes.vacate(record)
    return lanes


def request(lane: int, count: int = 1) -> int:
    """A request's number."""
    return lane << LANE_SHIFT | count


def test_a_lane_keeps_its_record_and_others_have_others() -> None:
    lanes = table()
    first, second = lanes.use(1, request(5)), lanes.use(2, request(5))
    assert first != second
    assert lanes.use(1, request(5, 99)) == lanes.find(1, request(5, 100)) == first
    assert lanes.find(1, request(6)) == lanes.find(3, request(5)) == -1


def test_a_client_with_its_share_gives_up_the_lane_that_it_used_longest_ago() -> None:
    lanes = table()
    for lane in (1, 2, 3, 1):
        lanes.use(7, request(lane))
    lanes.use(7, request(4))
    assert lanes.find(7, request(2)) == -1
    assert all(lanes.find(7, request(lane)) >= 0 for lane in (1, 3, 4))


def test_when_none_is_free_the_client_with_the_most_gives_one_up() -> None:
    lanes = table()
    lanes.use(1, request(1))
    lanes.use(2, request(1))
    for client in (3, 4):
        for lane in range(PER_CLIENT):
            lanes.use(client, request(lane))
    lanes.use(5, request(1))
    assert all(lanes.find(client, request(1)) >= 0 for client in (1, 2, 5))
    assert sorted(lanes) == list(range(RECORDS))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.booleans())))
def test_no_record_is_ever_two_lanes_or_lost(steps: list[tuple[int, int, bool]]) -> None:
    lanes, forgotten = table(), 0
    for client, lane, gone in steps:
        if gone:
            forgotten += len(lanes.forget(client))
            assert client not in lanes.clients()
            continue
        record = lanes.use(client, request(lane))
        assert lanes.find(client, request(lane)) == record
    held = list(lanes)
    assert len(set(held)) == len(held) <= RECORDS
    for lane in range(RECORDS - len(held)):  # whatever nobody has is free
        assert lanes.use(100 + lane, request(0)) not in held
