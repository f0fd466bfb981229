"""Message transports of the host: UNIX seqpacket sockets, POSIX and SysV message queues.

A record is one message where the host admits messages that long; otherwise it is a run of full messages
ended by a shorter one (empty, if need be), as a user would have to do it, and the row says so. Queue limits
are raised only in an IPC namespace of the cell's own, so that the host's limits are never touched.

POSIX queues lose their name as soon as they exist. SysV queues have keys made from the cell's token, so
that `sweep` finds them even when the cell was killed.
"""

from __future__ import annotations

import contextlib
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers.harness import Cell, End, Link, PairLink, Peer, Receive, Send
from bench.peers.streams import socket_pair

_LONG_MESSAGE = 65536


def in_messages(send: Send, receive: Receive, limit: int) -> End:
    """Carry records of any length in messages of at most `limit` bytes; a shorter message ends the record."""

    def send_record(record: bytes) -> None:
        for start in range(0, len(record) + 1, limit):
            send(record[start : start + limit])

    def receive_record() -> bytes:
        parts = [receive()]
        while len(parts[-1]) == limit:
            parts.append(receive())
        return b"".join(parts)

    return send_record, receive_record


def _fit(send: Send, receive: Receive, limit: int, cell: Cell) -> End:
    """Use the transport directly when every record is one message."""
    return (send, receive) if cell.payload_bytes <= limit else in_messages(send, receive, limit)


def _note(limit: int, cell: Cell) -> str:
    return f"in messages of {limit} B, the longest admitted" if cell.payload_bytes > limit else ""


@contextlib.contextmanager
def _open_seqpacket(cell: Cell) -> Iterator[Link]:
    with socket_pair(socket.SOCK_SEQPACKET, cell.payload_bytes) as (one, two):
        # The kernel doubles what was asked for, to pay for its own bookkeeping.
        limit = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        ends = [_fit(end.send, _receiver(end, limit, cell), limit, cell) for end in (one, two)]
        yield PairLink(ends[0], ends[1], _note(limit, cell))


def _receiver(sock: socket.socket, limit: int, cell: Cell) -> Receive:
    size = max(1, min(limit, cell.payload_bytes))
    return lambda: sock.recv(size)


def _raise_limit(cell: Cell, name: str, value: int) -> int:
    """Raise a queue limit to `value` if this cell has limits of its own; return the limit that holds."""
    path = Path("/proc/sys") / name
    if cell.private_ipc and int(path.read_text()) < value:
        with contextlib.suppress(OSError):
            path.write_text(str(value))
    return int(path.read_text())


@contextlib.contextmanager
def _open_posix(cell: Cell) -> Iterator[Link]:
    requests, limit = _posix_queue(cell, "requests", cell.payload_bytes)
    replies, limit = _posix_queue(cell, "replies", limit)
    client = _fit(requests.send, lambda: bytes(replies.receive()[0]), limit, cell)
    server = _fit(replies.send, lambda: bytes(requests.receive()[0]), limit, cell)
    yield PairLink(client, server, _note(limit, cell))
    requests.close()
    replies.close()


def _posix_queue(cell: Cell, what: str, longest: int) -> tuple[Any, int]:
    """Create a nameless queue; return it and the longest message it takes, in bytes.

    A user's queues may take only so much memory (RLIMIT_MSGQUEUE): shorter messages are tried after long.
    """
    import posix_ipc

    admitted = _raise_limit(cell, "fs/mqueue/msgsize_max", longest)
    default = int(Path("/proc/sys/fs/mqueue/msgsize_default").read_text())
    for size, depth in ((longest, 1), (_LONG_MESSAGE, 4), (default, 4)):
        length = max(1, min(size, longest, admitted))
        with contextlib.suppress(OSError, posix_ipc.Error):
            queue = posix_ipc.MessageQueue(
                f"/{cell.token}-{what}", posix_ipc.O_CREX, 0o600, max_messages=depth, max_message_size=length
            )
            queue.unlink()
            return queue, length
    raise OSError("no POSIX message queue could be created")


@contextlib.contextmanager
def _open_sysv(cell: Cell) -> Iterator[Link]:
    import sysv_ipc

    limit = _raise_limit(cell, "kernel/msgmax", cell.payload_bytes)
    _raise_limit(cell, "kernel/msgmnb", 2 * limit)
    size = max(1, min(limit, cell.payload_bytes))
    requests, replies = (
        sysv_ipc.MessageQueue(key, sysv_ipc.IPC_CREX, 0o600, max_message_size=size) for key in _keys(cell.token)
    )
    try:
        client = _fit(requests.send, lambda: bytes(replies.receive()[0]), limit, cell)
        server = _fit(replies.send, lambda: bytes(requests.receive()[0]), limit, cell)
        yield PairLink(client, server, _note(limit, cell))
    finally:
        requests.remove()
        replies.remove()


def _keys(token: str) -> tuple[int, int]:
    key = zlib.crc32(token.encode()) & 0x3FFFFFFF
    return 2 * key + 2, 2 * key + 3


def _sweep_sysv(token: str) -> None:
    import sysv_ipc

    for key in _keys(token):
        with contextlib.suppress(sysv_ipc.ExistentialError):
            sysv_ipc.MessageQueue(key).remove()


SEQPACKET = Peer("unix-seqpacket", (), _open_seqpacket)
POSIX_QUEUE = Peer("posix_ipc", ("posix_ipc",), _open_posix)
SYSV_QUEUE = Peer("sysv_ipc", ("sysv_ipc",), _open_sysv, sweep=_sweep_sysv)
