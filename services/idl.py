"""The interface definition language: reads `services/interfaces/*.toml` and refuses what cannot be generated.

A file declares one interface. At its top, `name` (that of the file) and `doc`; then one `[[operation]]` each:

    [[operation]]
    name = "digest"
    id = 1                          # 1 to 63, never reused for something else; 0 is the transport's null call
    doc = "Hash the contents of a buffer."
    idempotent = true               # default false: the call may be re-issued when the service died
    may_wait = false                # default false: the handler may raise WouldWait
    arguments = [{ name = "data", kind = "buffer", max = "16 MiB", doc = "what to hash" }]
    returns = [{ name = "digest", kind = "bytes", max = 32 }]
    errors = ["EINVAL"]             # the only errno values that its handler may raise

Every argument takes one of at most 8 registers, and so does every result. `u64`, `i64` and `bool` travel in
it; for `str` and `bytes` it holds the length in bytes (`max`, 1024 if not given) and the contents stand
inline in the frame, which bounds the sum of their maxima; a `buffer` (at most one, the last) may travel in
shared memory and must say its `max`. Sizes are integers or strings such as "64 KiB".

The file is read as strictly as any written by people (`corekernel.toml_lines` has the bounds). The first mistake in
it is a `DefinitionError` that reads `file:line: what is wrong; how to mend it`.

Names are restricted so that no generated name can collide with another: words of lower-case letters and
digits, each starting with a letter, joined by single underscores. Generated locals begin or end with an
underscore.
"""

from __future__ import annotations

import enum
import errno
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from corekernel.port import INLINE_BYTES, MAX_BULK_BYTES, REGISTERS
from corekernel.toml_keys import KeyPath
from corekernel.toml_lines import Document, Mistake, MistakesError, Place, Report, read_document

LAST_ID = 63
DEFAULT_MAX = 1024

_IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")
_SIZE = re.compile(r"(\d{1,12}) ?(KiB|MiB|)", re.ASCII)
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
# What generated signatures and bodies use; a method or a parameter of that name would hide it.
_TAKEN_BY_METHODS = {"abc", "bool", "bytes", "handlers", "int", "memoryview", "str"}
_TAKEN_BY_ARGUMENTS = {"caller", "len", "memoryview", "self"}
_TAKEN_BY_RESULTS = {"bool", "bytes", "count", "index", "int", "str"}


class Kind(enum.StrEnum):
    """How an argument or a result travels."""

    U64 = "u64"
    I64 = "i64"
    BOOL = "bool"
    STR = "str"
    BYTES = "bytes"
    BUFFER = "buffer"

    @property
    def has_contents(self) -> bool:
        """Whether the register holds a length, the contents standing in the payload."""
        return self in (Kind.STR, Kind.BYTES, Kind.BUFFER)


@dataclass(frozen=True, slots=True)
class Field:
    """One argument or result; `limit` is its largest length in bytes, 0 for what fits a register."""

    name: str
    kind: Kind
    limit: int
    doc: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, as declared."""

    name: str
    number: int
    doc: str
    idempotent: bool
    may_wait: bool
    arguments: tuple[Field, ...]
    returns: tuple[Field, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface; its operations stand in order of their numbers."""

    name: str
    doc: str
    operations: tuple[Operation, ...]


class DefinitionError(MistakesError):
    """A definition was refused; the text is `file:line: what is wrong; how to mend it`."""


