"""The control channel against a well-behaved peer and a hostile one."""

from __future__ import annotations

import array
import json
import os
import selectors
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corekernel.channel import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE_BYTES,
    MAX_NESTING,
    Channel,
    ChannelClosed,
    ChannelError,
    ChannelFull,
    decode,
    encode,
)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    left, right = Channel.pair()
    with left, right:
        yield left, right


@pytest.fixture
def hostile() -> Iterator[tuple[socket.socket, Channel]]:
    raw, sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with raw, Channel(sock) as channel:
        yield raw, channel


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def send_rights(raw: socket.socket, data: bytes, fds: list[int]) -> None:
    raw.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def test_message_and_descriptors_arrive_in_order(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    files = [os.memfd_create(f"file{i}") for i in range(MAX_DESCRIPTORS)]
    for number, fd in enumerate(files):
        os.write(fd, bytes([number]))
    left.send({"op": "grant", "text": "ünï \ud800"}, files)
    message, received = right.recv()
    assert message == {"op": "grant", "text": "ünï \ud800"}
    assert [os.pread(fd, 1, 0)[0] for fd in received] == list(range(MAX_DESCRIPTORS))
    assert not any(os.get_inheritable(fd) for fd in received)
    for fd in (*files, *received):
        os.close(fd)


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=8)))
def test_what_is_encoded_decodes_to_itself(message: dict[str, object]) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes_decode_to_an_object_or_are_refused(data: bytes) -> None:
    try:
        assert isinstance(decode(data), dict)
    except ChannelError as error:
        assert not isinstance(error, ChannelClosed)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b"{}{}",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * (MAX_NESTING + 1) + b"]" * (MAX_NESTING + 1) + b"}",
        b"[" * 60000,
        b'{"a":' * 12000,
    ],
)
def test_hostile_text_is_refused_and_its_descriptors_closed(
    hostile: tuple[socket.socket, Channel], data: bytes
) -> None:
    raw, channel = hostile
    before = open_fds()
    send_rights(raw, data, [0, 1, 2])
    with pytest.raises(ChannelError) as refusal:
        channel.recv()
    assert not isinstance(refusal.value, ChannelClosed)
    assert open_fds() == before
    raw.send(b'{"still":"works"}')
    assert channel.recv() == ({"still": "works"}, [])


def test_many_brackets_inside_strings_and_siblings_are_not_nesting() -> None:
    message = {"list": [[] for _ in range(500)], "text": '[[[["\\[[[{{{' * 50}
    assert decode(json.dumps(message).encode()) == message


def test_an_oversized_packet_is_refused_whole(hostile: tuple[socket.socket, Channel]) -> None:
    raw, channel = hostile
    before = open_fds()
    send_rights(raw, b'{"a":"' + b"x" * MAX_MESSAGE_BYTES + b'"}', [0])
    with pytest.raises(ChannelError):
        channel.recv()
    assert open_fds() == before


def test_too_many_descriptors_are_refused_and_closed(hostile: tuple[socket.socket, Channel]) -> None:
    raw, channel = hostile
    before = open_fds()
    send_rights(raw, b"{}", [0] * (MAX_DESCRIPTORS + 1))
    with pytest.raises(ChannelError):
        channel.recv()
    assert open_fds() == before


def test_an_empty_packet_with_descriptors_leaks_none(hostile: tuple[socket.socket, Channel]) -> None:
    raw, channel = hostile
    before = open_fds()
    send_rights(raw, b"", [0, 1])
    with pytest.raises(ChannelClosed):
        channel.recv()
    assert open_fds() == before


@pytest.mark.parametrize("message", [{"a": object()}, {"a": float("nan")}, {"a": "x" * MAX_MESSAGE_BYTES}])
def test_what_cannot_be_sent_is_refused_by_the_sender(
    ends: tuple[Channel, Channel], message: dict[str, object]
) -> None:
    with pytest.raises(ChannelError):
        ends[0].send(message)
    assert ends[1].recv_nowait() is None


def test_the_sender_refuses_too_many_descriptors(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(ChannelError):
        ends[0].send({}, [0] * (MAX_DESCRIPTORS + 1))


def test_a_peer_that_does_not_read_makes_send_nowait_fail(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    sent = 0
    with pytest.raises(ChannelFull):
        while True:
            left.send_nowait({"n": sent, "pad": "x" * 8000})
            sent += 1
    received = 0
    while (got := right.recv_nowait()) is not None:
        assert got[0]["n"] == received
        received += 1
    assert received == sent > 0
    left.send_nowait({"n": "again"})
    assert right.recv()[0] == {"n": "again"}


def test_end_of_file_and_a_dead_peer_are_channel_closed(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    right.close()
    with pytest.raises(ChannelClosed):
        left.recv()
    with pytest.raises(ChannelClosed):
        left.send({})


def test_a_peer_that_leaves_messages_unread_is_channel_closed(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.send({"never": "read"})
    right.close()
    with pytest.raises(ChannelClosed):
        left.recv()


def test_recv_gives_up_after_its_timeout(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(TimeoutError):
        ends[0].recv(timeout=0.01)


def test_a_selector_sees_a_message(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    with selectors.DefaultSelector() as selector:
        selector.register(right, selectors.EVENT_READ)
        assert selector.select(0) == []
        left.send({})
        assert [key.fileobj for key, _ in selector.select(0)] == [right]


def test_peer_credentials_and_pidfd_name_the_connecting_process() -> None:
    name = f"\0hmk-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(name)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                    sock.connect(name)
                    sock.recv(1)
            finally:
                os._exit(0)
        accepted, _ = listener.accept()
    with Channel(accepted) as channel:
        peer = channel.peer()
        assert (peer.pid, peer.uid, peer.gid) == (pid, os.getuid(), os.getgid())
        pidfd = channel.peer_pidfd()
        assert (pidfd is None) == (tuple(map(int, os.uname().release.split(".")[:2])) < (6, 5))
        if pidfd is not None:
            with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
                assert f"Pid:\t{pid}\n" in info.read()
            assert not os.get_inheritable(pidfd)
            os.close(pidfd)
    assert os.waitpid(pid, 0) == (pid, 0)


def test_detach_gives_the_socket_away(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    with Channel(left.detach()) as moved:
        moved.send({"moved": True})
    assert right.recv()[0] == {"moved": True}
