"""What generated stubs promise to both ends of a call, and what the port of a coalesced service adds.

One sample interface, generated and executed, is called through a port that hands payloads over the way a
frame does: as a view of memory that is not the caller's. Its definition and these helpers serve the other
interface tests, too.
"""

from __future__ import annotations

import array
import errno
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from corekernel.errors import (
    BadFrame,
    BadOperation,
    DeadlineExceeded,
    HandlerFault,
    ServiceError,
    TooBig,
    WouldWait,
)
from corekernel.local_port import LocalPort
from corekernel.port import Payload, Registers, Reply
from services.codec import camel_case
from services.emit import stub
from services.idl import Interface, load

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Somebody:
    """A caller."""

    client: int = 7
    uid: int = 1000
    gid: int = 1000
    pid: int = 3
    thread: int = 0


@dataclass
class FramePort:
    """Checks a client against the port's contract; payloads move as in a frame, through other memory."""

    inner: LocalPort
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def call(
        self,
        operation: int,
        registers: Registers = (),
        payload: Payload = b"",
        returns: int = 0,
        capacity: int = 0,
        idempotent: bool = False,
    ) -> Reply:
        self.calls.append((operation, registers, payload, returns, capacity, idempotent))
        assert len(registers) <= 8 and all(0 <= register < 1 << 64 for register in registers)
        results, contents = self.inner.call(operation, registers, memoryview(bytearray(payload)))
        assert len(results) == returns and all(0 <= register < 1 << 64 for register in results)
        assert len(contents) <= capacity
        return results, memoryview(bytearray(contents))


@dataclass
class RawPort:
    """Replies with whatever it was told to."""

    reply: Reply

    def call(self, *_: object) -> Reply:
        return self.reply


def written(text: str, name: str = "sample") -> Interface:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.toml")
        path.write_text(text)
        return load(path, path.name)


def module_of(interface: Interface) -> ModuleType:
    module = ModuleType(interface.name)
    exec(compile(stub(interface, "Generated in a test."), f"<{interface.name}>", "exec"), module.__dict__)
    return module


def serving(interface: Interface, module: ModuleType, answer: Callable[..., Any]) -> Any:
    """A server whose every operation is `answer(name, *arguments)`."""

    def method(name: str) -> Callable[..., Any]:
        return lambda self, caller, *arguments: answer(name, *arguments)

    base = getattr(module, f"{camel_case(interface.name)}Server")
    return type("Recorder", (base,), {item.name: method(item.name) for item in interface.operations})()


def client_of(interface: Interface, module: ModuleType, port: object) -> Any:
    return getattr(module, f"{camel_case(interface.name)}Client")(port)


SAMPLE = """
name = "sample"
doc = "Everything once."

[[operation]]
name = "all"
id = 5
doc = "Every kind both ways."
idempotent = true
arguments = [
    { name = "flag", kind = "bool" },
    { name = "low", kind = "i64" },
    { name = "high", kind = "u64" },
    { name = "text", kind = "str", max = 8 },
    { name = "raw", kind = "bytes", max = 8 },
    { name = "data", kind = "buffer", max = "1 KiB" },
]
returns = [
    { name = "flag", kind = "bool" },
    { name = "low", kind = "i64" },
    { name = "high", kind = "u64" },
    { name = "text", kind = "str", max = 8 },
    { name = "raw", kind = "bytes", max = 8 },
    { name = "data", kind = "buffer", max = "1 KiB" },
]

[[operation]]
name = "null"
id = 1
doc = "Nothing."

[[operation]]
name = "hand"
id = 2
doc = "One buffer."
arguments = [{ name = "data", kind = "buffer", max = "16 MiB" }]
returns = [{ name = "size", kind = "u64" }]
errors = ["ENOENT", "EWOULDBLOCK"]

[[operation]]
name = "hold"
id = 3
doc = "Waits."
may_wait = true
returns = [{ name = "word", kind = "str", max = 4 }]
"""
VALUES = (True, -(1 << 63), (1 << 64) - 1, "żółć", b"\x00\xff", b"d" * 1024)


def sample(answer: Callable[..., Any]) -> tuple[Any, FramePort, ModuleType]:
    interface = written(SAMPLE)
    module = module_of(interface)
    port = FramePort(LocalPort(serving(interface, module, answer).handlers(), Somebody()))
    return client_of(interface, module, port), port, module


def raising(error: Exception) -> Callable[..., Any]:
    def answer(*_: object) -> Any:
        raise error

    return answer


def test_every_kind_round_trips_at_its_extremes() -> None:
    client, port, module = sample(lambda name, *values: module.AllResult(*values))
    result = client.all(*VALUES)
    assert result == VALUES and result.text == "żółć" and type(result.data) is bytes
    operation, registers, payload, returns, capacity, idempotent = port.calls[0]
    assert (operation, returns, capacity, idempotent) == (5, 6, 8 + 8 + 1024, True)
    assert registers == (1, 1 << 63, (1 << 64) - 1, 8, 2, 1024)
    assert payload == "żółć".encode() + b"\x00\xff" + b"d" * 1024


def test_a_null_call_passes_its_number_and_nothing_else() -> None:
    client, port, _ = sample(lambda name: None)
    client.null()
    assert port.calls == [(1, (), b"", 0, 0, False)]


