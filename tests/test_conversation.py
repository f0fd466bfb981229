"""Many threads ask over one channel: each gets its own answer, and none waits for another's."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from corekernel.channel import MAX_MESSAGE_BYTES, Channel, ChannelClosed, MessageTooBig, Unsendable, close_all
from corekernel.conversation import Conversation

PATIENCE = 20.0


class Peer:
    """The other end, and threads that ask it; `ended` tells how each ends: (text, reply or error)."""

    def __init__(self) -> None:
        ours, self.channel = Channel.pair()
        self.conversation = Conversation(ours)
        self.ended: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._ours = ours
        self._threads: list[threading.Thread] = []

    def asks(self, text: str) -> int:
        """Have a further thread ask; the serial number of its request, which has come."""

        def ask() -> None:
            try:
                reply, fds = self.conversation.ask({"text": text})
                close_all(fds)
                self.ended.put((text, reply["to"]))
            except Exception as error:
                self.ended.put((text, error))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        self._threads.append(thread)
        message, _ = self.channel.recv(PATIENCE)
        assert message["text"] == text
        return int(message["serial"])

    def answer(self, serial: int, text: str, fds: tuple[int, ...] = ()) -> None:
        self.channel.send({"serial": serial, "to": text}, fds)

    def hears(self) -> tuple[str, Any]:
        """How the next one ends."""
        return self.ended.get(timeout=PATIENCE)

    def close(self) -> None:
        self.channel.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._ours.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def test_answers_find_who_asked_whatever_their_order(peer: Peer) -> None:
    serials = {text: peer.asks(text) for text in "abcdefgh"}
    for text in "cahgbedf":
        peer.answer(serials[text], text)
        assert peer.hears() == (text, text)


def test_who_waits_long_keeps_nobody_who_asks_after_it(peer: Peer) -> None:
    long = peer.asks("long")
    for text in ("one", "two", "three"):
        peer.answer(peer.asks(text), text)
        assert peer.hears() == (text, text)
    peer.answer(long, "long")
    assert peer.hears() == ("long", "long")


def test_another_reads_on_when_the_reader_has_its_answer(peer: Peer) -> None:
    serials = [peer.asks(str(number)) for number in range(10)]
    for number, serial in enumerate(serials):  # the reader of the moment is always the one that is answered
        peer.answer(serial, str(number))
        assert peer.hears() == (str(number), str(number))


def test_all_who_wait_learn_that_the_peer_has_gone(peer: Peer) -> None:
    for text in "abcde":
        peer.asks(text)
    peer.channel.close()
    ends = dict(peer.hears() for _ in range(5))
    assert set(ends) == set("abcde")
    assert all(isinstance(end, ChannelClosed) for end in ends.values())


def test_what_nobody_waits_for_is_dropped_with_its_descriptors(peer: Peer) -> None:
    serial = peer.asks("asked")
    before = len(os.listdir("/proc/self/fd"))
    for wrong in (serial + 1, 0, -1):
        peer.answer(wrong, "nobody", (0, 1, 2))
    peer.answer(serial, "asked")
    assert peer.hears() == ("asked", "asked")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("sent", [{"text": "x" * MAX_MESSAGE_BYTES}, {"text": b"bytes"}], ids=["too big", "not JSON"])
def test_what_cannot_be_sent_concerns_nobody_else(peer: Peer, sent: dict[str, Any]) -> None:
    waiting = peer.asks("waiting")
    with pytest.raises(MessageTooBig if isinstance(sent["text"], str) else Unsendable):
        peer.conversation.ask(sent)
    peer.answer(peer.asks("next"), "next")
    assert peer.hears() == ("next", "next")
    peer.answer(waiting, "waiting")
    assert peer.hears() == ("waiting", "waiting")


class Interrupted(Exception):
    """Raised by a signal handler."""


def interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def test_another_reads_on_when_the_reader_is_interrupted(peer: Peer) -> None:
    before = signal.signal(signal.SIGUSR1, interrupt)
    serials: queue.SimpleQueue[int] = queue.SimpleQueue()

    def meanwhile() -> None:
        message, _ = peer.channel.recv(PATIENCE)  # the main thread has asked, and is the reader
        serials.put(int(message["serial"]))
        serials.put(peer.asks("follower"))
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=meanwhile)
    thread.start()
    try:
        with pytest.raises(Interrupted):
            peer.conversation.ask({"text": "reader"})
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    late, follower = serials.get(), serials.get()
    held = len(os.listdir("/proc/self/fd"))
    peer.answer(late, "reader", (0, 1))
    peer.answer(follower, "follower")
    assert peer.hears() == ("follower", "follower")
    assert len(os.listdir("/proc/self/fd")) == held
