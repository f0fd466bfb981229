"""A client that speaks to the core by hand, message by message."""

from __future__ import annotations

from typing import Any

from corekernel.channel import Channel, close_all
from corekernel.dispatcher import ABI_VERSION
from tests.systems import Box, raw_connection


def greeted(box: Box) -> Channel:
    """A connection that has said who it is and nothing else."""
    channel = raw_connection(box.name)
    channel.send({"do": "attach", "abi": ABI_VERSION, "name": "raw"})
    assert "error" not in channel.recv(10)[0]
    return channel


def answer(channel: Channel, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request; descriptors that come along are closed."""
    channel.send({**request, "serial": 77})
    reply, fds = channel.recv(10)
    close_all(fds)
    assert reply["serial"] == 77
    return reply


def lives(box: Box) -> None:
    """The core answers, and calls work."""
    system = box.attach()
    assert system.client("echo").echo(b"still here") == b"still here"
    system.close()
