"""Emits one interface's stub: the text of `services/stubs/NAME.py`.

A stub has four parts: the operation numbers, what is known about them (`INTERFACE`), the client that encodes
a call for a `Port`, and the server that decodes it for a handler. How values become messages is in
`services.codec`; here is everything around it: classes, signatures, docstrings, and which errors a handler
may raise.
"""

from __future__ import annotations

import re

from services.codec import (
    Encoding,
    camel_case,
    decode,
    docstring,
    encode,
    fold,
    indent,
    prose,
    raise_if,
    shape,
)
from services.idl import Field, Interface, Kind, Operation

_CLIENT_TYPE = {
    Kind.U64: "int",
    Kind.I64: "int",
    Kind.BOOL: "bool",
    Kind.STR: "str",
    Kind.BYTES: "bytes",
    Kind.BUFFER: "Payload",
}
# Where a name that a stub may need comes from; only those that it uses are imported.
_IMPORTS = {
    "corekernel.errors": ("BadFrame", "ServiceError", "TooBig", "WouldWait"),
    "corekernel.interface": ("EMPTY", "SIGN_BIT", "U64_MAX", "InterfaceInfo", "OperationInfo"),
    "corekernel.port": ("Caller", "HandlerTable", "Payload", "Port", "Registers", "Reply"),
}
_HELPERS = ("Bytes", "copied", "flat", "text")
_BUFFER_NOTE = (
    "`{name}` is a read-only view of memory that may be shared with the caller, who can change it under you: "
    "copy once what you check."
)


def stub(interface: Interface, origin: str) -> str:
    """The stub's text; `origin` is a sentence that says what it was generated from.

    The text is valid, `mypy --strict` clean Python for every interface that `services.idl` accepts.
    """
    camel = camel_case(interface.name)
    body = [
        *_numbers(interface),
        *_info(interface),
        *(line for operation in interface.operations for line in _result_class(operation)),
        *_client(interface, camel),
        *_server(interface, camel),
    ]
    head = [
        *docstring([prose(interface.doc, 0), prose(origin, 0)]),
        "",
        "from __future__ import annotations",
        "",
    ]
    return "\n".join([*head, *_imports("\n".join(body)), *body]) + "\n"


def _imports(body: str) -> list[str]:
    used = set(re.findall(r"\w+", body))
    lines = ["import abc", "import enum", *(["import errno"] if "errno" in used else [])]
    typing = [name for name in ("Final", "NamedTuple") if name in used]
    lines += [f"from typing import {', '.join(typing)}", ""]
    for module, names in _IMPORTS.items():
        needed = [name for name in names if name in used]
        lines += [f"from {module} import {', '.join(needed)}"] if needed else []
        if module == "corekernel.interface":
            helpers = [name for name in _HELPERS if f"_{name}" in used]
            lines += [f"from {module} import {name} as _{name}" for name in helpers]
    return lines


def _constant(operation: Operation) -> str:
    return f"_OP_{operation.name.upper()}"


def _numbers(interface: Interface) -> list[str]:
    camel = camel_case(interface.name)
    constants = [f"{_constant(operation)}: Final = {operation.number}" for operation in interface.operations]
    members = [f"{operation.name.upper()} = {operation.number}" for operation in interface.operations]
    head = [
        f"class {camel}Operation(enum.IntEnum):",
        f'    """Operation numbers of `{interface.name}`."""',
        "",
    ]
    return ["", *constants, "", "", *head, *indent(members), "", ""]


def _info(interface: Interface) -> list[str]:
    rows = []
    for operation in interface.operations:
        numbers = [f"errno.{name}" for name in operation.errors]
        errors = "\n".join(fold("frozenset({", numbers, "})", depth=4)) if numbers else "frozenset()"
        facts = [f'"{operation.name}"', str(operation.idempotent), str(operation.may_wait), errors]
        rows += fold(f"{_constant(operation)}: OperationInfo(", facts, "),")
    return [
        "INTERFACE: Final = InterfaceInfo(",
        f'    "{interface.name}",',
        "    {",
        *indent(rows, 2),
        "    },",
        ")",
    ]


def _result_class(operation: Operation) -> list[str]:
    if len(operation.returns) < 2:
        return []
    fields = [f"{field.name}: {_CLIENT_TYPE[field.kind]}" for field in operation.returns]
    doc = docstring([[f"What `{operation.name}` returns."], *_described("Attributes:", operation.returns, 1)])
    return ["", "", f"class {camel_case(operation.name)}Result(NamedTuple):", *indent([*doc, "", *fields])]


def _returned(operation: Operation, buffer: str) -> str:
    if not operation.returns:
        return "None"
    if len(operation.returns) > 1:
        return f"{camel_case(operation.name)}Result"
    kind = operation.returns[0].kind
    return buffer if kind is Kind.BUFFER else _CLIENT_TYPE[kind]


def _described(title: str, fields: tuple[Field, ...], depth: int) -> list[list[str]]:
    """A docstring section that says of each field what it is, its kind and its bound."""
    if not fields:
        return []
    lines = []
    for field in fields:
        bound = shape(field).removeprefix(f"{field.name}: ")
        entry = prose(f"{field.name}: {field.doc} ({bound})" if field.doc else shape(field), depth + 1)
        lines += [entry[0], *indent(entry[1:])]
    return [[title, *indent(lines)]]


def _client(interface: Interface, camel: str) -> list[str]:
    head = [
        f'"""Calls `{interface.name}` through a port; every method may also raise a `CallError`."""',
        "",
        '__slots__ = ("_port",)',
        "",
        "def __init__(self, port: Port) -> None:",
        "    self._port = port",
    ]
    methods = [line for operation in interface.operations for line in _client_method(interface, operation)]
    return ["", "", f"class {camel}Client:", *indent([*head, *methods])]


