"""The clients of one side, as processes that carry out steps in the order they are told; and two sides at once."""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

import shim
from corekernel import namespaces
from tests.differential.actor import Actor
from tests.differential.compare import Reader, equal, permitted
from tests.differential.host import Host, enter_tmpfs
from tests.differential.steps import Step, sequence

MakeActor = Callable[[], Actor]
_LARGEST = 1 << 22


class Side:
    """Processes with one actor each, the first of which is user id 0."""

    def __init__(self, name: str, makers: Sequence[tuple[int, MakeActor]], prepare: Callable[[], None]) -> None:
        """Start them.

        Args:
            name: of the side.
            makers: for each client its user id, and what makes its actor once it has that.
            prepare: runs in their common parent.
        """
        self.name = name
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) for _ in makers]
        test = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                namespaces.die_with_parent(test)
                prepare()
                parent = os.getpid()
                for (uid, make), (mine, its) in zip(makers, pairs, strict=True):
                    if os.fork() == 0:
                        mine.close()
                        _serve(uid, make, its, parent)
                for mine, its in pairs:
                    mine.close()
                    its.close()
                while True:
                    os.wait()
            except ChildProcessError:
                pass
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        for _, its in pairs:
            its.close()
        self._streams = [mine.makefile("rwb") for mine, _ in pairs]
        self._sockets = [mine for mine, _ in pairs]
        self._reader = Reader({})
        self._numbers = {int(self._next(number)): number for number in range(len(makers))}

    def _next(self, client: int) -> Any:
        line = self._streams[client].readline()
        assert line, f"client {client} of the side {self.name} has died"
        answer = json.loads(line)
        assert not (isinstance(answer, dict) and "failure" in answer), f"{self.name}: {answer['failure']}"
        return answer

    def begin(self, client: int, name: str, arguments: Sequence[Any] = ()) -> None:
        """Tell a client what to do."""
        self._streams[client].write(json.dumps([name, arguments]).encode() + b"\n")
        self._streams[client].flush()

    def end(self, client: int) -> Any:
        """What it says, as it is compared."""
        return self._reader.read(self._next(client))

    def fresh(self) -> None:
        """Clear everything for another sequence."""
        for client, name in [(0, "clear"), (0, "found"), *((client, "enter") for client in range(len(self._streams)))]:
            self.begin(client, name)
            answer = self.end(client)
            assert answer == ["ok", None], (self.name, name, answer)
        self._reader = Reader(self._numbers)

    def close(self) -> None:
        """Leave nothing there, and end the processes."""
        self.begin(0, "clear")
        self.end(0)
        for client in range(len(self._streams)):
            self.begin(client, "quit")
        for stream, sock in zip(self._streams, self._sockets, strict=True):
            stream.close()
            sock.close()
        os.waitpid(self._pid, 0)


def _serve(uid: int, make: MakeActor, sock: socket.socket, parent: int) -> None:
    """Answer until told to quit."""
    stream = sock.makefile("rwb")

    def say(answer: Any) -> None:
        stream.write(json.dumps(answer).encode() + b"\n")
        stream.flush()

    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        actor = make()
        namespaces.die_with_parent(parent)  # again: it was undone by the change of user id
        say(actor.whoami)
        for line in stream:  # its end may never come: others have inherited the other end
            name, arguments = json.loads(line)
            if name == "quit":
                break
            say(actor.answer(name, arguments))
    except BaseException:
        say({"failure": traceback.format_exc()})
    finally:
        os._exit(0)


def both_sides(name: str, uids: Sequence[int]) -> tuple[Side, Side]:
    """Clients of a tmpfs of the host, and of a running system, which must let them attach and have no files yet."""
    with shim.attach(name, 15.0) as system:
        kept = system.files.listdir("/")

    def client() -> Actor:
        system = shim.attach(name, 15.0)
        return Actor(system.files, system.pid, kept)

    host = Side("host", [(uid, lambda: Actor(Host(), os.getpid(), kept)) for uid in uids], lambda: enter_tmpfs(kept))
    return host, Side("hmk", [(uid, client) for uid in uids], lambda: None)


def both(host: Side, hmk: Side, step: Step) -> tuple[Any, Any, bool]:
    """Carry out a step on both sides: what each answers, and whether that may be."""
    host.begin(step.client, step.name, step.arguments)
    hmk.begin(step.client, step.name, step.arguments)
    expected, got = host.end(step.client), hmk.end(step.client)
    return expected, got, equal(expected, got) or permitted(step, expected, got)


def difference(host: Side, hmk: Side, steps: Sequence[Step]) -> tuple[int, str]:
    """Carry out steps on both sides: number and report of the first that is answered differently; or the end, "".

    The trees that both leave are compared as by one more step.
    """
    host.fresh()
    hmk.fresh()
    done: list[str] = []
    for number, step in enumerate([*steps, Step(0, "tree", ())]):
        expected, got, right = both(host, hmk, step)
        done.append(f"  {step.client}: {step.name}{_shortened(step.arguments)}  -> {_shortened(expected)}")
        if not right:
            return number, _report(done, expected, got)
    return len(steps) + 1, ""


def shortest(host: Side, hmk: Side, steps: Sequence[Step]) -> str:
    """Report of as few steps as still end in a difference, by leaving out one after the other."""
    number, report = difference(host, hmk, steps)
    kept = list(steps[: number + 1])
    for place in reversed(range(len(kept) - 1)):
        fewer = kept[:place] + kept[place + 1 :]
        number, shorter = difference(host, hmk, fewer)
        if shorter:
            kept, report = fewer[: number + 1], shorter
    return report


def campaign(host: Side, hmk: Side, seeds: Iterable[str], clients: int, longest: int) -> int:
    """Carry out a sequence for each seed; how many steps it were.

    Raises:
        AssertionError: the sides differ; with the steps that lead there.
    """
    count = 0
    for seed in seeds:
        steps = sequence(Random(seed), clients, longest)
        count += len(steps)
        if difference(host, hmk, steps)[1]:
            raise AssertionError(f"sequence {seed!r}: {shortest(host, hmk, steps)}")
    return count


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:120]}...{text[-40:]}"


def _report(done: Sequence[str], expected: Any, got: Any) -> str:
    if isinstance(expected, list) and expected[:1] == ["ok"] and isinstance(expected[1], dict) and got[:1] == ["ok"]:
        names = sorted({*expected[1], *got[1]})
        different = [name for name in names if not equal(expected[1].get(name), got[1].get(name))]
        expected = {name: expected[1].get(name) for name in different}
        got = {name: got[1].get(name) for name in different}
    return "\n".join(["after", *done, f"  host: {expected}", f"  hmk:  {got}"])
