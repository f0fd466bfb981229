"""Memory limits where the host has no memory control group: what uses too much is found, and then killed.

The core looks at every program and its descendants from time to time (`corekernel.programs`); each process is
measured alone: memory of its own, shared memory that it has touched, and what of it is swapped out, files not. A
process over the limit of its program is killed, nobody else is. That is detection, not enforcement: between two looks
it may have more, a program may spread over many processes, and one that has left its ancestors is not seen.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

_COUNTED = ("RssAnon", "RssShmem", "VmSwap")


def _status(host_pid: int) -> dict[str, str]:
    """/proc/PID/status; empty when there is no such process any more."""
    try:
        lines = Path(f"/proc/{host_pid}/status").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {key: value for key, _, value in (line.partition(":") for line in lines)}


def _used(status: dict[str, str]) -> int:
    return sum(int(status[key].split()[0]) << 10 for key in _COUNTED if key in status)


def used(host_pid: int) -> int:
    """Bytes that count against the limit of one process, by its pid in the host's /proc; 0 when it has ended."""
    return _used(_status(host_pid))


def family(host_pid: int) -> Iterator[int]:
    """A process and its living descendants, by their pids in the host's /proc."""
    waiting = [host_pid]
    while waiting:
        pid = waiting.pop()
        yield pid
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting.extend(map(int, path.read_text().split()))
            except (FileNotFoundError, ProcessLookupError):
                continue  # that thread has just ended


def kill_excess(host_pid: int, limit: int) -> int:
    """Kill each process of a family that uses more than `limit` bytes; how many."""
    return sum(_killed(pid, limit) for pid in family(host_pid) if used(pid) > limit)


def _killed(host_pid: int, limit: int) -> bool:
    status = _status(host_pid)
    if not status:
        return False
    try:
        pidfd = os.pidfd_open(int(status["NSpid"].split()[-1]))
    except ProcessLookupError:
        return False
    try:
        # Looked at once more: the pid may have passed to another process before the pidfd held it.
        if over := used(host_pid) > limit:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return over
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
