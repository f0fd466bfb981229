"""The core's own operations: timers, the serial console, token writes, and who may not ask for the rest."""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import shim
from corekernel.errors import CallError, DeadlineExceeded, ServiceError
from corekernel.process_table import RECORD_BYTES
from tests.processes import Tell, in_futex, until
from tests.systems import Box, boot_box
from tests.test_procmgr import refusal

MS = 1_000_000
HOLDER = """
[service.fs]
remove = true

[service.devmgr]
remove = true
[service.agent]
module = "tests.agent"
interface = "bench_echo"
calls = ["core"]
devices = ["console"]
"""


@pytest.fixture(scope="module", params=["default", "monolith"])
def _plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("plain"), request.param, HOLDER)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def system(_plain: Box) -> Iterator[shim.System]:
    """Attached to a system of the composition `default`, and of `monolith`."""
    yield _plain.attach()
    _plain.settle()
    _plain.children.clear()
    _plain.attached.clear()


def now() -> int:
    return time.monotonic_ns()


# ---- timers


def test_a_sleep_lasts_as_long_as_it_should(system: shim.System) -> None:
    for ms in (0, 1, 30):
        started = now()
        system.sleep(ms / 1000)
        assert now() - started >= ms * MS
    started = now()
    system.core.sleep_until(0)
    system.core.sleep_until(started - 1)
    assert now() - started < 2_000 * MS


