"""What any client may ask of the core: `open`, `bind`, `buffer`, `token`.

A client may `open` a service that it may call (and gets the frames object), `bind` stacks to slots (in several services
with one request, each with its own result), ask for a `buffer` for large payloads, or for a read-only `token`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from corekernel.attachment import SMALLEST_BUFFER, SessionDied
from corekernel.channel import Message
from corekernel.errors import Denied, HmkError, NoSuchService, TooBig
from corekernel.objects import KernelObject, Kind, Rights
from corekernel.owner import Request
from corekernel.port import MAX_BULK_BYTES
from corekernel.shared import MAX_SLOTS, Frames
from corekernel.supervisor import BUSY, Instance, State

if TYPE_CHECKING:
    from corekernel.clients import Client
    from corekernel.kernel import Kernel

RETRY_SECONDS = 0.002
SLOTS_AT_ONCE = 256
_CODES = ((Denied, "denied"), (NoSuchService, "no-service"), (SessionDied, "died"), (TooBig, "too-big"))


@dataclass(eq=False)
class Opened:
    """A client's frames object for one service, as the core holds it.

    `slots` are those that ever had a stack: a caller may wait in one after its stack was taken back, and is to be woken
    when the service dies. Which of them have one now only the pool knows.
    """

    instance: Instance
    generation: int
    made: KernelObject
    frames: Frames
    sent: bool = False
    slots: set[int] = field(default_factory=set)


def refusal(error: HmkError) -> Message:
    """The answer to a request that was refused."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "failed")
    return {"error": code, "text": str(error)}


class Requests:
    """Serves them, on the core's loop."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def requests(self) -> dict[str, Request]:
        """By name."""
        return {"open": self._open, "bind": self._bind, "buffer": self._buffer, "token": self._token}

    def _open(self, client: Client, message: Message, fds: list[int]) -> None:
        instance = self._kernel.clients.instance_for(client, message["service"])
        process = self._kernel.supervisor.process_of(instance.name)
        if process.state is State.FAILED or process.state is State.STOPPED:
            raise NoSuchService(f"service {instance.name} is down")
        if process.state is not State.UP or instance.generation <= int(message.get("after", -1)):
            self._kernel.clients.answer(client, message, {"again": True})
            return
        opened = client.opened.get(instance.name)
        if opened is None or opened.generation != instance.generation:
            made = self._kernel.objects.create(
                Kind.FRAMES, f"frames.{client.number}.{instance.name}", Frames.SIZE, client.number,
                instance.generation,
            )  # fmt: skip
            opened = Opened(instance, instance.generation, made, Frames(made.fd))
            client.opened[instance.name] = opened
        fd = self._kernel.objects.grant(opened.made, client.number, Rights.WRITE)
        self._kernel.clients.answer(client, message, {"generation": opened.generation, "polled": instance.polled}, [fd])
        os.close(fd)

    def _current(self, client: Client, name: object, generation: int) -> Opened:
        instance = self._kernel.clients.instance_for(client, name)
        opened = client.opened.get(instance.name)
        if opened is None or opened.generation != generation:
            raise SessionDied(f"that generation of {instance.name} is gone; open it first")
        return opened

    def _bind(self, client: Client, message: Message, fds: list[int]) -> None:
        """Stacks for slots, by service; one that fails, fails alone. Answered when all have a result."""
        wanted = {name: (int(e["generation"]), _slots(e["slots"])) for name, e in message["services"].items()}
        if not wanted:
            raise ValueError("no service to bind")
        results: dict[str, Message] = {}

        def bound(name: str, result: Message) -> None:
            results[name] = result
            if len(results) == len(wanted):
                self._kernel.clients.answer(client, message, {"services": results})

        for name, (generation, slots) in wanted.items():
            try:
                opened = self._current(client, name, generation)
            except HmkError as error:
                bound(name, refusal(error))
            else:
                self._kernel.pools.bind(client, opened, slots, partial(bound, name))

    def _buffer(self, client: Client, message: Message, fds: list[int]) -> None:
        opened = self._current(client, message["service"], int(message["generation"]))
        slot, size = int(message["slot"]), int(message["size"])
        if not SMALLEST_BUFFER <= size <= MAX_BULK_BYTES or size % 4096:
            raise TooBig(f"a buffer takes {SMALLEST_BUFFER} to {MAX_BULK_BYTES} bytes, in whole pages")
        if slot not in opened.slots:
            raise Denied("that slot is not bound")
        used = self._kernel.objects.usage(client.number, Kind.BUFFER)
        if used + size > client.memory_limit:
            raise TooBig(f"{used + size} bytes of buffers exceed the limit of {client.memory_limit}")
        made = self._kernel.objects.create(Kind.BUFFER, f"buffer.{client.number}", size, client.number)
        process = self._kernel.supervisor.process_of(opened.instance.name)

        def shared(reply: Message) -> None:
            if "error" in reply:
                self._kernel.objects.release(made)
                self._not_shared(client, message, str(reply["error"]))
                return
            if self._kernel.clients.by_number.get(client.number) is not client:
                return  # it has gone meanwhile, and the buffer with it
            fd = self._kernel.objects.grant(made, client.number, Rights.WRITE)
            self._kernel.clients.answer(client, message, {"size": size}, [fd])
            os.close(fd)
            self._kernel.objects.hand_over(made)

        fd = self._kernel.objects.grant(made, opened.instance.number, Rights.WRITE)
        request = {"do": "buffer", "service": opened.instance.name, "client": client.number}
        process.request({**request, "slot": slot, "size": size}, shared, [fd])
        os.close(fd)

    def _not_shared(self, client: Client, message: Message, why: str) -> None:
        kernel = self._kernel
        if why == BUSY:
            kernel.loop.later(RETRY_SECONDS, lambda: kernel.clients.again(client, message))
        else:
            error = why if why in ("died", "unbound") else "failed"
            kernel.clients.answer(client, message, {"error": error, "text": why})

    def _token(self, client: Client, message: Message, fds: list[int]) -> None:
        """A read-only token of the process table."""
        if message["object"] != "processes":
            raise NoSuchService(f"no public object {message['object']!r}")
        fd = self._kernel.objects.grant(self._kernel.process_object, client.number, Rights.READ)
        made = self._kernel.process_object
        self._kernel.clients.answer(client, message, {"object": made.number, "size": made.size}, [fd])
        os.close(fd)


def _slots(numbers: Iterable[Any]) -> list[int]:
    slots = sorted({int(number) for number in numbers})
    if len(slots) > SLOTS_AT_ONCE or not all(0 <= slot < MAX_SLOTS for slot in slots):
        raise ValueError(f"slots must be at most {SLOTS_AT_ONCE} numbers below {MAX_SLOTS}")
    return slots