@dataclass(frozen=True, slots=True)
class _Table:
    """One TOML table being checked: `path` is where it stands in the document, `what` how messages name it."""

    document: Document
    path: KeyPath
    what: str
    values: dict[str, Any]

    def refuse(self, what: str, mend: str, *path: str | int) -> NoReturn:
        """Refuse the file for what stands at `path` in this table."""
        place = self.document.place((*self.path, *path))
        raise DefinitionError([Mistake(place, f"{self.what}: {what}", mend)])

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                self.refuse(f"unknown key {key!r}", f"use only {', '.join(known)}", key)

    def name(self, taken: set[str]) -> str:
        name = self.values.get("name")
        if not isinstance(name, str):
            self.refuse("has no name", 'add name = "..."', "name")
        if not _IDENTIFIER.fullmatch(name):
            self.refuse(f"{name!r} is no name", "use lower-case words joined by single underscores", "name")
        if keyword.iskeyword(name) or name in taken:
            self.refuse(f"the name {name!r} is taken by Python or the generated code", "choose another", "name")
        return name

    def doc(self, required: bool) -> str:
        doc = self.values.get("doc", None if required else "")
        if not isinstance(doc, str) or (required and not doc.strip()):
            self.refuse("has no doc", "say in a sentence what it is", "doc")
        if not all(letter.isprintable() or letter == "\n" for letter in doc):
            self.refuse("its doc holds an unprintable character", "use plain text", "doc")
        return doc.strip()

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.refuse(f"{key} is {value!r}", "write true or false", key)
        return value

    def array(self, key: str) -> list[Any]:
        value = self.values.get(key, [])
        if not isinstance(value, list):
            self.refuse(f"{key} is not an array", f"write {key} = [...]", key)
        return value


def load(path: Path, label: str | None = None) -> Interface:
    """Read and check one definition.

    Args:
        path: the TOML file.
        label: how messages name it; the path by default.

    Raises:
        DefinitionError: the file cannot be read, is not TOML, or declares what cannot be generated.
    """
    document = read_document(path, Report(DefinitionError), Path(label) if label else None)
    top = _Table(document, (), "interface", document.values)
    top.only("name", "doc", "operation")
    name = top.name(set())
    if name != path.stem:
        top.refuse(f"is called {name!r} in a file called {path.name!r}", "give both the same name", "name")
    doc = top.doc(required=True)
    operations = [_operation(top, index, entry) for index, entry in enumerate(top.array("operation"))]
    if not operations:
        top.refuse("has no operation", "add an [[operation]]", "operation")
    _refuse_twins(top, operations)
    return Interface(name, doc, tuple(sorted(operations, key=lambda operation: operation.number)))


def load_all(folder: Path, labels: str = "") -> list[Interface]:
    """Read every definition in a folder, by name; `labels` is the prefix under which messages name the files.

    Raises:
        DefinitionError: as `load`; also when two interfaces' C constants would collide.
    """
    interfaces = [load(path, f"{labels}{path.name}") for path in sorted(folder.glob("*.toml"))]
    owners: dict[str, str] = {}
    for interface in interfaces:
        for operation in interface.operations:
            constant = f"{interface.name}_{operation.name}"
            if constant in owners:
                place = Place(Path(f"{labels}{interface.name}.toml"), 1)
                what = f"operation {operation.name!r} has the same C constant as one of {owners[constant]!r}"
                raise DefinitionError([Mistake(place, what, "rename one of them")])
            owners[constant] = interface.name
    return interfaces


def _refuse_twins(top: _Table, operations: list[Operation]) -> None:
    numbers: dict[int, str] = {}
    for index, operation in enumerate(operations):
        name, number = operation.name, operation.number
        if name in numbers.values():
            top.refuse(f"operation {name!r} is defined twice", "rename or remove one", "operation", index, "name")
        if number in numbers:
            what = f"the id {number} of operation {name!r} is already that of {numbers[number]!r}"
            top.refuse(what, "choose a free one", "operation", index, "id")
        numbers[number] = name


def _operation(top: _Table, index: int, entry: Any) -> Operation:
    if not isinstance(entry, dict):
        top.refuse("an operation is not a table", "write [[operation]]", "operation", index)
    what = f"operation {entry.get('name', index + 1)!r}"
    table = _Table(top.document, ("operation", index), what, entry)
    table.only("name", "id", "doc", "idempotent", "may_wait", "arguments", "returns", "errors")
    return Operation(
        name=table.name(_TAKEN_BY_METHODS),
        number=_number(table),
        doc=table.doc(required=True),
        idempotent=table.flag("idempotent"),
        may_wait=table.flag("may_wait"),
        arguments=_fields(table, "arguments", _TAKEN_BY_ARGUMENTS),
        returns=_fields(table, "returns", _TAKEN_BY_RESULTS if len(table.array("returns")) > 1 else set()),
        errors=_errors(table),
    )


