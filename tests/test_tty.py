"""The line discipline: the same keys and settings through it and through a terminal of the host give the same."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios as host
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.devmgr import termios as t
from services.devmgr.termios import Termios
from services.devmgr.tty import OUTPUT_BYTES, QUEUE_BYTES, Tty

PATIENCE = 2.0
TCSETS, TCGETS = 0x5402, 0x5401


class Reference:
    """A pseudo-terminal of the host: we type at its master, and are the reader at its slave."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        for fd in (self.master, self.slave):
            os.set_blocking(fd, False)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)

    def configure(self, wanted: Termios) -> None:
        fcntl.ioctl(self.slave, TCSETS, wanted.pack())

    def settings(self) -> Termios:
        return Termios.unpack(fcntl.ioctl(self.slave, TCGETS, bytes(36)))

    def type(self, data: bytes) -> None:
        assert os.write(self.master, data) == len(data)

    def read(self, size: int) -> bytes | None:
        try:
            return os.read(self.slave, size)
        except BlockingIOError:
            return None

    def available(self) -> int:
        found: int = struct.unpack("i", fcntl.ioctl(self.slave, host.FIONREAD, bytes(4)))[0]
        return found

    def readable(self) -> bool:
        return bool(select.select([self.slave], [], [], 0)[0])

    def write(self, data: bytes) -> None:
        assert os.write(self.slave, data) == len(data)

    def output(self) -> bytes:
        """What the terminal shows; a read that finds nothing has the host finish what it had put off."""
        shown = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                shown += os.read(self.master, 65536)
        return shown


class Subject:
    """The same of ours."""

    def __init__(self) -> None:
        self.tty = Tty()

    def configure(self, wanted: Termios) -> None:
        self.tty.configure(wanted)

    def type(self, data: bytes) -> None:
        assert self.tty.receive(data) == len(data)

    def read(self, size: int) -> bytes | None:
        data = self.tty.read(size, wait=False)
        self.tty = Tty.unpack(self.tty.pack())  # a restart is not noticed
        return data

    def available(self) -> int:
        return self.tty.available()

    def readable(self) -> bool:
        return self.tty.readable()

    def write(self, data: bytes) -> None:
        self.tty.write(data)

    def output(self) -> bytes:
        shown, self.tty.output = bytes(self.tty.output), bytearray()
        return shown


# ---- generated sessions

INPUT_FLAGS = (t.IGNCR, t.ICRNL, t.INLCR, t.ISTRIP, t.IUTF8)
OUTPUT_FLAGS = (t.OPOST, t.ONLCR)
LOCAL_FLAGS = (
    t.ISIG, t.ICANON, t.ECHO, t.ECHOE, t.ECHOK, t.ECHONL, t.NOFLSH, t.ECHOCTL, t.ECHOKE, t.IEXTEN,
)  # fmt: skip
USUAL = Termios()


def some(flags: tuple[int, ...], usual: int) -> st.SearchStrategy[int]:
    """Often the usual ones with few changed, else any."""
    changed = st.lists(st.sampled_from(flags), max_size=2).map(lambda found: usual ^ sum(set(found)))
    return st.one_of(changed, st.sets(st.sampled_from(flags)).map(sum))


@st.composite
def all_settings(draw: st.DrawFn) -> Termios:
    characters = bytearray(USUAL.characters)
    characters[t.VMIN] = draw(st.sampled_from([1, 1, 0, 2, 5]))
    for index in draw(
        st.lists(st.sampled_from([t.VERASE, t.VKILL, t.VEOF, t.VEOL, t.VEOL2, t.VWERASE, t.VINTR]), max_size=2)
    ):
        characters[index] = draw(st.sampled_from([0, ord("#"), ord("a"), 10, 13, 9, 255]))
    return Termios(
        draw(some(INPUT_FLAGS, USUAL.iflag)),
        draw(some(OUTPUT_FLAGS, USUAL.oflag)),
        USUAL.cflag,
        draw(some(LOCAL_FLAGS, USUAL.lflag)),
        0,
        bytes(characters),
    )