def test_many_sleep_at_once_and_each_wakes_at_its_time(system: shim.System) -> None:
    early: list[float] = []

    def body(ms: int) -> None:
        deadline = now() + ms * MS
        system.core.sleep_until(deadline)
        if now() < deadline:
            early.append(ms)

    threads = [threading.Thread(target=body, args=(ms,)) for ms in (5, 5, 10, 20, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert early == []


def test_sleepers_with_one_deadline_all_wake(system: shim.System) -> None:
    deadline, awake = now() + 50 * MS, []

    def body() -> None:
        system.core.sleep_until(deadline)
        awake.append(1)

    threads = [threading.Thread(target=body) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(awake) == 6


def test_a_timer_with_a_past_deadline_has_expired_once(system: shim.System) -> None:
    timer = system.core.timer_create(1, 0)
    assert system.core.timer_wait(timer) == 1


def test_a_one_shot_timer_expires_once(system: shim.System) -> None:
    started = now()
    timer = system.core.timer_create(started + 20 * MS, 0)
    assert system.core.timer_wait(timer) == 1
    assert now() - started >= 20 * MS
    with pytest.raises(DeadlineExceeded):
        shim.System(system.attachment, 0.05).core.timer_wait(timer)


def test_a_periodic_timer_counts_what_nobody_collected(system: shim.System) -> None:
    started = now()
    timer = system.core.timer_create(started + 5 * MS, 5 * MS)
    total = system.core.timer_wait(timer)
    system.sleep(0.06)
    total += system.core.timer_wait(timer)
    elapsed = now() - started
    assert 11 <= total <= elapsed // (5 * MS)
    system.core.timer_delete(timer)


def test_a_deleted_timer_ends_the_wait_for_it(system: shim.System) -> None:
    timer = system.core.timer_create(now() + 3600 * 1000 * MS, 0)
    ended: list[object] = []

    def body() -> None:
        try:
            system.core.timer_wait(timer)
        except ServiceError as error:
            ended.append(error.errno)

    waiting = threading.Thread(target=body)
    waiting.start()
    until(lambda: in_futex(waiting.native_id or 0), "the thread waits")
    system.core.timer_delete(timer)
    waiting.join(10)
    assert ended == [errno.EINVAL]


def test_timers_belong_to_their_owner(system: shim.System, _plain: Box) -> None:
    timer = system.core.timer_create(now() + 3600 * 1000 * MS, 0)
    other = _plain.attach().core
    assert refusal(other.timer_wait, timer) == "EINVAL"
    assert refusal(other.timer_delete, timer) == "EINVAL"
    for number in (0, 1 << 40, (1 << 64) - 1):
        assert refusal(system.core.timer_wait, number) == "EINVAL"
    system.core.timer_delete(timer)
    assert refusal(system.core.timer_delete, timer) == "EINVAL"


def test_a_client_has_so_many_timers_and_its_end_frees_them(system: shim.System, _plain: Box) -> None:
    def body(system: shim.System, tell: Tell) -> int:
        made = 0
        try:
            while made < 1000:
                system.core.timer_create((1 << 63) - 1, 0)
                made += 1
        except ServiceError as error:
            assert error.errno == errno.EAGAIN
        return made

    assert _plain.client(body).result() == 256
    assert _plain.client(body).result() == 256
    system.core.timer_delete(system.core.timer_create(now() + 3600 * 1000 * MS, 0))


def test_absurd_times_are_refused_or_kept_and_the_clock_goes_on(system: shim.System) -> None:
    assert refusal(system.core.timer_create, 1 << 63, 0) == "EINVAL"
    assert refusal(system.core.timer_create, 0, 1 << 63) == "EINVAL"
    with pytest.raises(DeadlineExceeded):
        shim.System(system.attachment, 0.05).core.sleep_until((1 << 64) - 1)
    timer = system.core.timer_create(0, 1)
    assert system.core.timer_wait(timer) >= 1
    system.core.timer_delete(timer)
    system.sleep(0.001)


def test_a_sleeper_that_is_killed_harms_nobody(system: shim.System, _plain: Box) -> None:
    def body(system: shim.System, tell: Tell) -> None:
        tell("on")
        system.sleep(0.2)

    child = _plain.client(body, timeout=None)
    child.hear()
    child.waits()
    child.kill()
    system.sleep(0.25)


# ---- the serial console


def test_what_is_written_is_in_the_log(system: shim.System, _plain: Box) -> None:
    text = f"line {now()} äöü\n".encode()
    assert system.core.serial_write(text) == len(text)
    assert text.decode() in _plain.log()
    assert system.core.serial_write(b"") == 0
    assert system.core.serial_write(bytes(64 << 10)) == 64 << 10


class Holder:
    """The service that has the console, as a reader that begins at the end of what was typed before."""

    def __init__(self, system: shim.System) -> None:
        self.system = system
        self.position = self.window = 0
        system.ask("input", text="<")
        while not (text := self.read(3500)[3]).endswith("<"):
            self.position += len(text)
        self.position += len(text)

    def tell(self, **wanted: Any) -> Any:
        return json.loads(bytes(self.system.client("agent").echo(json.dumps(wanted).encode())))

    def read(self, limit: int) -> Any:
        """Start, window, whether it has ended, text."""
        found = self.tell(do="read", position=self.position, limit=limit, known=self.window)
        if "error" not in found:
            self.position, self.window = found[0], found[1]
        return found


def test_a_read_of_the_console_waits_for_input_and_takes_no_more_than_asked(system: shim.System) -> None:
    holder = Holder(system)
    start = holder.position
    got: list[Any] = []
    reading = threading.Thread(target=lambda: got.append(holder.read(5)))
    reading.start()
    until(lambda: in_futex(reading.native_id or 0), "the thread waits")
    assert system.ask("input", text="hello, world")["taken"] == 12
    reading.join(10)
    assert got == [[start, 0, False, "hello"]]
    holder.position += 5
    assert holder.read(1 << 40) == [start + 5, 0, False, ", world"]


def test_input_is_kept_until_it_is_read_past(system: shim.System) -> None:
    holder = Holder(system)
    start = holder.position
    system.ask("input", text="twice")
    assert holder.read(10)[3] == "twice" == holder.read(10)[3]
    holder.position += 2
    assert holder.read(10)[::3] == [start + 2, "ice"]
    holder.position -= 2
    assert holder.read(10)[::3] == [start + 2, "ice"]
    for position, limit in ((start + 6, 10), ((1 << 64) - 1, 10), (start + 2, 0)):
        holder.position = position
        assert holder.read(limit) == {"error": "ServiceError", "errno": errno.EINVAL}


def test_input_is_bytes_and_the_window_s_size_comes_with_it(system: shim.System) -> None:
    holder = Holder(system)
    raw = bytes(range(256))
    system.ask("input", text=raw.decode("utf-8", "surrogateescape"))
    assert holder.read(3500)[3].encode("utf-8", "surrogateescape") == raw
    holder.position += len(raw)
    system.ask("input", text="", window=[24, 80])
    assert holder.read(3500)[1:] == [80 << 16 | 24, False, ""]
    with pytest.raises(CallError):
        system.ask("input", text="\ud800")
    with pytest.raises(CallError):
        system.ask("input", text="", window=["x", 1])
    system.ask("input", text="", window=[0, 0])
    assert holder.read(3500)[1] == 0


def test_input_beyond_what_the_console_holds_is_not_taken(system: shim.System) -> None:
    holder = Holder(system)
    holder.tell(do="read", position=holder.position, limit=0, known=0)
    taken = sum(int(system.ask("input", text="x" * 10_000)["taken"]) for _ in range(10))
    assert (64 << 10) - 3500 <= taken <= 64 << 10
    read = 0
    while read < taken:
        count = len(holder.read(1 << 20)[3])
        holder.position, read = holder.position + count, read + count
    assert read == taken


def test_what_the_console_s_holder_writes_again_is_not_shown_again(system: shim.System, _plain: Box) -> None:
    holder, mark = Holder(system), f"mark {now()}"
    reached = next(n for n in range(1 << 20) if holder.tell(do="console", position=n, text="") is not None) - 1
    for position, text in ((reached, f"{mark} one "), (reached, f"{mark} one two "), (reached, f"{mark} o")):
        assert holder.tell(do="console", position=position, text=text) is None
    assert holder.tell(do="console", position=reached + 100, text="")["errno"] == errno.EINVAL
    assert _plain.log().count(mark) == 1
    assert f"{mark} one two " in _plain.log()


def test_only_the_service_that_has_the_console_reads_it(system: shim.System) -> None:
    assert refusal(system.core.serial_read, 0, 10, 0) == "EPERM"
    assert refusal(system.core.console_write, 0, b"forged") == "EPERM"


# ---- token writes


def own_name(system: shim.System) -> tuple[int, int]:
    """The process table's number, and where this process's name stands in it."""
    reply, fds = system.attachment.ask({"do": "token", "object": "processes"})
    for fd in fds:
        os.close(fd)
    record = next(record for record in system.processes() if record.pid == system.pid)
    return int(reply["object"]), record.index * RECORD_BYTES + 32


def test_a_process_changes_its_own_name_and_everybody_sees_it(system: shim.System, _plain: Box) -> None:
    number, at = own_name(system)
    system.core.token_write(number, at, b"renamed".ljust(32, b"\0"))
    assert next(r for r in system.processes() if r.pid == system.pid).name == "renamed"
    assert next(r for r in _plain.attach().processes() if r.pid == system.pid).name == "renamed"


def test_nothing_but_the_own_name_can_be_changed(system: shim.System, _plain: Box) -> None:
    number, at = own_name(system)
    before = list(system.processes())
    word = struct.pack("<Q", 0x4141414141414141)
    other = _plain.attach()
    _, others = own_name(other)
    before = list(system.processes())
    for offset in (at - 32, at - 8, at + 32, at + 40, others, 0 if at != 32 else RECORD_BYTES):
        assert refusal(system.core.token_write, number, offset, word) == "EINVAL"
    assert refusal(system.core.token_write, number, at - 8, word * 2) == "EINVAL"
    assert refusal(system.core.token_write, number, at + 24, word * 2) == "EINVAL"
    for offset, words in ((at + 1, word), (at, b"seven.."), (1 << 40, word), ((1 << 64) - 8, word), (1024 * 128, word)):
        assert refusal(system.core.token_write, number, offset, words) == "ERANGE"
    assert refusal(system.core.token_write, 1 << 40, 0, word) == "ENOENT"
    assert list(system.processes()) == before


def test_objects_one_holds_no_token_of_cannot_be_written(system: shim.System) -> None:
    number, _ = own_name(system)
    names = [refusal(system.core.token_write, other, 0, bytes(8)) for other in range(1, 60) if other != number]
    assert set(names) <= {"EPERM", "ENOENT", "EINVAL"}
    assert "EPERM" in names


def test_a_token_is_read_only(system: shim.System) -> None:
    reply, fds = system.attachment.ask({"do": "token", "object": "processes"})
    try:
        with pytest.raises(OSError):
            os.pwrite(fds[0], b"x", 0)
        with pytest.raises(OSError):
            os.ftruncate(fds[0], 0)
    finally:
        os.close(fds[0])
    assert reply["size"] == os.fstat(os.memfd_create("x")).st_size or reply["size"] > 0


# ---- what only one service may ask for


def test_privileged_operations_refuse_ordinary_clients(system: shim.System) -> None:
    core = system.core
    assert refusal(core.spawn, b'{"argv": ["/bin/true"]}') == "EPERM"
    assert refusal(core.signal, system.pid, 0) == "EPERM"
    assert refusal(core.set_limit, system.pid, 1, 0) == "EPERM"
    assert refusal(core.set_rlimit, system.pid, 7, 1, 1) == "EPERM"
    assert refusal(core.usage, system.pid) == "EPERM"
    assert refusal(core.unbind_idle, 1, 1) == "EPERM"
    assert system.client("procmgr").getpid() == system.pid


def test_pools_are_no_secret(system: shim.System) -> None:
    assert b'"core"' in system.core.pools()
