"""Properties of the interface language, over random interfaces: definitions, values and hostile messages.

Whatever `services.idl` accepts becomes a stub that runs and brings values over unchanged; and whatever
stands in a message, neither end hands on a value that the declaration does not allow.
"""

from __future__ import annotations

import errno
import re
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corekernel.errors import BadFrame, HandlerFault, ServiceError
from corekernel.local_port import LocalPort
from services.codec import camel_case
from services.idl import Field, Interface, Kind, Operation
from tests.test_interfaces import FramePort, RawPort, Somebody, client_of, module_of, serving, written

# Names that generated code might trip over, were it careless.
NAMES = st.sampled_from(
    [
        "a",
        "b",
        "data",
        "payload",
        "registers",
        "reply",
        "result",
        "error",
        "view",
        "text",
        "flat",
        "copied",
        "list",
        "dict",
        "object",
        "type",
        "property",
        "port",
        "errno",
        "enum",
        "typing",
        "final",
        "empty",
        "interface",
        "end",
        "name",
        "value",
        "call",
        "map",
        "set",
        "id",
        "input",
        "super",
    ]
)
ERRORS = st.lists(st.sampled_from(["ENOENT", "EPERM", "EAGAIN", "EINVAL"]), unique=True).map(tuple)
SMALL_KINDS = [kind for kind in Kind if kind is not Kind.BUFFER]
DOCS = st.sampled_from(["", "What it is.", 'It says """quoted""" and \\ and "', "Two\n\nparagraphs of \\N."])
MEASURES = st.sampled_from([1, 2, 7, 300])


@st.composite
def field_lists(draw: st.DrawFn) -> tuple[Field, ...]:
    names = draw(st.lists(NAMES, unique=True, max_size=8))
    kinds: list[Kind] = [draw(st.sampled_from(SMALL_KINDS)) for _ in names]
    ends_in_buffer: bool = draw(st.booleans())
    if kinds and ends_in_buffer:
        kinds[-1] = Kind.BUFFER
    return tuple(
        Field(name, kind, draw(MEASURES) if kind.has_contents else 0, draw(DOCS))
        for name, kind in zip(names, kinds, strict=True)
    )


@st.composite
def interfaces(draw: st.DrawFn) -> Interface:
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=4))
    numbers = draw(st.lists(st.integers(1, 63), unique=True, min_size=len(names), max_size=len(names)))
    operations = [
        Operation(
            name,
            number,
            draw(DOCS) or "Do it.",
            draw(st.booleans()),
            draw(st.booleans()),
            draw(field_lists()),
            draw(field_lists()),
            draw(ERRORS),
        )
        for name, number in zip(names, sorted(numbers), strict=True)
    ]
    return Interface("sample", draw(DOCS) or "A sample.", tuple(operations))


def toml_of(interface: Interface) -> str:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    def table(item: Field) -> str:
        limit = f", max = {item.limit}" if item.limit else ""
        return f'{{ name = "{item.name}", kind = "{item.kind}"{limit}, doc = {quoted(item.doc)} }}'

    lines = [f'name = "{interface.name}"', f"doc = {quoted(interface.doc)}"]
    for item in interface.operations:
        lines += [
            "[[operation]]",
            f'name = "{item.name}"',
            f"id = {item.number}",
            f"doc = {quoted(item.doc)}",
        ]
        lines += [f"idempotent = {str(item.idempotent).lower()}", f"may_wait = {str(item.may_wait).lower()}"]
        for key, fields in (("arguments", item.arguments), ("returns", item.returns)):
            lines += [f"{key} = [", *(f"    {table(field)}," for field in fields), "]"]
        lines += [f"errors = {list(item.errors)}"]
    return "\n".join(lines)


def values_of(item: Field) -> st.SearchStrategy[Any]:
    match item.kind:
        case Kind.U64:
            return st.integers(0, (1 << 64) - 1)
        case Kind.I64:
            return st.integers(-(1 << 63), (1 << 63) - 1)
        case Kind.BOOL:
            return st.booleans()
        case Kind.STR:
            return st.text(max_size=item.limit).filter(lambda text: _fits(text, item.limit))
    return st.binary(max_size=item.limit)


def _fits(text: str, limit: int) -> bool:
    try:
        return len(text.encode()) <= limit
    except UnicodeEncodeError:
        return False


def lawful(item: Field, value: Any) -> bool:
    """Whether a decoded value is one its declaration allows."""
    match item.kind:
        case Kind.U64:
            return type(value) is int and 0 <= value < 1 << 64
        case Kind.I64:
            return type(value) is int and -(1 << 63) <= value < 1 << 63
        case Kind.BOOL:
            return type(value) is bool
        case Kind.STR:
            return type(value) is str and len(value.encode()) <= item.limit
        case Kind.BYTES:
            return type(value) is bytes and len(value) <= item.limit
    return isinstance(value, bytes | memoryview) and len(value) <= item.limit


def packed(module: ModuleType, operation: Operation, values: list[Any]) -> Any:
    """A handler's result, in the type that its operation returns."""
    if len(values) < 2:
        return values[0] if values else None
    return getattr(module, f"{camel_case(operation.name)}Result")(*values)