KEYS = st.one_of(
    st.sampled_from(
        [bytes((code,)) for code in (*USUAL.characters, 10, 13, 9, 9, 127, 127, 21, 23, 4, 4, 22, 18, 255, 0)]
    ),
    st.sampled_from(
        [b"a", b"bc", b"d e", b"_x9", b" ", b"#", "ä€".encode(), b"\xc3", b"\x80", b"\xd7", b"\xe9", b"\x1b[A"]
    ),
    st.binary(max_size=3),
)
STEPS = st.one_of(
    st.tuples(st.just("type"), st.lists(KEYS, max_size=12).map(b"".join)),
    st.tuples(st.just("type"), st.lists(KEYS, max_size=12).map(b"".join)),
    st.tuples(st.just("read"), st.sampled_from([1, 2, 3, 5, 64, 5000, 0])),
    st.tuples(st.just("write"), st.lists(KEYS, min_size=1, max_size=4).map(b"".join)),
    st.tuples(st.just("configure"), all_settings()),
)


def chunks(data: bytes, wanted: Termios) -> Iterator[bytes]:
    """Cut before and after bytes that raise signals: the host drops echo that has not been shown by then."""
    raising = {wanted.characters[index] for index in (t.VINTR, t.VQUIT, t.VSUSP)}
    start = 0
    for at, code in enumerate(data):
        if code in raising or (wanted.iflag & t.ISTRIP and code & 0x7F in raising):
            yield from filter(None, (data[start:at], data[at : at + 1]))
            start = at + 1
    yield from filter(None, (data[start:],))


def settle(one: Reference, two: Subject) -> None:
    """Have the host take what was typed; what the two show must be the same.

    It does so when somebody looks for input and there is none; if there is some, the rest takes a moment.
    """
    wanted, shown = two.output(), b""
    give_up = time.monotonic() + PATIENCE
    while True:
        same = (one.readable(), one.available()) == (two.readable(), two.available())
        shown += one.output()
        if (same and shown == wanted) or time.monotonic() > give_up:
            assert shown == wanted
            return
        time.sleep(0.001)


def drain(one: Reference, two: Subject) -> None:
    """Read both to their ends."""
    while one.readable() or one.available():
        assert (two.readable(), two.available()) == (one.readable(), one.available())
        assert one.read(4096) == two.read(4096)


def type_both(one: Reference, two: Subject, data: bytes, present: Termios) -> None:
    for part in chunks(data, present):
        drain(one, two)
        one.type(part)
        two.type(part)
        settle(one, two)


def step(one: Reference, two: Subject, present: Termios, what: str, value: Any) -> Termios:
    if what == "type":
        type_both(one, two, value, present)
    elif what == "read":
        assert one.read(value) == two.read(value)
    elif what == "write":
        one.write(value)
        two.write(value)
        assert one.output() == two.output(), value
    else:
        one.configure(value)
        two.configure(value)
        present = value
    assert (one.available(), one.readable()) == (two.available(), two.readable())
    return present


Steps = list[tuple[str, Any]]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(all_settings(), st.lists(STEPS, min_size=1, max_size=10))
@example(
    USUAL, [("type", b"ab\tc\x7f\x7f\x7f\x7f\x7f"), ("type", b"one\ntwo\x04\x04three\r"), ("read", 2), ("read", 64)]
)
@example(USUAL, [("type", b"word two_3  \x17\x17x\x15y\x16\x03z\x12\n")])
@example(USUAL, [("write", b"prompt\t> "), ("type", b"a\x01\tb\t\x7f\x7f\x7f\x7f\x7f")])
def test_what_readers_get_and_terminals_show_is_what_linux_gives_and_shows(first: Termios, steps: Steps) -> None:
    one, two = Reference(), Subject()
    try:
        present = step(one, two, USUAL, "configure", first)
        for what, value in steps:
            present = step(one, two, present, what, value)
        drain(one, two)
    finally:
        one.close()


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("count", [4094, 4095, 4096, 5000])
def test_a_full_queue_does_what_linux_s_does(raw: bool, count: int) -> None:
    one, two = Reference(), Subject()
    quiet = replace(USUAL, lflag=0 if raw else t.ICANON)
    try:
        for side in (one, two):
            side.configure(quiet)
        typed = bytes(48 + at % 70 for at in range(count))
        one.type(typed)
        taken = two.tty.receive(typed)
        assert taken == (min(count, QUEUE_BYTES - 1) if raw else count)
        settle(one, two)
        got = two.read(10_000)
        if raw:
            assert got == typed[:taken] == one.read(taken)
            return
        one.type(b"!\n")
        assert two.tty.receive(b"!\n") == 2
        settle(one, two)
        assert one.read(10_000) == two.read(10_000)
    finally:
        one.close()


