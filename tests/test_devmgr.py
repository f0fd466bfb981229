"""The device manager: memory devices, the console and its readers, who may do what; and all of it across its death."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import shim
from corekernel.errors import ServiceError
from services.devmgr import console as ioctl
from services.devmgr import termios as t
from services.devmgr.termios import Termios
from services.stubs.devmgr import DevmgrClient
from tests.processes import Tell, in_futex, until
from tests.systems import Boots, Box, boot_box
from tests.test_procmgr import refusal

AGENT = """
[service.devmgr]
options = { opener = "agent" }
restart = { max_per_minute = 1000, backoff_max_ms = 20 }

[service.agent]
module = "tests.agent"
interface = "bench_echo"
after = ["devmgr"]
calls = ["devmgr"]
"""
RDEVS = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0),
    "console": (5, 1),
}  # fmt: skip
READY_IN, READY_OUT, HUNG_UP = 0x1, 0x4, 0x10
COMMANDS = (0x5401, 0x5402, 0x5403, 0x5404, 0x540B, 0x540F, 0x5410, 0x5413, 0x5414, 0x541B)
_lanes = itertools.count(1)


def raises(call: Any, *arguments: Any) -> str | None:
    """Name of the errno by which a service refused, if it did."""
    try:
        call(*arguments)
    except ServiceError as error:
        return errno.errorcode[error.errno or 0]
    return None


class Client:
    """An attached process that opens devices through the test's own opener; each has a lane."""

    def __init__(self, system: shim.System) -> None:
        self.system = system
        self.devmgr: DevmgrClient = system.client("devmgr")
        self._request = next(_lanes) << 48

    def tell(self, **wanted: Any) -> Any:
        found = json.loads(bytes(self.system.client("agent").echo(json.dumps(wanted).encode())))
        if isinstance(found, dict) and "error" in found:
            assert found["errno"], found
            raise ServiceError(found["errno"])
        return found

    def open(self, name: str, flags: int = os.O_RDWR, **other: Any) -> int:
        number: int = self.tell(do="open_device", rdev=os.makedev(*RDEVS[name]), flags=flags, **other)
        return number

    @property
    def next(self) -> int:
        self._request += 1
        return self._request

    def read(self, handle: int, size: int = 4096) -> bytes:
        return bytes(self.devmgr.read(self.next, handle, size))

    def write(self, handle: int, data: bytes) -> int:
        return self.devmgr.write(self.next, handle, data)

    def control(self, handle: int, command: int, argument: bytes = b"") -> bytes:
        return self.devmgr.control(self.next, handle, command, argument).data

    def configure(self, handle: int, settings: Termios) -> None:
        self.control(handle, ioctl.TCSETSF, settings.pack())

    def available(self, handle: int) -> int:
        return int(struct.unpack("<i", self.control(handle, ioctl.FIONREAD))[0])

    def opens(self) -> dict[str, int]:
        return {device["name"]: device["opens"] for device in json.loads(bytes(self.devmgr.devices()))}


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = boot_box(tmp_path_factory.mktemp("kept"), "default", AGENT)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def box(_kept: Box) -> Iterator[Box]:
    """A system whose console is as new, and has nothing open when the test ends."""
    settler = Client(_kept.attach())
    settler.configure(settler.open("console"), Termios())
    yield _kept
    _kept.settle()
    _kept.children.clear()
    _kept.attached.clear()


@pytest.fixture
def client(box: Box) -> Client:
    return Client(box.attach())


@pytest.fixture
def tty(client: Client) -> int:
    """The console, opened by `client`."""
    return client.open("console")


def type_at(box: Box, text: str) -> None:
    assert box.ask("input", text=text)["taken"] == len(text.encode("utf-8", "surrogateescape"))


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A thread that does some work, once it waits; and where its result will be."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    until(lambda: found or in_futex(thread.native_id or 0), "the thread waits")
    return thread, found


# ---- memory devices


def test_memory_devices_give_and_take_what_linux_s_do(client: Client) -> None:
    null, zero, full = (client.open(name) for name in ("null", "zero", "full"))
    assert (client.read(null), client.write(null, b"x" * 100_000)) == (b"", 100_000)
    assert (client.read(zero, 100_000), client.write(zero, b"abc")) == (bytes(100_000), 3)
    assert (client.read(full, 10), client.write(full, b"")) == (bytes(10), 0)
    assert refusal(client.write, full, b"x") == "ENOSPC"
    assert client.read(zero, 0) == b""
    assert len(client.read(zero, 1 << 60)) == 16 << 20
    assert client.devmgr.poll(null, READY_IN | READY_OUT) == READY_IN | READY_OUT
    assert client.devmgr.wait_ready(zero, READY_IN) == READY_IN
    assert refusal(client.control, null, ioctl.TCGETS) == "ENOTTY"


