"""What runs in the children: the life of a zygote, and how it turns into a service or a program.

`corekernel.zygote` has the protocol and the core's side of it. A process passes through here in this order:

* born, forked by the core (`be_first`: it preloads, and isolates itself once for all its descendants) or by
  another zygote (`_twin`: it is adopted by the core first); then it introduces itself;
* `_loop`: a zygote with one thread, one channel to the core, and nothing open that is not in `_Zygote`;
* `_become`: a service or a program with exactly the descriptors it was given, confined; no way back.

Every life ends in `os._exit` or an exec: nothing of the core that the fork copied may run at exit, and no
exception may unwind into the core's frames.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import gc
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from corekernel import confine, namespaces
from corekernel.channel import Channel, ChannelClosed, ChannelError, Message, close_all
from corekernel.confine import Confinement

FIRST_FD = 3

_EXIT_FAILED = 127

Entry = Callable[[dict[str, Any], list[int]], int | None]


# --- becoming a service or a program ------------------------------------------------------------------------


def _close_others(keep: Iterable[int]) -> None:
    low = 0
    for fd in sorted(set(keep)):
        if low < fd:  # closerange(0, 0) closes everything
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 0x7FFFFFFF)


def _install(placed: Mapping[int, int], status: int, inheritable: bool) -> None:
    """Give each descriptor its number (`placed`: number -> present descriptor) and close all but `status`.

    Numbers 0 to 2 are always inheritable; the others as told. `status` is above every number.
    """
    parked = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, status) for number, fd in placed.items()}
    for number, fd in parked.items():
        os.dup2(fd, number, inheritable=inheritable or number < FIRST_FD)
    _close_others((*placed, status))


def _report(status: Channel, error: BaseException) -> None:
    """Say on the status channel why this process does not start; the core may have lost interest."""
    message: Message = {"errno": errno.EIO, "error": f"{type(error).__name__}: {error}", "path": None}
    if isinstance(error, OSError) and error.errno:
        path = error.filename if isinstance(error.filename, str) else None
        message = {"errno": error.errno, "error": error.strerror or str(error), "path": path}
    elif isinstance(error, ImportError):
        message["errno"] = errno.ENOENT
    elif isinstance(error, ValueError):  # an argument or an environment that no program can be given
        message["errno"] = errno.EINVAL
    try:
        status.send(message)
    except ChannelError:
        return


def _introduce(status: Channel) -> None:
    """Tell the core who this is, with a pidfd that cannot name anybody else."""
    pidfd = os.pidfd_open(os.getpid())
    status.send({"pid": os.getpid(), "host": namespaces.host_pid()}, [pidfd])
    os.close(pidfd)


def _find_entry(name: str) -> Entry:
    module, _, function = name.partition(":")
    entry: Entry = getattr(importlib.import_module(module), function)
    return entry


def _run_entry(entry: Entry, spec: dict[str, Any], fds: list[int]) -> int:
    """Call a service's entry; return the exit status. What it raises is printed: it is the service's bug."""
    try:
        result = entry(spec, fds)
        status = result if isinstance(result, int) else 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    return status & 0xFF


def _run_service(request: Message, wanted: Confinement, status: Channel) -> int:
    os.setpgid(0, 0)  # signals to the core's group are for the core, which then stops services in order
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    entry = _find_entry(request["entry"])
    confine.apply(wanted)
    status.close()
    return _run_entry(entry, request["spec"], request["numbers"])


def _run_program(request: Message, wanted: Confinement) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    confine.apply(wanted)
    argv = request["argv"]
    os.chdir(request["cwd"])
    try:
        os.execvpe(argv[0], argv, request["env"])
    except OSError as error:
        raise OSError(error.errno, error.strerror, argv[0]) from error


def _join_network(host_network: int | None, wanted: Confinement) -> Confinement:
    """Leave the zygote's empty network namespace if the network is to be kept."""
    if host_network is None:
        return wanted
    if wanted.network:
        namespaces.setns(host_network, namespaces.CLONE_NEWNET)
    return dataclasses.replace(wanted, network=True)


