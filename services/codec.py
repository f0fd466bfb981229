"""How generated code turns values into a message and back, as lines of Python.

The vocabulary that both ends of a stub share: `encode` for a client's arguments and a server's results,
`decode` for a server's arguments and a client's results. The wire format is that of `corekernel.port`. What
`decode` tests first is the whole defence against a hostile peer: the number of registers, each length against
its maximum, each boolean, and that the lengths sum exactly to the payload; nothing of the payload is looked
at before.

Names cannot collide: those of a definition neither begin nor end with an underscore, so the locals of a
client method do (`_payload`, `name_`); a server's function takes no name from the definition but `name_`.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from services.idl import Field, Kind, Operation

_WIDTH = 110


def indent(lines: list[str], depth: int = 1) -> list[str]:
    """The lines, each perhaps several joined by newlines, moved right; empty ones stay empty."""
    return ["    " * depth + line if line else "" for entry in lines for line in entry.split("\n")]


def fold(head: str, parts: list[str], tail: str, joint: str = ", ", depth: int = 2) -> list[str]:
    """`head` parts `tail` on one line if they fit, else one part on each line."""
    line = f"{head}{joint.join(parts)}{tail}"
    if len(line) + 4 * depth <= _WIDTH:
        return [line]
    if joint == ", ":
        return [head, *indent([f"{part}," for part in parts]), tail]
    return [f"{head}(", *indent([parts[0], *(f"{joint.strip()} {part}" for part in parts[1:])]), f"){tail}"]


def prose(text: str, depth: int) -> list[str]:
    """Wrapped paragraphs, safe inside a docstring."""
    safe = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    safe = re.sub(r'"\Z', r"\"", safe)
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", safe)]
    width = _WIDTH - 4 * depth - 6
    lines = ["\n".join(textwrap.wrap(paragraph, width, break_long_words=False)) for paragraph in paragraphs]
    return "\n\n".join(lines).split("\n")


def docstring(sections: list[list[str]]) -> list[str]:
    """A docstring of sections separated by blank lines."""
    body = sections[0]
    for section in sections[1:]:
        body = [*body, "", *section]
    if len(body) == 1:
        return [f'"""{body[0]}"""']
    return [f'"""{body[0]}', *body[1:], '"""']


def camel_case(name: str) -> str:
    """The name of an interface or operation as the beginning of a class name."""
    return "".join(word.capitalize() for word in name.split("_"))


def shape(field: Field) -> str:
    """A field on one line, with its bound, for people."""
    bound = f" <= {_size(field.limit)}" if field.kind.has_contents else ""
    return f"{field.name}: {field.kind}{bound}"


def _size(limit: int) -> str:
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if limit % scale == 0:
            return f"{limit // scale} {unit}"
    return f"{limit} bytes"


def signature(operation: Operation) -> str:
    """An operation on one line, with the bounds of its arguments, for people."""
    arguments = ", ".join(map(shape, operation.arguments))
    results = ", ".join(map(shape, operation.returns))
    return f"{operation.name}({arguments})" + (f" -> {results}" if results else "")


@dataclass(frozen=True, slots=True)
class Encoding:
    """Code that turns values into a message: statements, tests for excess, the two halves."""

    setup: list[str]
    excesses: list[str]
    registers: str
    payload: str


def encode(fields: tuple[Field, ...], values: list[str]) -> Encoding:
    """Encode fields whose values are these expressions."""
    setup, excesses, registers, contents = [], [], [], []
    for field, value in zip(fields, values, strict=True):
        if field.kind in (Kind.STR, Kind.BUFFER):
            flat = f"{value}.encode()" if field.kind is Kind.STR else _unless_bytes(value, "{}", "_flat({})")
            setup.append(f"{field.name}_ = {flat}")
            value = f"{field.name}_"
        if field.kind.has_contents:
            excesses.append(f"len({value}) > {field.limit}")
            contents.append(value)
        elif field.kind is not Kind.BOOL:
            excesses.append(f"{value} >> 64" if field.kind is Kind.U64 else f"not -SIGN_BIT <= {value} < SIGN_BIT")
        registers.append(_encoded(field.kind, value))
    payload = contents[0] if len(contents) == 1 else f'b"".join(({", ".join(contents)}))' if contents else 'b""'
    comma = "," if len(registers) == 1 else ""
    return Encoding(setup, excesses, f"({', '.join(registers)}{comma})", payload)


def _unless_bytes(source: str, plain: str, other: str) -> str:
    """An expression with a short way for bytes, which most payloads are; a part of a payload is never bytes."""
    if not source.isidentifier():
        return other.format(source)
    return f"{plain.format(source)} if {source}.__class__ is _Bytes else {other.format(source)}"


def _encoded(kind: Kind, value: str) -> str:
    match kind:
        case Kind.U64:
            return value
        case Kind.I64:
            return f"{value} & U64_MAX"
        case Kind.BOOL:
            return f"1 if {value} else 0"
    return f"len({value})"


@dataclass(frozen=True, slots=True)
class Decoding:
    """Code that turns a message into values: tests that it is malformed, statements, and expressions."""

    faults: list[str]
    setup: list[str]
    values: list[str]


def decode(fields: tuple[Field, ...], prefix: str, plain: str, buffer: str) -> Decoding:
    """Decode the locals PREFIXregisters and PREFIXpayload; how to hand on a buffer that is bytes, and any other."""
    registers, payload = f"{prefix}registers", f"{prefix}payload"
    lengths = [f"{registers}[{index}]" for index, field in enumerate(fields) if field.kind.has_contents]
    faults = [f"len({registers}) != {len(fields)}" if fields else registers]
    faults += [f"{registers}[{index}] > {_largest(field)}" for index, field in enumerate(fields) if _largest(field)]
    faults.append(f"{' + '.join(lengths)} != len({payload})" if lengths else f"len({payload})")
    setup, sources = _slices(lengths, prefix)
    remaining = iter(sources)
    values = [
        _decoded(field.kind, next(remaining) if field.kind.has_contents else f"{registers}[{index}]", plain, buffer)
        for index, field in enumerate(fields)
    ]
    return Decoding(faults, setup, values)


def _slices(lengths: list[str], prefix: str) -> tuple[list[str], list[str]]:
    """Statements and expressions that cut a payload into its parts; a single part is the payload itself."""
    if len(lengths) <= 1:
        return [], [f"{prefix}payload"] * len(lengths)
    setup, sources, start = [f"{prefix}view = memoryview({prefix}payload)"], [], ""
    for index, length in enumerate(lengths[:-1], 1):
        end = f"{prefix}end_{index}"
        setup.append(f"{end} = {start} + {length}" if start else f"{end} = {length}")
        sources.append(f"{prefix}view[{start}:{end}]")
        start = end
    return setup, [*sources, f"{prefix}view[{start}:]"]


def _largest(field: Field) -> int:
    return 1 if field.kind is Kind.BOOL else field.limit


def _decoded(kind: Kind, source: str, plain: str, buffer: str) -> str:
    match kind:
        case Kind.U64:
            return source
        case Kind.I64:
            return f"({source} ^ SIGN_BIT) - SIGN_BIT"
        case Kind.BOOL:
            return f"{source} == 1"
        case Kind.STR:
            return f"_text({source})"
        case Kind.BYTES:
            return _unless_bytes(source, "{}", "_copied({})")
    return _unless_bytes(source, plain, buffer)


def raise_if(tests: list[str], error: str, text: str) -> list[str]:
    """Statements that raise `error` when one of the tests holds."""
    if not tests:
        return []
    return [
        *fold("if ", tests, ":", " or "),
        *indent(fold(f"raise {error}(", [f'"{text}"'], ")", depth=3)),
    ]
