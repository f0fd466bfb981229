"""Sessions: one generation of one service as this process reaches it, and the links its threads hold to it."""

from __future__ import annotations

import os
import threading

from corekernel.dispatcher import Link, WaitPolicy
from corekernel.errors import TooBig
from corekernel.shared import MAX_SLOTS, Frames


class Session:
    """One generation of one service, as this process reaches it."""

    def __init__(self, service: str, generation: int, polled: bool, fd: int) -> None:
        self.service = service
        self.generation = generation
        self.polled = polled
        self._lock = threading.Lock()
        try:
            self.frames = Frames(fd)
        finally:
            os.close(fd)
        self._spare: list[Link] = []
        self._next = 0

    def take(self, policy: WaitPolicy) -> tuple[Link, bool]:
        """A link for the calling thread, and whether it has been bound before."""
        with self._lock:
            for place, link in enumerate(self._spare):
                if link.ready():  # an abandoned call may still be running on it
                    del self._spare[place]
                    return link, True
            if self._next >= MAX_SLOTS:
                raise TooBig(f"{self.service}: all {MAX_SLOTS} slots of this process are in use")
            index, self._next = self._next, self._next + 1
        return Link(self.frames, index, policy, self.polled), False

    def end(self) -> None:
        """End every call in flight, as the core does when the service dies."""
        for index in range(self._next):
            self.frames.kill(index)

    def give_back(self, link: Link) -> None:
        """Take a link back from a thread that ended."""
        self._spare.append(link)  # atomic: a finalizer must not wait for a lock its own thread may hold


class Held:
    """The links of one thread to one session; they go back when the thread ends."""

    __slots__ = ("links", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.links: list[Link] = []

    def __del__(self) -> None:
        for link in self.links:
            self.session.give_back(link)