@settings(max_examples=80, deadline=None)
@given(interface=interfaces(), data=st.data())
def test_any_interface_survives_toml_and_round_trips_random_values(interface: Interface, data: st.DataObject) -> None:
    assert _without_blanks(written(toml_of(interface))) == _without_blanks(interface)
    module = module_of(interface)
    received: list[Any] = []
    results: dict[str, Any] = {}

    def answer(name: str, *arguments: Any) -> Any:
        received[:] = arguments
        return results[name]

    port = FramePort(LocalPort(serving(interface, module, answer).handlers(), Somebody()))
    client = client_of(interface, module, port)
    for operation in interface.operations:
        sent = [data.draw(values_of(item)) for item in operation.arguments]
        results[operation.name] = packed(module, operation, [data.draw(values_of(item)) for item in operation.returns])
        assert getattr(client, operation.name)(*sent) == results[operation.name]
        assert received == sent and all(map(lawful, operation.arguments, received))
        number, *_, idempotent = port.calls[-1]
        assert (number, idempotent) == (operation.number, operation.idempotent)


def _without_blanks(interface: Interface) -> str:
    return re.sub(r"(\\n| )+", "", repr(interface)).replace("\\", "")


@st.composite
def messages(draw: st.DrawFn, fields: tuple[Field, ...]) -> tuple[tuple[int, ...], bytes]:
    """A message that is lawful for these fields but for, perhaps, one thing or everything."""
    lawful_register = {Kind.BOOL: 1, Kind.U64: (1 << 64) - 1, Kind.I64: (1 << 64) - 1}
    registers = [draw(st.integers(0, lawful_register.get(item.kind, item.limit))) for item in fields]
    lengths = [length for item, length in zip(fields, registers, strict=True) if item.kind.has_contents]
    size = max(0, sum(lengths) + draw(st.sampled_from([0, 0, 1, -1])))
    payload = draw(st.just(b"a" * size) | st.binary(min_size=size, max_size=size))
    match draw(st.sampled_from(["as it is", "one more", "one less", "one wrong", "all wrong"])):
        case "one more":
            registers.append(0)
        case "one less":
            registers = registers[:-1]
        case "one wrong" if registers:
            place = draw(st.integers(0, len(registers) - 1))
            registers[place] = draw(st.sampled_from([2, fields[place].limit + 1, 1 << 63, (1 << 64) - 1]))
            # The sum may still be right: only the maximum tells.
            payload = b"a" * draw(st.sampled_from([size, registers[place] % 1000]))
        case "all wrong":
            return tuple(draw(st.lists(st.integers(0, (1 << 64) - 1), max_size=9))), draw(st.binary(max_size=40))
    return tuple(registers), payload


def well_formed(fields: tuple[Field, ...], registers: tuple[int, ...], payload: bytes) -> bool:
    """Whether a message obeys the wire format, decided without the code under test."""
    if len(registers) != len(fields):
        return False
    rest = payload
    for item, register in zip(fields, registers, strict=True):
        if item.kind is Kind.BOOL and register > 1:
            return False
        if item.kind.has_contents:
            part, rest = rest[:register], rest[register:]
            if register > item.limit or len(part) < register or (item.kind is Kind.STR and not _is_text(part)):
                return False
    return not rest


def _is_text(part: bytes) -> bool:
    try:
        part.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=200, deadline=None)
@given(interface=interfaces(), data=st.data())
def test_a_call_reaches_its_handler_exactly_when_it_is_well_formed(interface: Interface, data: st.DataObject) -> None:
    module = module_of(interface)
    operations = {operation.name: operation for operation in interface.operations}

    def answer(name: str, *arguments: Any) -> Any:
        assert all(map(lawful, operations[name].arguments, arguments))
        raise ServiceError(errno.EPERM)

    handlers = serving(interface, module, answer).handlers()
    operation = data.draw(st.sampled_from(interface.operations))
    registers, payload = data.draw(messages(operation.arguments))
    with pytest.raises((BadFrame, ServiceError, HandlerFault)) as caught:
        handlers[operation.number](Somebody(), registers, memoryview(payload))
    reached = ServiceError if "EPERM" in operation.errors else HandlerFault
    expected = reached if well_formed(operation.arguments, registers, payload) else BadFrame
    assert caught.type is expected


@settings(max_examples=200, deadline=None)
@given(interface=interfaces(), data=st.data())
def test_a_reply_is_believed_exactly_when_it_is_well_formed(interface: Interface, data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(interface.operations))
    arguments = [data.draw(values_of(item)) for item in operation.arguments]
    registers, payload = data.draw(messages(operation.returns))
    client = client_of(interface, module_of(interface), RawPort((registers, payload)))
    call = getattr(client, operation.name)
    if operation.returns and not well_formed(operation.returns, registers, payload):
        with pytest.raises(BadFrame):
            call(*arguments)
        return
    result = call(*arguments)
    values = list(result) if len(operation.returns) > 1 else [result][: len(operation.returns)]
    assert all(map(lawful, operation.returns, values))
