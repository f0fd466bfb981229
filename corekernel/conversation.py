"""Requests of many threads over one channel: each gets its own answer, whatever the order in which answers come.

A request carries a serial number, and one message with that number answers it, soon or late: the end of a program may
be asked for long before it. So nobody holds a lock while it waits. Of the threads that wait, one is the *reader*: it
receives for all, puts each message down for the thread it is for, and reads on until its own has come; then another
becomes the reader. A message that nobody waits for (its asker was interrupted) is dropped, its descriptors closed.

Under the lock: who waits, and who reads. Only the reader receives. Whoever leaves, with its answer or an exception,
sees to it that there is a reader if anybody waits: so when the channel ends, each learns it from the channel itself.
A signal handler must not ask while the thread it interrupted is the reader: it would wait for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from corekernel.channel import Channel, Message, Received, close_all


class _Question:
    """A request without an answer yet."""

    def __init__(self, lock: threading.RLock) -> None:
        self.answer: Received | None = None
        self.changed = threading.Condition(lock)  # it has been answered, or there is no reader


class Conversation:
    """Asks and is answered; shared by all threads of a process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.RLock()
        self._serial = 0
        self._open: dict[int, _Question] = {}
        self._reader: _Question | None = None

    def ask(self, request: Message, fds: Sequence[int] = ()) -> Received:
        """Send a request and return its answer, with the descriptors that came along.

        Raises:
            Unsendable: it is no message, or too big for one; the others are not concerned.
            ChannelError: the peer has gone, or does not keep to the protocol.
        """
        question = _Question(self._lock)
        with self._lock:
            self._serial += 1
            serial = self._serial
            self._open[serial] = question
        try:
            self._channel.send({**request, "serial": serial}, fds)
            return self._await(question)
        except BaseException:
            if question.answer is not None:  # it came just as its asker was interrupted
                close_all(question.answer[1])
            raise
        finally:
            self._leave(serial)

    def _await(self, question: _Question) -> Received:
        with self._lock:
            while question.answer is None and self._reader is not None:
                question.changed.wait()
            if question.answer is None:
                self._reader = question
        while question.answer is None:
            self._deliver(*self._channel.recv())
        return question.answer

    def _deliver(self, message: Message, fds: list[int]) -> None:
        with self._lock:
            question = self._open.get(message.get("serial", 0))
            if question is None or question.answer is not None:
                close_all(fds)
                return
            question.answer = message, fds
            question.changed.notify()

    def _leave(self, serial: int) -> None:
        with self._lock:
            question = self._open.pop(serial)
            if self._reader is question:
                self._reader = None
            if self._reader is None:
                waiting = next((other for other in self._open.values() if other.answer is None), None)
                if waiting is not None:  # if it is still sending, it will read without being told
                    waiting.changed.notify()