def test_random_devices_never_repeat_and_take_what_is_written(client: Client) -> None:
    for name in ("random", "urandom"):
        handle = client.open(name)
        found = [client.read(handle, 32) for _ in range(20)] + [client.read(handle, 100_000)[:32]]
        assert len(set(found)) == 21
        ones = sum(byte.bit_count() for byte in client.read(handle, 100_000)) / 800_000
        assert 0.49 < ones < 0.51
        assert client.write(handle, b"seed") == 4


def test_the_registry_says_who_drives_what_and_how_often_it_is_open(client: Client) -> None:
    table = json.loads(bytes(client.devmgr.devices()))
    assert {device["name"]: (device["major"], device["minor"]) for device in table} == RDEVS
    assert {(device["kind"], device["driver"], device["state"]) for device in table} == {
        ("memory", "memory", "ready"),
        ("serial", "tty", "ready"),
    }
    before = client.opens()
    handles = [client.open("zero"), client.open("zero")]
    assert client.opens()["zero"] == before["zero"] + 2
    for handle in (*handles, handles[0]):
        client.tell(do="release", handle=handle)
    assert client.opens() == before


# ---- who may


def test_only_the_opener_opens_and_closes(client: Client, tty: int) -> None:
    devmgr = client.devmgr
    assert refusal(devmgr.open, client.system.pid, os.makedev(1, 3), 0) == "EPERM"
    assert refusal(devmgr.release, tty) == "EPERM"
    assert refusal(devmgr.set_flags, tty, os.O_NONBLOCK) == "EPERM"
    for rdev in (0, os.makedev(1, 4), os.makedev(5, 2), os.makedev(8, 0), (1 << 64) - 1):
        assert raises(partial(client.tell, do="open_device", rdev=rdev, flags=0)) == "ENXIO"
    assert refusal(client.open, "null", os.O_ACCMODE) == "EINVAL"


def test_a_device_that_the_composition_does_not_give_is_not_there(system: Boots) -> None:
    text = AGENT.replace("options", 'devices = ["null"]\noptions', 1)
    client = Client(system("default", text).attach())
    assert client.read(client.open("null")) == b""
    for name in set(RDEVS) - {"null"}:
        assert refusal(client.open, name) == "ENODEV"
    assert list(client.opens()) == ["null"]


def test_a_handle_is_its_client_s_alone_and_ends_when_it_is_closed(box: Box, client: Client, tty: int) -> None:
    other = Client(box.attach())
    type_at(box, "not for you\n")
    until(lambda: client.available(tty), "the line is there")

    def all_refuse(who: Client, handle: int) -> None:
        calls = (who.read, who.available, lambda handle: who.write(handle, b"forged"))
        more = (lambda handle: who.devmgr.poll(handle, 1), lambda handle: who.devmgr.wait_ready(handle, 1))
        assert {raises(call, handle) for call in (*calls, *more)} == {"EBADF"}

    all_refuse(other, tty)
    for handle in (0, tty + 1, tty ^ 1 << 12, 1 << 63, (1 << 64) - 1):
        all_refuse(client, handle)
    theirs = client.open("console", client=other.system.pid)
    all_refuse(client, theirs)
    assert other.read(theirs) == b"not for you\n"
    client.tell(do="release", handle=tty)
    all_refuse(client, tty)
    assert client.open("console") != tty
    assert "forged" not in box.log()


def test_a_handle_does_only_what_it_was_opened_for(client: Client) -> None:
    reading, writing = client.open("zero", os.O_RDONLY), client.open("zero", os.O_WRONLY)
    assert (client.read(reading, 2), client.write(writing, b"ab")) == (bytes(2), 2)
    assert refusal(client.read, writing) == refusal(client.write, reading, b"x") == "EBADF"


def test_a_client_has_so_many_handles_and_its_end_closes_them(box: Box, client: Client) -> None:
    def body(system: shim.System, tell: Tell) -> int:
        mine, made = Client(system), 0
        while raises(mine.open, "zero") is None:
            made += 1
        tell(made)
        tell.pause()
        return made

    before = client.opens()["zero"]
    child = box.client(body)
    assert child.hear() == 1024
    assert client.opens()["zero"] == before + 1024
    assert client.read(client.open("zero"), 1) == b"\0"
    child.kill()
    until(lambda: client.opens()["zero"] == before + 1, "its handles are closed")


# ---- the console


