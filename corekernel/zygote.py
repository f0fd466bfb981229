"""Starts every process of the system from clean, preloaded, single-threaded Pythons.

The core has threads and objects that no child may inherit, so it forks once, before it has any. That child,
the *active* zygote, forks others on demand; each is again a zygote, serves one channel to the core, and can

* `twin`: fork another zygote, on a channel end that comes with the request;
* `become`: turn into a service or a program. It forks nothing then, so that a start costs only the
  confinement.

The core keeps one *spare* zygote ready, uses it up for the next start and orders another, which is forked
while the core goes on. A dormant *reserve* replaces the active zygote if that dies (`Zygote.restart`), and
the active one makes the next reserve: services outlive any zygote, and one zygote at least outlives any
death.

Parenthood: to make a twin, a zygote forks a middle process that forks the twin and exits; so the twin is
adopted by the core (init of the pid namespace, or child subreaper). The zygote holds a gate pipe open until
it has reaped the middle process: the twin goes on only when the core is its parent, arms its death signal
for the core, and introduces itself with a pidfd that it opened of itself. If the zygote is killed in
between, the twin dies with the middle process: no process lives that the core does not know.

Answer to `become`: end of file when it runs (a service closed the channel, exec did), or one message that
says what failed; then that process exits. The request comes after the pidfd, so the core can limit a process
(its control group) before it does anything. The group it entered on its own while it was a spare, before it
introduced itself; active and reserve zygotes stay in the core's.

As root all zygotes live in an empty network namespace and, if asked, behind a private view of the host: both
are made once, because they cost more than a fork. All processes share the address-space layout of the first
zygote.

This is the core's side; `corekernel.zygote_child` is what the children run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corekernel import namespaces
from corekernel.cgroups import Group, Groups
from corekernel.channel import MAX_DESCRIPTORS, Channel, ChannelClosed, Message, encode
from corekernel.confine import Confinement
from corekernel.errors import HmkError
from corekernel.spawned import Spawned, SpawnError, ZygoteDied, born, failure
from corekernel.zygote_child import FIRST_FD, be_first

MAX_GIVEN = MAX_DESCRIPTORS - 3
START_SECONDS = 10.0
PRELOAD_SECONDS = 60.0

_NUMBERS_END = 512  # a program may be given descriptors below this number
_ATTEMPTS = 3  # spares in a row that may turn out dead


@dataclass(slots=True)
class _Seat:
    """One zygote as the core holds it."""

    channel: Channel
    process: Spawned

    def alive(self) -> bool:
        return not namespaces.readable(self.process.pidfd)

    def vacate(self) -> None:
        """Let the zygote exit, and collect it."""
        self.channel.close()
        self.process.reap()
        os.close(self.process.pidfd)
        if self.process.group is not None:
            self.process.group.retire()

    def order_twin(self, group: Group | None = None) -> _Order:
        """Have a twin forked, which enters a control group as soon as it is born."""
        ours, theirs = Channel.pair()
        order = _Order(ours, group)
        with theirs:
            try:
                self.channel.send({"twin": True}, [theirs.fileno(), *(group.entrances if group is not None else [])])
            except ChannelClosed as error:
                order.cancel()
                raise ZygoteDied("the zygote died") from error
            finally:
                if group is not None:
                    group.close()
        return order

    def become(self, request: Message, fds: Sequence[int]) -> None:
        """Have the zygote turn into what is asked; returns when it runs, or has died."""
        try:
            self.channel.send(request, fds)
            message, _ = self.channel.recv(START_SECONDS)
        except ChannelClosed:
            return
        except TimeoutError as error:
            raise SpawnError(errno.ETIMEDOUT, "the process did not start in time") from error
        raise failure(message)


@dataclass(slots=True)
class _Order:
    """A zygote that was ordered: where it will introduce itself, and its control group."""

    channel: Channel
    group: Group | None

    def cancel(self) -> None:
        """It will not be born."""
        self.channel.close()
        if self.group is not None:
            self.group.retire()

    def seat(self) -> _Seat:
        """The zygote, once born."""
        try:
            seat = _Seat(self.channel, born(self.channel, START_SECONDS, self.group))
        except BaseException:
            self.cancel()
            raise
        if seat.alive():
            return seat
        seat.vacate()
        raise ZygoteDied("the zygote died")


def _first(modules: Iterable[str], view: Iterable[Path]) -> _Seat:
    """Fork the first zygote."""
    ours, theirs = Channel.pair()
    core = os.getpid()
    pid = os.fork()
    if pid == 0:
        be_first(theirs, core, modules, view)
    theirs.close()
    try:
        return _Seat(ours, born(ours, PRELOAD_SECONDS))
    except BaseException:
        ours.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _single_threaded() -> bool:
    return threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1


class Zygote:
    """The core's handle on its zygotes. `spawn` and `spawn_exec` may be called from any thread."""

    def __init__(self, active: _Seat, reserve: _Seat, groups: Groups) -> None:
        """Use `Zygote.start`."""
        self._lock = threading.Lock()  # guards the zygotes; of the spare one, its order
        self._active = active
        self._reserve = reserve
        self.groups = groups
        self._ordered: _Order | None = active.order_twin(groups.make())
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    @classmethod
    def start(
        cls, preload_modules: Iterable[str] = (), view: Iterable[Path] = (), groups: Groups | None = None
    ) -> Zygote:
        """Fork the zygotes; the caller becomes the parent of every process they start.

        Call it before the core makes its first thread or object, from the thread that will live longest.

        Args:
            preload_modules: everything a service will ever import.
            view: directories to keep reachable for other user ids (`namespaces.private_view`); none: no view.
            groups: where each process gets a control group; None: none does.

        Raises:
            RuntimeError: this process already has several threads.
            SpawnError: a module cannot be imported, or the host refused a step.
        """
        if not _single_threaded():
            raise RuntimeError("the zygote must be forked before the first thread")
        namespaces.adopt_orphans()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or every child would print what is pending once more
        active = _first(preload_modules, view)
        try:
            return cls(active, active.order_twin().seat(), groups or Groups())
        except BaseException:
            active.vacate()
            raise

    @property
    def pidfds(self) -> tuple[int, int]:
        """Pidfds of the active and the reserve zygote, for the core's selector.

        When one is readable `restart` is due, after which they are others.
        """
        return self._active.process.pidfd, self._reserve.process.pidfd

    @property
    def pids(self) -> tuple[int, int]:
        """Pids of the active and the reserve zygote."""
        return self._active.process.pid, self._reserve.process.pid

    def restart(self) -> None:
        """Replace the active or the reserve zygote, whichever died; does nothing while both live.

        Raises:
            ZygoteDied: both are dead: this core can start nothing more.
        """
        with self._lock:
            if not self._active.alive():
                if not self._reserve.alive():
                    raise ZygoteDied("no zygote is left")
                self._active, self._reserve = self._reserve, self._active
            if not self._reserve.alive():
                reserve = self._active.order_twin().seat()
                self._reserve.vacate()
                self._reserve = reserve
        self._order()

    def _take_ordered(self) -> _Seat:
        """The spare zygote, once born; afterwards there is none. With the lock held."""
        order, self._ordered = self._ordered, None
        if order is None:
            raise ZygoteDied("there is no spare zygote")
        return order.seat()

    def _take(self) -> _Seat:
        """A zygote to use up."""
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    return self._take_ordered()
                except ZygoteDied:
                    self._ordered = self._active.order_twin(self.groups.make())
            return self._take_ordered()

    def _order(self) -> None:
        """Have a spare zygote made, unless there is one; what prevents it is the next caller's to see."""
        with self._lock, contextlib.suppress(ZygoteDied, OSError):
            if self._ordered is None:
                self._ordered = self._active.order_twin(self.groups.make())

    def spawn(
        self,
        entry: str,
        spec: dict[str, Any],
        fds: Sequence[int] = (),
        confinement: Confinement | None = None,
        stdio: tuple[int, int, int] | None = None,
        prepare: Callable[[Spawned], None] | None = None,
    ) -> Spawned:
        """Start a service process that calls `entry(spec, fds)` and exits with its integer result, else 0.

        Args:
            entry: "module:function"; the module should be preloaded.
            spec: JSON object handed to the entry.
            fds: at most 13 descriptors; the entry gets the numbers they have there (3 onwards), in order.
                Nothing else is open in the process but 0, 1 and 2.
            confinement: None means `Confinement()`.
            stdio: descriptors for 0, 1 and 2; None means /dev/null, and the core's own 1 and 2.
            prepare: called with the process before it does anything (limit its control group here).

        Returns:
            The process, confined and running.

        Raises:
            SpawnError: it could not be started; nothing is left of it.
            ZygoteDied: call `restart` and try again.
        """
        request = {"entry": entry, "spec": spec, "numbers": list(range(FIRST_FD, FIRST_FD + len(fds)))}
        return self._spawn(request, fds, confinement or Confinement(), stdio, prepare)

    def spawn_exec(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str = "/",
        fds: Mapping[int, int] | None = None,
        confinement: Confinement | None = None,
        stdio: tuple[int, int, int] | None = None,
        prepare: Callable[[Spawned], None] | None = None,
    ) -> Spawned:
        """Start a program; returns when its exec succeeded. It stays in the core's process group.

        Args:
            argv: program and arguments; a name without a slash is looked up in `env`'s PATH.
            env: its whole environment; with `argv` at most 64 KiB.
            cwd: directory to start in, entered under the program's user id.
            fds: number in the program (3 to 511) -> descriptor here, at most 13.
            confinement: None means `Confinement.client(None)`.
            stdio: as in `spawn`.
            prepare: as in `spawn`.

        Raises:
            SpawnError: as in `spawn`; `errno` and `filename` say what exec or chdir refused.
            ZygoteDied: call `restart` and try again.
        """
        given = dict(fds or {})
        if not all(FIRST_FD <= number < _NUMBERS_END for number in given):
            raise ValueError(f"descriptor numbers must be in [{FIRST_FD}, {_NUMBERS_END})")
        if not argv:
            raise ValueError("empty argv")
        request = {"argv": list(argv), "env": dict(env), "cwd": cwd, "numbers": list(given)}
        wanted = confinement or Confinement.client(None)
        return self._spawn(request, list(given.values()), wanted, stdio, prepare)

    def _spawn(
        self,
        request: Message,
        fds: Sequence[int],
        confinement: Confinement,
        stdio: tuple[int, int, int] | None,
        prepare: Callable[[Spawned], None] | None,
    ) -> Spawned:
        if len(fds) > MAX_GIVEN:
            raise ValueError(f"{len(fds)} descriptors exceed {MAX_GIVEN}")
        request["confinement"] = dataclasses.asdict(confinement)
        encode(request)  # refuse what cannot be sent before a zygote is used up
        seat = self._take()
        with seat.channel:
            try:
                if prepare is not None:
                    prepare(seat.process)
                seat.become(request, [*(stdio or (self._null, 1, 2)), *fds])
            except BaseException:
                seat.process.kill()
                seat.vacate()
                raise
            finally:
                self._order()  # not earlier: its fork would compete with this start
        return seat.process

    def close(self) -> None:
        """Let the zygotes exit; the processes they started live on."""
        with self._lock:
            with contextlib.suppress(HmkError):
                self._take_ordered().vacate()
            self._reserve.vacate()
            self._active.vacate()
            os.close(self._null)
