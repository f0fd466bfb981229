"""Control channel: JSON objects and descriptors over one AF_UNIX SOCK_SEQPACKET socket.

Protocol: one packet is one message, a JSON object of at most `MAX_MESSAGE_BYTES` in UTF-8, with at most
`MAX_DESCRIPTORS` descriptors as SCM_RIGHTS. The channel carries what happens a few times per binding (grants,
spawns, births, deaths); calls never pass here.

Invariants:

* The peer is hostile. A packet is received once, whole, then checked: size, nesting, syntax, type. Whatever
  is refused raises `ChannelError`, and every descriptor that came with it is closed before the error is seen.
* Received descriptors are close-on-exec from the first instant (MSG_CMSG_CLOEXEC).
* Packets are atomic and a channel keeps no state, so any thread may send, and a refused packet leaves the
  channel usable. An empty packet cannot be told from end of file, and is taken as one.
* `send` may wait for the peer. Whoever serves many peers uses `send_nowait`, so that one that does not read
  costs only itself.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import math
import os
import re
import select
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, TypeAlias

from corekernel.errors import CallError, HmkError, TooBig

MAX_MESSAGE_BYTES = 64 << 10
MAX_DESCRIPTORS = 16
MAX_NESTING = 32

Message: TypeAlias = dict[str, Any]
Received: TypeAlias = tuple[Message, list[int]]

_SO_PEERPIDFD = 77
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
_UCRED = struct.Struct("iII")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED}


class ChannelError(HmkError):
    """A message was refused (by us: malformed; by the host: the text says why). No descriptor leaked."""


class ChannelClosed(ChannelError):
    """The peer has gone, or closed its end."""


class ChannelFull(ChannelError):
    """The peer does not read: nothing was sent."""


class Unsendable(ChannelError, CallError):
    """What was to be sent is no message: nothing was sent, and the channel goes on working."""


class MessageTooBig(Unsendable, TooBig):
    """What was to be sent exceeds `MAX_MESSAGE_BYTES` or `MAX_DESCRIPTORS`."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who connected, as the host recorded it; ids are seen from the reader's own namespaces."""

    pid: int
    uid: int
    gid: int


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:32]} is out of range")
    return number


_encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode_json = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant).decode


def _too_deep(data: bytes) -> bool:
    # The JSON scanner recurses in C, and a thread may stand on a 256 KiB stack: bound the depth beforehand.
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_NESTING:
            return True
    return False


def encode(message: Message) -> bytes:
    """Return `message` as one packet; `Unsendable` when it is not JSON or exceeds `MAX_MESSAGE_BYTES`."""
    try:
        data = _encode_json(message).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise Unsendable(f"message cannot be sent: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageTooBig(f"message of {len(data)} bytes exceeds {MAX_MESSAGE_BYTES}")
    return data


def decode(data: bytes) -> Message:
    """Return the object in one packet from a hostile peer; `ChannelError` for anything else."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise ChannelError(f"message exceeds {MAX_MESSAGE_BYTES} bytes")
    if _too_deep(data):
        raise ChannelError(f"message nested deeper than {MAX_NESTING}")
    try:
        message = _decode_json(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"malformed message: {error}") from error
    if not isinstance(message, dict):
        raise ChannelError(f"message is a {type(message).__name__}, not an object")
    return message


def _host_error(error: OSError) -> ChannelError:
    if isinstance(error, BlockingIOError):
        return ChannelFull("the peer does not read")
    if error.errno in _GONE:
        return ChannelClosed("the peer has gone")
    return ChannelError(f"channel: {error.strerror}")


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    received = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    return list(received)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody will use."""
    for fd in fds:
        os.close(fd)


class Channel:
    """One end of a control channel; owns its socket."""

    def __init__(self, sock: socket.socket | int) -> None:
        """Take over a connected SOCK_SEQPACKET socket, or its descriptor."""
        if isinstance(sock, int):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=sock)
        sock.setblocking(True)
        self._sock = sock

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, both close-on-exec."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message and copies of `fds`, waiting while the peer's queue is full.

        Raises:
            ChannelClosed: the peer has gone.
            Unsendable: not JSON, too big, or more than 16 descriptors.
            ChannelError: a bad descriptor.
        """
        self._send(message, fds, 0)

    def send_nowait(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Like `send`, but raise `ChannelFull` instead of waiting."""
        self._send(message, fds, socket.MSG_DONTWAIT)

    def _send(self, message: Message, fds: Sequence[int], flags: int) -> None:
        data = encode(message)
        if len(fds) > MAX_DESCRIPTORS:
            raise MessageTooBig(f"{len(fds)} descriptors exceed {MAX_DESCRIPTORS}")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], rights, flags | socket.MSG_NOSIGNAL)
        except OSError as error:
            raise _host_error(error) from error

    def recv(self, timeout: float | None = None) -> Received:
        """Return the next message and its descriptors, which the caller now owns.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            ChannelClosed: end of file.
            ChannelError: the packet was refused; its descriptors are closed and the channel still works.
            TimeoutError: nothing came in time.
        """
        if timeout is not None and not self._readable(timeout):
            raise TimeoutError(f"no message within {timeout} s")
        return self._recv(0)

    def recv_nowait(self) -> Received | None:
        """Like `recv`, but return None when nothing has come."""
        try:
            return self._recv(socket.MSG_DONTWAIT)
        except ChannelFull:
            return None

    def _readable(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def _recv(self, flags: int) -> Received:
        try:
            data, ancillary, result, _ = self._sock.recvmsg(
                MAX_MESSAGE_BYTES, _ANCILLARY_BYTES, flags | socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise _host_error(error) from error
        fds = _descriptors(ancillary)
        try:
            if result & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ChannelError("message or its descriptors exceed the limit")
            if not data:
                raise ChannelClosed("the peer closed the channel")
            return decode(data), fds
        except ChannelError:
            close_all(fds)
            raise

    def peer(self) -> Credentials:
        """Credentials of whoever made the other end.

        Of a connected socket that is the process that connected or listened; of a `pair` it is whoever made
        the pair, on both ends.
        """
        raw = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return Credentials(*_UCRED.unpack(raw))

    def peer_pidfd(self) -> int | None:
        """A pidfd of the process in `peer()`, immune to reuse of its pid; None before Linux 6.5.

        Raises:
            ChannelClosed: that process has already been reaped.
        """
        try:
            fd = self._sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
        except OSError as error:
            if error.errno == errno.ENOPROTOOPT:
                return None
            raise ChannelClosed("the peer has gone") from error
        os.set_inheritable(fd, False)
        return fd

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._sock.fileno()

    def detach(self) -> int:
        """Give up the socket without closing it; return its descriptor."""
        return self._sock.detach()

    def hang_up(self) -> None:
        """End the connection for both sides, and close this one; whoever polls it here wakes up."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Close this end; idempotent."""
        self._sock.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