def test_a_line_is_read_once_it_is_complete_and_echoed_as_it_is_typed(box: Box, client: Client, tty: int) -> None:
    reading, got = in_background(lambda: client.read(tty))
    type_at(box, "helloo\x7f, wor")
    box.logged("helloo\b \b, wor")
    assert not got
    type_at(box, "ld\r")
    reading.join(10)
    assert got == [b"hello, world\n"]
    assert client.write(tty, b"answer\n") == 7
    box.logged("ld\r\nanswer\r\n")


def test_a_raw_reader_gets_every_byte(box: Box, client: Client, tty: int) -> None:
    client.configure(tty, replace(Termios(), iflag=0, oflag=0, lflag=0))
    raw = bytes(range(256))
    type_at(box, raw.decode("utf-8", "surrogateescape"))
    got = b""
    while len(got) < 256:
        got += client.read(tty, 100)
    assert got == raw


def test_more_than_the_queue_holds_waits_and_is_not_lost(box: Box, client: Client, tty: int) -> None:
    client.configure(tty, replace(Termios(), iflag=0, lflag=0))
    text = "".join(chr(97 + at % 26) for at in range(40_000))
    for at in range(0, len(text), 8000):
        type_at(box, text[at : at + 8000])
    until(lambda: client.available(tty) == 4095, "the queue is full")
    got = b""
    while len(got) < len(text):
        got += client.read(tty, 3000)
    assert got == text.encode()


def test_each_line_has_one_reader(box: Box, client: Client, tty: int) -> None:
    other = Client(box.attach())
    theirs = other.open("tty")
    readings = [in_background(lambda: client.read(tty)), in_background(lambda: other.read(theirs))]
    type_at(box, "one\ntwo\n")
    for reading, _ in readings:
        reading.join(10)
    assert sorted(got for _, found in readings for got in found) == [b"one\n", b"two\n"]


def test_who_will_not_wait_is_told_to_come_again(box: Box, client: Client) -> None:
    handle = client.open("console", os.O_RDWR | os.O_NONBLOCK)
    devmgr = client.devmgr
    assert refusal(client.read, handle) == "EAGAIN"
    assert devmgr.poll(handle, READY_IN | READY_OUT) == READY_OUT
    waiting, ready = in_background(lambda: devmgr.wait_ready(handle, READY_IN))
    type_at(box, "now\n")
    waiting.join(10)
    assert ready == [READY_IN] == [devmgr.poll(handle, READY_IN)]
    assert client.read(handle) == b"now\n"
    assert refusal(client.read, handle) == "EAGAIN"
    client.tell(do="set_flags", handle=handle, flags=0)
    reading, got = in_background(lambda: client.read(handle))
    type_at(box, "waited\n")
    reading.join(10)
    assert got == [b"waited\n"]


def test_the_terminal_obeys_its_controls(box: Box, client: Client, tty: int) -> None:
    wanted = replace(Termios(), iflag=t.INLCR, cflag=0o277, line=3, characters=bytes(range(19)))
    assert client.control(tty, ioctl.TCGETS) == Termios().pack()
    for command in (ioctl.TCSETS, ioctl.TCSETSW, ioctl.TCSETSF):
        assert client.control(tty, command, wanted.pack()) == b""
        assert client.control(tty, ioctl.TCGETS) == wanted.pack()
        client.control(tty, command, Termios().pack())
    type_at(box, "flushed\n")
    until(lambda: client.available(tty) == 8, "the line is there")
    client.control(tty, ioctl.TCFLSH, struct.pack("<i", 1))
    assert client.available(tty) == 8
    client.control(tty, ioctl.TCFLSH, struct.pack("<i", 0))
    assert client.available(tty) == 0
    box.ask("input", text="", window=[50, 132])
    until(lambda: client.control(tty, ioctl.TIOCGWINSZ) == struct.pack("<4H", 50, 132, 0, 0), "the size is known")
    client.control(tty, ioctl.TIOCSWINSZ, struct.pack("<4H", 10, 20, 5, 5))
    type_at(box, "\n")
    until(lambda: client.available(tty), "the line is there")
    assert client.control(tty, ioctl.TIOCGWINSZ) == struct.pack("<4H", 10, 20, 0, 0)