# ---- what needs no comparison


def test_settings_have_the_layout_of_the_kernel() -> None:
    one = Reference()
    try:
        found = one.settings()
        assert found.pack() == fcntl.ioctl(one.slave, TCGETS, bytes(36))
        assert found.lflag == USUAL.lflag and found.oflag & 0xFF == USUAL.oflag
        assert found.characters[:17] == USUAL.characters[:17]
    finally:
        one.close()


def test_a_complete_line_makes_a_full_queue_refuse_more() -> None:
    tty = Tty(replace(USUAL, lflag=t.ICANON))
    assert tty.receive(b"line\n" + b"x" * 5000) == QUEUE_BYTES - 1
    assert tty.receive(b"y") == 0
    assert tty.read(100) == b"line\n"
    assert tty.receive(b"y") == 1


@pytest.mark.parametrize(("key", "number"), [(3, signal.SIGINT), (28, signal.SIGQUIT), (26, signal.SIGTSTP)])
def test_signals_are_raised_flush_what_was_typed_and_are_echoed(key: int, number: int) -> None:
    tty = Tty()
    tty.receive(b"typed\nand more" + bytes((key,)))
    assert (list(tty.signals), tty.available(), tty.readable()) == ([number], 0, False)
    assert tty.output.endswith(bytes((ord("^"), key | 0x40)))
    kept = Tty(replace(USUAL, lflag=USUAL.lflag | t.NOFLSH))
    kept.receive(b"typed\n" + bytes((key,)))
    assert (list(kept.signals), kept.read(64)) == ([number], b"typed\n")
    plain = Tty(replace(USUAL, lflag=USUAL.lflag & ~t.ISIG))
    plain.receive(bytes((key,)) + b"\n")
    assert (list(plain.signals), plain.read(64)) == ([], bytes((key,)) + b"\n")


def test_raw_readers_wait_for_as_many_bytes_as_vmin_says() -> None:
    characters = bytearray(USUAL.characters)
    characters[t.VMIN] = 3
    tty = Tty(replace(USUAL, lflag=0, characters=bytes(characters)))
    assert tty.receive(b"ab") == 2
    assert (tty.read(10), tty.read(2), tty.readable()) == (None, b"ab", False)
    tty.receive(b"cd")
    assert tty.read(10, wait=False) == b"cd"
    tty.receive(b"efg")
    assert (tty.readable(), tty.read(10)) == (True, b"efg")


def test_echo_that_nobody_takes_is_bounded() -> None:
    tty = Tty(replace(USUAL, lflag=t.ECHO))
    for _ in range(40):
        tty.receive(b"\n" * 4000)
        tty.flush()
    assert OUTPUT_BYTES <= len(tty.output) <= OUTPUT_BYTES + 2


@settings(deadline=None, max_examples=60)
@given(all_settings(), st.lists(st.binary(max_size=40), max_size=8), st.sampled_from([1, 7, 4096]))
def test_nothing_grows_without_bound_and_a_restart_changes_nothing(
    wanted: Termios, typed: list[bytes], size: int
) -> None:
    tty = Tty()
    tty.configure(wanted)
    for part in typed:
        tty.receive(part * 200)
        assert len(tty.queue) == len(tty.marks) <= QUEUE_BYTES
        assert tty.ready <= len(tty.queue)
        again = Tty.unpack(tty.pack())
        assert again == tty
        assert again.read(size) == tty.read(size)
