"""Peers that are libraries: multiprocessing.Connection, pyzmq and iceoryx2, used as their documentation does.

multiprocessing and pyzmq (REQ/REP over an abstract UNIX address) leave nothing named on the host. iceoryx2
names shared-memory objects and files; they get the cell's token as prefix and directory, and `sweep` removes
them.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers.harness import Call, Cell, Link, PairLink, Peer, PeerError

_ATTACH_S = 10.0


@contextlib.contextmanager
def _open_connection(cell: Cell) -> Iterator[Link]:
    one, two = multiprocessing.Pipe()
    with one, two:
        yield PairLink((one.send_bytes, one.recv_bytes), (two.send_bytes, two.recv_bytes))


class _ZmqLink(Link):
    """Each side makes its own context, after the fork, as ZeroMQ demands."""

    def __init__(self, address: str) -> None:
        self.address = address

    def serve(self) -> None:
        import zmq

        with zmq.Context() as context, context.socket(zmq.REP) as sock:
            sock.bind(self.address)
            while True:
                sock.send(sock.recv())

    def connect(self) -> Call:
        import zmq

        sock = zmq.Context().socket(zmq.REQ)
        sock.setsockopt(zmq.RECONNECT_IVL, 5)
        sock.connect(self.address)

        def call(payload: bytes) -> bytes:
            sock.send(payload)
            return bytes(sock.recv())

        return call


@contextlib.contextmanager
def _open_zmq(cell: Cell) -> Iterator[Link]:
    yield _ZmqLink(f"ipc://@{cell.token}")


class _IceoryxLink(Link):
    """Request-response with loaned slices of bytes.

    This interface of iceoryx2 has no blocking receive: both sides poll. Where the two may share a CPU a poll
    that finds nothing yields, without which each call would cost a whole time slice.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.yields = cell.placement.shared
        self.note = "polls on both sides" + (", yields after each miss" if self.yields else "")

    def _service(self) -> Any:
        import iceoryx2 as iox

        iox.set_log_level(iox.LogLevel.Fatal)
        config = iox.config.default()
        config.global_cfg.root_path = iox.Path.new(_directory(self.cell.token))
        config.global_cfg.prefix = iox.FileName.new(self.cell.token)
        builder = iox.NodeBuilder.new().config(config).signal_handling_mode(iox.SignalHandlingMode.Disabled)
        self.node = builder.create(iox.ServiceType.Ipc)
        octets = iox.Slice[ctypes.c_uint8]
        name = self.node.service_builder(iox.ServiceName.new("echo"))
        return name.request_response(octets, octets).open_or_create()

    def serve(self) -> None:
        service = self._service()
        server = service.server_builder().initial_max_slice_len(max(1, self.cell.payload_bytes)).create()
        while True:
            request = server.receive()
            if request is None:
                if self.yields:
                    os.sched_yield()
                continue
            size = request.payload().len()
            reply = request.loan_slice_uninit(size)
            ctypes.memmove(reply.payload_ptr, request.payload_ptr, size)
            reply.assume_init().send()
            request.delete()

    def connect(self) -> Call:
        service = self._service()
        client = service.client_builder().initial_max_slice_len(max(1, self.cell.payload_bytes)).create()
        end = time.monotonic() + _ATTACH_S
        while service.dynamic_config.number_of_servers < 1:
            if time.monotonic() > end:
                raise PeerError("the iceoryx2 server did not appear")
            os.sched_yield()

        def call(payload: bytes) -> bytes:
            request = client.loan_slice_uninit(len(payload))
            ctypes.memmove(request.payload_ptr, payload, len(payload))
            pending = request.assume_init().send()
            while (response := pending.receive()) is None:
                if self.yields:
                    os.sched_yield()
            reply = ctypes.string_at(response.payload_ptr, response.payload().len())
            response.delete()
            pending.delete()
            return reply

        return call


@contextlib.contextmanager
def _open_iceoryx(cell: Cell) -> Iterator[Link]:
    yield _IceoryxLink(cell)


def _directory(token: str) -> str:
    return os.path.join(tempfile.gettempdir(), token)


def _sweep_iceoryx(token: str) -> None:
    shutil.rmtree(_directory(token), ignore_errors=True)
    for path in Path("/dev/shm").glob(f"{token}*"):
        path.unlink(missing_ok=True)


CONNECTION = Peer("mp.Connection", (), _open_connection)
ZMQ = Peer("pyzmq", ("zmq",), _open_zmq)
ICEORYX = Peer("iceoryx2", ("iceoryx2",), _open_iceoryx, sweep=_sweep_iceoryx)