def test_every_bad_argument_is_answered_by_an_errno(box: Box, client: Client, tty: int) -> None:
    pid = box.pid("devmgr")
    for command in COMMANDS:
        for argument in (b"", b"x", bytes(35)):
            assert raises(client.control, tty, command, argument) in (None, "EINVAL", "ESRCH", "EPERM")
    assert refusal(client.control, tty, ioctl.TCFLSH, struct.pack("<i", 3)) == "EINVAL"
    assert refusal(client.control, tty, ioctl.TCFLSH, struct.pack("<i", -1)) == "EINVAL"
    for command in (0, 0x5412, 0x5400, 0x5401 | 1 << 32, (1 << 64) - 1):
        assert refusal(client.control, tty, command) == "ENOTTY"
    dice = random.Random(7)
    for _ in range(300):
        command = dice.choice(COMMANDS)
        argument = dice.randbytes(dice.choice((4, 8, 36, 256)))
        assert raises(client.control, tty, command, argument) in (None, "EINVAL", "ESRCH", "EPERM")
    client.configure(tty, Termios())
    numbers = (0, 1, tty, 1 << 32, (1 << 64) - 1)
    nonblocking = client.open("console", os.O_RDWR | os.O_NONBLOCK)
    for request, size in itertools.product(numbers, numbers):
        assert raises(client.devmgr.read, request, nonblocking, size) in (None, "EAGAIN")
    assert client.write(tty, b"") == 0
    written = client.write(tty, b"\n" * (1 << 20))
    assert 1 <= written <= 1 << 20
    assert box.pid("devmgr") == pid


# ---- signals


