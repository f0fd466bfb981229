"""Byte streams: a pair of pipes, and a UNIX stream socket.

A record is a 4-byte little-endian length and its bytes, written in one system call. The reader takes what
one read gives and reads on until the record is whole: neither side assumes that a write arrives in one
piece. Long records are collected in a buffer that is kept: allocating it anew would cost several times the
transfer. Kernel buffers are enlarged to hold a record as far as the host lets a user do so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from bench.peers.harness import Cell, End, Link, PairLink, Peer, Receive, Send

_HEADER = struct.Struct("<I")
_FIRST_READ = 65536 + _HEADER.size
_JOINED = 4096
_DEFAULT_PIPE = 65536


def framed_send(fd: int) -> Send:
    """Return a function that writes one record to a blocking descriptor."""

    def send(record: bytes) -> None:
        # One write, so that the reader wakes once; joining beats a vector while the record is small.
        header = _HEADER.pack(len(record))
        small = len(record) <= _JOINED
        done = os.write(fd, header + record) if small else os.writev(fd, (header, record))
        if done < _HEADER.size + len(record):
            rest = memoryview(header + record)[done:]
            while rest:
                rest = rest[os.write(fd, rest) :]

    return send


def framed_receive(fd: int) -> Receive:
    """Return a function that reads one record from a blocking descriptor; EOFError at the end of the stream.

    The protocol is strictly request and reply, so that nothing but the rest of this record can follow.
    """
    buffer = bytearray(_FIRST_READ)

    def receive() -> bytes:
        data = _some(fd)
        while len(data) < _HEADER.size:
            data += _some(fd)
        (size,) = _HEADER.unpack_from(data)
        if len(data) == _HEADER.size + size:
            return data[_HEADER.size :]
        if len(buffer) < size:
            buffer.extend(bytes(size - len(buffer)))
        return _rest(fd, memoryview(buffer)[:size], data[_HEADER.size :])

    return receive


def _some(fd: int) -> bytes:
    data = os.read(fd, _FIRST_READ)
    if not data:
        raise EOFError
    return data


def _rest(fd: int, record: memoryview, begun: bytes) -> bytes:
    """Fill `record`, of which `begun` has already come, and return a copy of it."""
    record[: len(begun)] = begun
    done = len(begun)
    while done < len(record):
        count = os.readv(fd, [record[done:]])
        if count == 0:
            raise EOFError
        done += count
    return bytes(record)


@contextlib.contextmanager
def _open_pipes(cell: Cell) -> Iterator[Link]:
    requests, replies = os.pipe(), os.pipe()
    size = min(_grow(fd, cell.payload_bytes + _HEADER.size) for fd in (requests[1], replies[1]))
    client = framed_send(requests[1]), framed_receive(replies[0])
    server = framed_send(replies[1]), framed_receive(requests[0])
    yield PairLink(client, server, f"pipes of {size >> 10} KiB" if size > _DEFAULT_PIPE else "")
    for fd in (*requests, *replies):
        os.close(fd)


def _grow(fd: int, record: int) -> int:
    """Make a pipe hold a whole record if the host admits it; return its size in bytes."""
    largest = int(Path("/proc/sys/fs/pipe-max-size").read_text())
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, min(max(record, _DEFAULT_PIPE), largest))
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


@contextlib.contextmanager
def socket_pair(kind: socket.SocketKind, payload_bytes: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Open a connected pair whose send buffers hold a record of `payload_bytes`, if the host admits it."""
    one, two = socket.socketpair(socket.AF_UNIX, kind)
    with one, two:
        for end in (one, two):
            if 2 * payload_bytes > end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * payload_bytes)
        yield one, two


@contextlib.contextmanager
def _open_stream(cell: Cell) -> Iterator[Link]:
    with socket_pair(socket.SOCK_STREAM, cell.payload_bytes) as (one, two):
        yield PairLink(_end(one), _end(two))


def _end(sock: socket.socket) -> End:
    return framed_send(sock.fileno()), framed_receive(sock.fileno())


PIPE = Peer("os.pipe", (), _open_pipes)
UNIX_STREAM = Peer("unix-stream", (), _open_stream)
