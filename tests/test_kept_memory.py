"""Memory that a service has freed is its own still: it is not cleared anew for each large answer."""

from __future__ import annotations

import resource

from services.memory import keep_freed
from tests.forked import run_forked

ANSWER = 1 << 19


def _pages_touched_by_answers() -> int:
    """Pages that the host cleared while answers of half a mebibyte were put together, a hundred times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        parts = [bytes(ANSWER // 16) for _ in range(16)]
        assert len(b"".join(parts)) == ANSWER
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_large_answers_use_the_same_pages_again() -> None:
    def body() -> int:
        keep_freed()
        return _pages_touched_by_answers()

    assert run_forked(body) < 10 * 2 * ANSWER // 4096