def test_a_typed_interrupt_ends_who_is_in_the_foreground(box: Box, client: Client, tty: int) -> None:
    for key, number in (("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)):
        child = client.system.spawn(["/bin/sleep", "1000"])
        client.control(tty, ioctl.TIOCSPGRP, struct.pack("<i", child))
        assert struct.unpack("<i", client.control(tty, ioctl.TIOCGPGRP)) == (child,)
        type_at(box, f"gone{key}kept\n")
        assert client.system.procmgr.wait(child) == -number
        assert client.read(tty) == b"kept\n"
        until(lambda: client.control(tty, ioctl.TIOCGPGRP) == bytes(4), "nobody is in the foreground")


def test_nobody_is_put_into_the_foreground_who_could_not_be_signalled(box: Box, client: Client, tty: int) -> None:
    assert refusal(client.control, tty, ioctl.TIOCSPGRP, struct.pack("<i", -5)) == "ESRCH"
    assert refusal(client.control, tty, ioctl.TIOCSPGRP, struct.pack("<i", 1 << 30)) == "ESRCH"
    assert client.control(tty, ioctl.TIOCSPGRP, struct.pack("<i", client.system.pid)) == b""
    assert client.control(tty, ioctl.TIOCSPGRP, bytes(4)) == b""
    type_at(box, "\x03after\n")  # and with nobody there it ends nobody
    assert client.read(tty) == b"after\n"


# ---- once and no more


def test_a_request_that_is_issued_again_is_answered_and_not_done_again(box: Box, client: Client, tty: int) -> None:
    other = Client(box.attach())
    theirs = other.open("console")
    type_at(box, "one\ntwo\n")
    request = client.next
    assert bytes(client.devmgr.read(request, tty, 64)) == b"one\n" == bytes(client.devmgr.read(request, tty, 64))
    assert client.devmgr.write(request, tty, b"") == 0  # another operation is no re-issue
    assert bytes(other.devmgr.read(request, theirs, 64)) == b"two\n"
    request = client.next
    assert [client.devmgr.write(request, tty, b"shown once\n") for _ in range(3)] == [11] * 3
    client.write(tty, b"the end\n")
    box.logged("the end")
    assert box.log().count("shown once") == 1


def test_a_reply_too_large_for_a_frame_is_lost_no_more_than_a_small_one(box: Box, client: Client, tty: int) -> None:
    line = "long " * 800 + "\n"
    type_at(box, line)
    assert client.read(tty) == line.encode()


def test_many_lanes_take_the_place_of_those_used_least(box: Box, client: Client, tty: int) -> None:
    mine = client.next
    client.devmgr.write(mine, tty, b"mine\n")
    other = Client(box.attach())
    theirs = other.open("console")
    for lane in range(1, 400):
        other.devmgr.write(lane << 48 | 1, theirs, b"")
    assert other.devmgr.write(399 << 48 | 1, theirs, b"not done") == 0
    assert client.devmgr.write(mine, tty, b"not done either") == 5


# ---- across its death


def test_neither_typed_input_nor_settings_nor_handles_die_with_the_service(box: Box, client: Client, tty: int) -> None:
    box.ask("input", text="", window=[30, 90])
    settings = replace(Termios(), lflag=Termios().lflag & ~t.ECHO)
    client.control(tty, ioctl.TCSETS, settings.pack())
    client.control(tty, ioctl.TIOCSPGRP, struct.pack("<i", client.system.pid))
    type_at(box, "first\nsecond\nhal")
    until(lambda: client.available(tty) == 13, "the lines are there")
    until(lambda: client.control(tty, ioctl.TIOCGWINSZ)[:4] == struct.pack("<2H", 30, 90), "the size is known")
    box.recovered("devmgr", box.kill("devmgr"))
    assert client.control(tty, ioctl.TCGETS) == settings.pack()
    assert client.control(tty, ioctl.TIOCGWINSZ)[:4] == struct.pack("<2H", 30, 90)
    assert struct.unpack("<i", client.control(tty, ioctl.TIOCGPGRP)) == (client.system.pid,)
    assert client.read(tty) == b"first\n"
    type_at(box, "f\n")
    assert (client.read(tty), client.read(tty)) == (b"second\n", b"half\n")


def test_a_waiting_reader_outlives_the_service(box: Box, client: Client, tty: int) -> None:
    reading, got = in_background(lambda: client.read(tty))
    polling, ready = in_background(lambda: client.devmgr.wait_ready(tty, READY_IN))
    box.recovered("devmgr", box.kill("devmgr"))
    type_at(box, "for both\nfor one\n")
    for thread in (reading, polling):
        thread.join(10)
    assert (got, ready) == ([b"for both\n"], [READY_IN])
    assert client.read(tty) == b"for one\n"


def test_what_is_typed_while_the_service_is_down_is_there_when_it_is_back(box: Box, client: Client, tty: int) -> None:
    with box.frozen("devmgr") as pid:
        type_at(box, "one\ntw")
        os.kill(pid, signal.SIGKILL)
    type_at(box, "o\n")
    assert (client.read(tty), client.read(tty)) == (b"one\n", b"two\n")


def test_no_line_is_lost_or_doubled_however_often_the_service_dies(box: Box, client: Client, tty: int) -> None:
    lines = [f"line {number}\n" for number in range(400)]
    got: list[bytes] = []
    failures: list[BaseException] = []

    def follows(behind: int) -> bool:
        return len(got) > behind

    def read() -> None:
        try:
            for _ in lines:
                got.append(client.read(tty))
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    writer, theirs = Client(box.attach()), 0
    theirs = writer.open("console")
    mark = f"mark{random.randrange(1 << 30)}"
    killed = 0
    for number, line in enumerate(lines):
        type_at(box, line)
        writer.write(theirs, f"{mark}-{number}.\n".encode())
        if number % 50 == 25:
            until(partial(follows, number - 25), "the reader follows")
            box.recovered("devmgr", box.kill("devmgr")) if killed % 2 else box.kill("devmgr")
            killed += 1
    reader.join(20)
    assert not failures
    assert [line.decode() for line in got] == lines
    box.logged(f"{mark}-{len(lines) - 1}.")
    assert [int(n) for n in re.findall(rf"{mark}-(\d+)\.", box.log())] == list(range(len(lines)))
    assert killed == 8


def test_handles_of_a_client_that_went_while_the_service_was_down_are_closed(box: Box, client: Client) -> None:
    def body(system: shim.System, tell: Tell) -> None:
        Client(system).open("full")
        tell("open")
        tell.pause()

    child = box.client(body)
    child.hear()
    assert client.opens()["full"] == 1
    with box.frozen("devmgr") as pid:
        os.kill(pid, signal.SIGKILL)
        child.kill()
    until(lambda: client.opens()["full"] == 0, "its handle is closed")


# ---- the rest


def test_the_end_of_the_input_is_the_end_of_the_file(system: Boots) -> None:
    box = system("monolith", AGENT)
    client = Client(box.attach())
    tty = client.open("console")
    type_at(box, "last\n")
    assert client.read(tty) == b"last\n"
    reading, got = in_background(lambda: client.read(tty))
    box.ask("input", text="", end=True)
    reading.join(10)
    assert got == [b""] == [client.read(tty)]
    assert client.devmgr.wait_ready(tty, 0) == HUNG_UP
    assert {device["state"] for device in json.loads(bytes(client.devmgr.devices()))} == {"ready", "hung up"}


def switches(pid: int) -> int:
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(number) for text in texts for number in re.findall(r"ctxt_switches:\s+(\d+)", text))


def test_it_sleeps_while_nothing_happens(box: Box, client: Client, tty: int) -> None:
    reading, got = in_background(lambda: client.read(tty))
    pid = box.pid("devmgr")
    before = switches(pid)
    client.system.sleep(0.2)
    assert switches(pid) - before <= 2
    type_at(box, "woken\n")
    reading.join(10)
    assert got == [b"woken\n"]