def _number(table: _Table) -> int:
    number = table.values.get("id")
    if type(number) is not int or not 1 <= number <= LAST_ID:
        table.refuse(f"its id is {number!r}", f"choose a free integer from 1 to {LAST_ID}", "id")
    return number


def _errors(table: _Table) -> tuple[str, ...]:
    names = table.array("errors")
    numbers = set()
    for name in names:
        number = getattr(errno, name, None) if isinstance(name, str) and name.startswith("E") else None
        if number is None:
            table.refuse(f"{name!r} is no errno", "use names such as ENOENT", "errors")
        if number in numbers:
            table.refuse(f"{name} is declared twice (perhaps under another name)", "remove one", "errors")
        numbers.add(number)
    return tuple(names)


def _fields(table: _Table, key: str, taken: set[str]) -> tuple[Field, ...]:
    entries = table.array(key)
    if len(entries) > REGISTERS:
        mend = f"a call has {REGISTERS} registers, so merge some into bytes"
        table.refuse(f"has {len(entries)} {key}", mend, key)
    fields = [_field(table, key, index, entry, taken) for index, entry in enumerate(entries)]
    names = [field.name for field in fields]
    for index, name in enumerate(names):
        if name in names[:index]:
            table.refuse(f"{name!r} stands twice in {key}", "rename one", key, index)
    _refuse_excess(table, key, fields)
    return tuple(fields)


def _refuse_excess(table: _Table, key: str, fields: list[Field]) -> None:
    inline = sum(field.limit for field in fields if field.kind is not Kind.BUFFER)
    if inline > INLINE_BYTES:
        what = f"its {key} may need {inline} bytes inline, but a frame holds {INLINE_BYTES}"
        table.refuse(what, f"declare smaller `max` (it is {DEFAULT_MAX} by default) or use a buffer", key)
    if any(field.kind is Kind.BUFFER for field in fields[:-1]):
        table.refuse("a buffer is not last", "there may be one, and it must be the last", key)
    total = sum(field.limit for field in fields)
    if total > MAX_BULK_BYTES:
        what = f"its {key} may need {total} bytes, but a call carries {MAX_BULK_BYTES}"
        table.refuse(what, "lower a `max`", key)


def _field(operation: _Table, key: str, index: int, entry: Any, taken: set[str]) -> Field:
    if not isinstance(entry, dict):
        operation.refuse(f"{key} holds {entry!r}", 'write { name = "...", kind = "..." }', key, index)
    what = f"{operation.what}, {key[:-1]} {entry.get('name', index + 1)!r}"
    table = _Table(operation.document, (*operation.path, key, index), what, entry)
    table.only("name", "kind", "max", "doc")
    name, kind = table.name(taken), _kind(table)
    return Field(name, kind, _limit(table, kind), table.doc(required=False))


def _kind(table: _Table) -> Kind:
    kind = table.values.get("kind")
    if not isinstance(kind, str) or kind not in list(Kind):
        table.refuse(f"its kind is {kind!r}", f"choose one of {', '.join(Kind)}", "kind")
    return Kind(kind)


def _limit(table: _Table, kind: Kind) -> int:
    declared = table.values.get("max")
    if not kind.has_contents:
        if declared is not None:
            table.refuse(f"a {kind} has no max", "remove it", "max")
        return 0
    if declared is None and kind is Kind.BUFFER:
        table.refuse("a buffer must say how large it may be", 'add max = "64 KiB"', "max")
    limit = DEFAULT_MAX if declared is None else _size(declared)
    largest = MAX_BULK_BYTES if kind is Kind.BUFFER else INLINE_BYTES
    if limit is None or not 1 <= limit <= largest:
        mend = f'write an integer from 1 to {largest}, or a size such as "2 KiB"'
        table.refuse(f"its max is {declared!r}", mend, "max")
    return limit


def _size(declared: object) -> int | None:
    if type(declared) is int:
        return declared
    found = _SIZE.fullmatch(declared) if isinstance(declared, str) else None
    return int(found[1]) * _UNITS[found[2]] if found else None