def _become(request: Message, fds: list[int], zygote: _Zygote) -> NoReturn:
    """Turn this zygote into what `request` asks for; never returns."""
    numbers: list[int] = request["numbers"]
    above = max(numbers, default=FIRST_FD - 1) + 1
    status = Channel(fcntl.fcntl(zygote.channel.fileno(), fcntl.F_DUPFD_CLOEXEC, above))
    code = _EXIT_FAILED
    try:
        wanted = _join_network(zygote.network, Confinement(**request["confinement"]))
        placed = dict(zip((0, 1, 2, *numbers), fds, strict=True))
        _install(placed, status.fileno(), inheritable="argv" in request)
        if "argv" in request:
            _run_program(request, wanted)
        code = _run_service(request, wanted, status)
    except BaseException as error:
        _report(status, error)
    finally:
        os._exit(code)


# --- the zygote ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Zygote:
    """What a zygote holds: its channel, the core's pid and, as root, the host's network namespace."""

    channel: Channel
    core: int
    network: int | None


def _twin(fd: int, entrances: list[int], zygote: _Zygote) -> None:
    """Fork a zygote that serves `fd`, and see it adopted by the core.

    Args:
        fd: its end of a channel to the core.
        entrances: of the control groups that it enters, its own doing.
        zygote: what it is a twin of.
    """
    gate, hold = os.pipe()
    try:
        middle = os.fork()
        if middle == 0:
            _in_middle(gate, hold, fd, entrances, zygote)
        os.waitpid(middle, 0)
    finally:
        close_all((gate, hold))


def _enter(entrances: list[int], channel: Channel) -> None:
    """Enter control groups; a failure goes to the core, and ends this process."""
    try:
        for entrance in entrances:
            os.write(entrance, b"0")
    except OSError as error:
        _report(channel, error)
        os._exit(_EXIT_FAILED)


def _in_middle(gate: int, hold: int, fd: int, entrances: list[int], zygote: _Zygote) -> NoReturn:
    code = _EXIT_FAILED
    try:
        if os.fork() == 0:
            os.close(hold)
            os.read(gate, 1)  # end of file once the middle process is reaped, hence its orphan adopted
            namespaces.die_with_parent(zygote.core)
            zygote.channel = Channel(fd)
            _enter(entrances, zygote.channel)
            _close_others((0, 1, 2, fd, *([] if zygote.network is None else [zygote.network])))
            _introduce(zygote.channel)
            confine.rehearse()
            _loop(zygote)
        code = 0
    except ChannelError:
        code = _EXIT_FAILED  # the core has lost interest
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _loop(zygote: _Zygote) -> None:
    """Serve requests until the core closes the channel."""
    while True:
        try:
            request, fds = zygote.channel.recv()
        except ChannelClosed:
            return
        except ChannelError as error:  # out of descriptors, say
            _report(zygote.channel, error)
            continue
        if "twin" not in request:
            _become(request, fds, zygote)
        try:
            _twin(fds[0], fds[1:], zygote)
        except OSError:
            traceback.print_exc()  # the core sees the end of file on the twin's channel
        close_all(fds)


def _own_streams() -> None:
    # The core's stream objects may be anything by now (a test's capture); what counts is descriptors 1 and 2.
    sys.stdin = io.TextIOWrapper(io.FileIO(0, "r", closefd=False))
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
        for fd in (1, 2)
    )


def _plain_signals() -> None:
    """Forget the core's handlers; ignore Ctrl-C, which is for the core, and SIGPIPE, as Python does."""
    for number in sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _isolate(view: Iterable[Path]) -> int | None:
    """Enter an empty network namespace and the private view; return the host's network namespace."""
    if not namespaces.has_capability(namespaces.CAP_SYS_ADMIN):
        return None
    network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    paths = list(view)
    if paths:
        namespaces.private_mounts()
        namespaces.private_view(paths)
    return network


def be_first(channel: Channel, core: int, modules: Iterable[str], view: Iterable[Path]) -> NoReturn:
    """Life of the first zygote, forked by the core itself; never returns.

    Args:
        channel: its end of a channel to the core; it introduces itself there, or says why it cannot.
        core: the core's pid.
        modules: what to import before anything is forked.
        view: directories of the private view of the host; none: no view.
    """
    code = _EXIT_FAILED
    try:
        namespaces.die_with_parent(core)
        _plain_signals()
        _close_others((0, 1, 2, channel.fileno()))
        _own_streams()
        confine.preload(modules)
        zygote = _Zygote(channel, core, _isolate(view))
        os.chdir("/")
        gc.collect()
        gc.freeze()  # a collection in a child would copy every page it marks
        _introduce(channel)
        _loop(zygote)
        code = 0
    except BaseException as error:
        _report(channel, error)
    finally:
        os._exit(code)