def _client_method(interface: Interface, operation: Operation) -> list[str]:
    name = f"{interface.name}.{operation.name}"
    encoding = encode(operation.arguments, [field.name for field in operation.arguments])
    decoding = decode(operation.returns, "_", "{}", "_copied({})")
    call = fold("self._port.call(", _call_arguments(operation, encoding), ")")
    body = [*encoding.setup, *raise_if(encoding.excesses, "TooBig", f"{name}: an argument is out of range")]
    if operation.returns:
        value = decoding.values[0]
        many = fold(f"return {_returned(operation, 'bytes')}(", decoding.values, ")")
        body += [f"_registers, _payload = {call[0]}", *call[1:]]
        body += raise_if(decoding.faults, "BadFrame", f"{name}: malformed reply")
        body += [*decoding.setup, *([f"return {value}"] if len(operation.returns) == 1 else many)]
    else:
        body += call
    doc = docstring([prose(operation.doc, 2), *_described("Args:", operation.arguments, 2), *_outcome(operation)])
    parameters = ["self", *(f"{field.name}: {_CLIENT_TYPE[field.kind]}" for field in operation.arguments)]
    head = fold(f"def {operation.name}(", parameters, f") -> {_returned(operation, 'bytes')}:", depth=1)
    return ["", *head, *indent([*doc, *body])]


def _outcome(operation: Operation) -> list[list[str]]:
    """The Returns and Raises sections."""
    sections = []
    if len(operation.returns) == 1:
        described = _described("Returns:", operation.returns, 2)
        sections += described
    if operation.errors:
        sections.append(["Raises:", *indent(prose(f"ServiceError: {', '.join(operation.errors)}.", 3))])
    return sections


def _call_arguments(operation: Operation, encoding: Encoding) -> list[str]:
    """The port's positional arguments, without those at the end that have their default value."""
    capacity = sum(field.limit for field in operation.returns)
    given = [
        encoding.registers,
        encoding.payload,
        str(len(operation.returns)),
        str(capacity),
        str(operation.idempotent),
    ]
    defaults = ["()", 'b""', "0", "0", "False"]
    while given and given[-1] == defaults[len(given) - 1]:
        given.pop()
    return [_constant(operation), *given]


def _server(interface: Interface, camel: str) -> list[str]:
    doc = [
        f'"""Serves `{interface.name}`: implement the abstract methods, hand `handlers()` to the runtime.',
        "",
        "An errno that an operation does not declare, or waiting without may_wait, becomes a `HandlerFault`.",
        '"""',
    ]
    entries = [f"{_constant(operation)}: self._serve_{operation.name}," for operation in interface.operations]
    table = [
        "",
        "def handlers(self) -> HandlerTable:",
        '    """Operation number to the function that decodes a call, runs it and encodes its result."""',
        "    return {",
        *indent(entries, 2),
        "    }",
    ]
    abstract = [line for operation in interface.operations for line in _abstract_method(operation)]
    serving = [line for operation in interface.operations for line in _serve_method(interface, operation)]
    return ["", "", f"class {camel}Server(abc.ABC):", *indent([*doc, *abstract, *table, *serving])]


def _abstract_method(operation: Operation) -> list[str]:
    types = {**_CLIENT_TYPE, Kind.BUFFER: "memoryview"}
    parameters = [
        "self",
        "caller: Caller",
        *(f"{field.name}: {types[field.kind]}" for field in operation.arguments),
    ]
    head = fold(f"def {operation.name}(", parameters, f") -> {_returned(operation, 'Payload')}:", depth=1)
    notes = [prose(_BUFFER_NOTE.format(name=field.name), 2) for field in operation.arguments if _is_buffer(field)]
    arguments = _described("Args:", operation.arguments, 2)
    doc = docstring([prose(operation.doc, 2), *notes, *arguments, *_outcome(operation)])
    return ["", "@abc.abstractmethod", *head, *indent(doc)]


def _is_buffer(field: Field) -> bool:
    return field.kind is Kind.BUFFER


def _serve_method(interface: Interface, operation: Operation) -> list[str]:
    name = f"{interface.name}.{operation.name}"
    decoding = decode(operation.arguments, "", "memoryview({})", "memoryview({}).toreadonly()")
    handler = fold(f"self.{operation.name}(", ["caller", *decoding.values], ")", depth=3)
    handler[0] = f"result = {handler[0]}" if operation.returns else handler[0]
    body = [
        *raise_if(decoding.faults, "BadFrame", f"{name}: malformed call"),
        *decoding.setup,
        "try:",
        *indent(handler),
        "except (ServiceError, WouldWait) as error:",
        f"    INTERFACE.admit({_constant(operation)}, error)",
        "    raise",
        *_reply(operation, name),
    ]
    head = f"def _serve_{operation.name}(self, caller: Caller, registers: Registers, payload: Payload) -> Reply:"
    return ["", head, *indent(body)]


def _reply(operation: Operation, name: str) -> list[str]:
    if not operation.returns:
        return ["return EMPTY"]
    values = ["result"] if len(operation.returns) == 1 else [f"result.{field.name}" for field in operation.returns]
    encoding = encode(operation.returns, values)
    too_big = raise_if(encoding.excesses, "TooBig", f"{name}: a result is out of range")
    return [*encoding.setup, *too_big, f"return {encoding.registers}, {encoding.payload}"]