def test_a_single_buffer_is_handed_to_the_port_without_a_copy() -> None:
    client, port, _ = sample(lambda name, data: len(data))
    data = bytearray(100)
    assert client.hand(data) == 100
    assert port.calls[0][2] is data


def test_a_view_of_wider_or_scattered_items_travels_as_its_bytes() -> None:
    seen: list[bytes] = []

    def answer(name: str, data: memoryview) -> int:
        seen.append(bytes(data))
        return len(data)

    client, _, _ = sample(answer)
    words = array.array("I", [1, 2, 3])
    assert client.hand(memoryview(words)) == 12
    assert client.hand(memoryview(b"a-b-c-")[::2]) == 3
    assert seen == [words.tobytes(), b"abc"]


def test_a_handler_sees_a_buffer_live_and_read_only_but_bytes_copied() -> None:
    shared = bytearray(b"txrw" + b"live")
    kept: list[Any] = []

    def answer(name: str, *values: Any) -> Any:
        kept[:] = values
        with pytest.raises(TypeError):
            values[5][0] = 1
        return module.AllResult(*VALUES)

    interface = written(SAMPLE)
    module = module_of(interface)
    handlers = serving(interface, module, answer).handlers()
    handlers[5](Somebody(), (0, 0, 0, 2, 2, 4), memoryview(shared))
    shared[:] = b"XXXXXXXX"
    assert kept[3:5] == ["tx", b"rw"] and bytes(kept[5]) == b"XXXX"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EAGAIN])
def test_a_declared_errno_reaches_the_caller_even_under_its_other_name(number: int) -> None:
    client, _, _ = sample(raising(ServiceError(number, "as declared")))
    with pytest.raises(ServiceError, match="as declared") as caught:
        client.hand(b"")
    assert caught.value.errno == number and caught.value.__cause__ is None


def test_an_undeclared_errno_is_a_fault_of_the_service_that_names_it() -> None:
    error = ServiceError(errno.EPERM)
    client, _, _ = sample(raising(error))
    with pytest.raises(HandlerFault, match=r"sample\.hand raised EPERM") as caught:
        client.hand(b"")
    assert caught.value.__cause__ is error


def test_only_an_operation_declared_may_wait_may_wait() -> None:
    client, _, _ = sample(raising(WouldWait("door")))
    with pytest.raises(WouldWait):
        client.hold()
    with pytest.raises(HandlerFault, match="may_wait"):
        client.null()


@pytest.mark.parametrize(
    "change", [{1: 1 << 63}, {1: -(1 << 63) - 1}, {2: 1 << 64}, {2: -1}, {3: "x" * 9}, {4: b"x" * 9}]
)
def test_what_does_not_fit_is_refused_before_the_call_and_before_the_reply(change: dict[int, Any]) -> None:
    wrong = [change.get(index, value) for index, value in enumerate(VALUES)]
    client, port, module = sample(lambda name, *values: module.AllResult(*wrong))
    with pytest.raises(TooBig, match="argument"):
        client.all(*wrong)
    assert not port.calls
    with pytest.raises(TooBig, match="result"):
        client.all(*VALUES)


def test_text_that_is_not_utf8_is_refused_at_both_ends() -> None:
    interface = written(SAMPLE)
    module = module_of(interface)
    handlers = serving(interface, module, lambda *_: module.AllResult(*VALUES)).handlers()
    with pytest.raises(BadFrame, match="UTF-8"):
        handlers[5](Somebody(), (0, 0, 0, 2, 0, 0), b"\xed\xa0")
    with pytest.raises(BadFrame, match="UTF-8"):
        client_of(interface, module, RawPort(((1,), b"\xff"))).hold()


def test_what_is_known_about_operations_is_what_was_declared() -> None:
    _, _, module = sample(lambda *_: None)
    info = module.INTERFACE
    assert info.name == "sample" and list(info.operations) == [1, 2, 3, 5]
    assert info.operations[2].errors == {errno.ENOENT, errno.EAGAIN}
    assert info.operations[3].may_wait and not info.operations[3].idempotent
    assert info.operations[5].idempotent and not info.operations[5].may_wait


# The port of a coalesced service ---------------------------------------------------------------------


def test_a_local_port_knows_null_and_refuses_operations_the_table_lacks() -> None:
    port = LocalPort({}, Somebody())
    assert port.call(0) == ((), b"")
    with pytest.raises(BadOperation, match="63"):
        port.call(63)


def test_a_local_port_turns_a_stray_exception_into_a_fault_and_passes_what_hmk_raises() -> None:
    stray = KeyError("lost")
    client, _, _ = sample(raising(stray))
    with pytest.raises(HandlerFault, match="KeyError: 'lost'") as caught:
        client.null()
    assert caught.value.__cause__ is stray
    late = DeadlineExceeded("too late")
    client, _, _ = sample(raising(late))
    with pytest.raises(DeadlineExceeded) as passed:
        client.null()
    assert passed.value is late


def test_a_local_port_calls_as_the_caller_it_was_made_for() -> None:
    callers: list[object] = []

    def handler(caller: object, registers: Registers, payload: Payload) -> Reply:
        callers.append(caller)
        return (), b""

    LocalPort({9: handler}, Somebody(client=42)).call(9)
    assert callers == [Somebody(client=42)]
