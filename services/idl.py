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

A mistake is a `DefinitionError` that reads `file:line: what is wrong; how to mend it`. The TOML reader gives
values without positions, so positions are found again in the text, with strings and comments blanked out so
that what they say is never taken for structure.

Names are restricted so that no generated name can collide with another: words of lower-case letters and
digits, each starting with a letter, joined by single underscores. Generated locals begin or end with an
underscore.
"""

from __future__ import annotations

import enum
import errno
import keyword
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from corekernel.port import INLINE_BYTES, MAX_BULK_BYTES, REGISTERS

LAST_ID = 63
DEFAULT_MAX = 1024

_IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")
_SIZE = re.compile(r"(\d{1,12}) ?(KiB|MiB|)", re.ASCII)
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*operation[ \t]*\]\]", re.MULTILINE)
_BLANKED = re.compile(
    r'"""(?:\\.|[^\\])*?"""|' + r"'''.*?'''|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'|#[^\n]*", re.DOTALL
)
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


class DefinitionError(ValueError):
    """A definition was refused; the text is `file:line: what is wrong; how to mend it`."""


class _Source:
    """The text of one definition, and where in it things are."""

    def __init__(self, path: Path, label: str) -> None:
        self.label = label
        try:
            self.text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DefinitionError(f"{label}:1: cannot be read: {error}; make it a UTF-8 text file") from error
        self._structure = _BLANKED.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), self.text)
        self._headers = [found.start() for found in _HEADER.finditer(self._structure)]

    def parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            where = re.search(r"\(at line (\d+)", str(error))
            line = int(where[1]) if where else self.text.count("\n") + 1
            raise DefinitionError(f"{self.label}:{line}: not TOML: {error}; mend the syntax") from error

    def refuse(self, offset: int, text: str) -> NoReturn:
        line = self.text.count("\n", 0, offset) + 1
        raise DefinitionError(f"{self.label}:{line}: {text}")

    def top(self) -> tuple[int, int]:
        return 0, self._headers[0] if self._headers else len(self.text)

    def operation(self, index: int) -> tuple[int, int]:
        """The extent of one `[[operation]]`; the whole file when the array is spelt another way."""
        if index >= len(self._headers):
            return 0, len(self.text)
        bounds = [*self._headers, len(self.text)]
        return bounds[index], bounds[index + 1]

    def key(self, extent: tuple[int, int], key: str) -> int:
        """Where `key` is set in this extent; the extent's first line when it is not."""
        pattern = re.compile(rf"^[ \t]*(?:\[\[[ \t]*operation\.)?{re.escape(key)}\b", re.MULTILINE)
        found = pattern.search(self._structure, *extent)
        return found.start() if found else extent[0]

    def field(self, extent: tuple[int, int], key: str, index: int) -> int:
        """Where the index-th table of an array of inline tables, or of headed tables, begins."""
        start = self.key(extent, key)
        headed = re.compile(rf"\[\[[ \t]*operation\.{key}[ \t]*\]\]")
        pattern = headed if headed.search(self._structure, *extent) else re.compile(r"\{")
        places = [found.start() for found in pattern.finditer(self._structure, start, extent[1])]
        return places[index] if index < len(places) else start


@dataclass(frozen=True, slots=True)
class _Table:
    """One TOML table being checked: `at` finds the offset of a key in it, for messages."""

    source: _Source
    extent: tuple[int, int]
    what: str
    values: dict[str, Any]
    fixed: int | None = None

    def at(self, key: str) -> int:
        return self.source.key(self.extent, key) if self.fixed is None else self.fixed

    def refuse(self, key: str, text: str) -> NoReturn:
        self.source.refuse(self.at(key), f"{self.what}: {text}")

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                self.refuse(key, f"unknown key {key!r}; use only {', '.join(known)}")

    def name(self, taken: set[str]) -> str:
        name = self.values.get("name")
        if not isinstance(name, str):
            self.refuse("name", 'has no name; add name = "..."')
        if not _IDENTIFIER.fullmatch(name):
            self.refuse("name", f"{name!r} is no name; use lower-case words joined by single underscores")
        if keyword.iskeyword(name) or name in taken:
            self.refuse("name", f"the name {name!r} is taken by Python or the generated code; choose another")
        return name

    def doc(self, required: bool) -> str:
        doc = self.values.get("doc", None if required else "")
        if not isinstance(doc, str) or (required and not doc.strip()):
            self.refuse("doc", "has no doc; say in a sentence what it is")
        if not all(letter.isprintable() or letter == "\n" for letter in doc):
            self.refuse("doc", "its doc holds an unprintable character; use plain text")
        return doc.strip()

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.refuse(key, f"{key} is {value!r}; write true or false")
        return value

    def array(self, key: str) -> list[Any]:
        value = self.values.get(key, [])
        if not isinstance(value, list):
            self.refuse(key, f"{key} is not an array; write {key} = [...]")
        return value


def load(path: Path, label: str | None = None) -> Interface:
    """Read and check one definition.

    Args:
        path: the TOML file.
        label: how messages name it; the path by default.

    Raises:
        DefinitionError: the file cannot be read, is not TOML, or declares what cannot be generated.
    """
    source = _Source(path, label or str(path))
    top = _Table(source, source.top(), "interface", source.parse())
    top.only("name", "doc", "operation")
    name = top.name(set())
    if name != path.stem:
        top.refuse("name", f"is called {name!r} in a file called {path.name!r}; give both the same name")
    doc = top.doc(required=True)
    operations = [_operation(source, index, entry) for index, entry in enumerate(top.array("operation"))]
    if not operations:
        top.refuse("operation", "has no operation; add an [[operation]]")
    _refuse_twins(source, operations)
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
                raise DefinitionError(
                    f"{labels}{interface.name}.toml:1: operation {operation.name!r} has the same C constant "
                    f"as one of {owners[constant]!r}; rename one of them"
                )
            owners[constant] = interface.name
    return interfaces


def _refuse_twins(source: _Source, operations: list[Operation]) -> None:
    numbers: dict[int, str] = {}
    names: set[str] = set()
    for index, operation in enumerate(operations):
        extent = source.operation(index)
        if operation.name in names:
            text = f"operation {operation.name!r} is defined twice; rename or remove one"
            source.refuse(source.key(extent, "name"), text)
        if operation.number in numbers:
            text = f"id {operation.number} is already that of {numbers[operation.number]!r}; choose a free one"
            source.refuse(source.key(extent, "id"), f"operation {operation.name!r}: {text}")
        names.add(operation.name)
        numbers[operation.number] = operation.name


def _operation(source: _Source, index: int, entry: Any) -> Operation:
    extent = source.operation(index)
    if not isinstance(entry, dict):
        source.refuse(extent[0], "an operation is not a table; write [[operation]]")
    table = _Table(source, extent, f"operation {entry.get('name', index + 1)!r}", entry)
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
        table.refuse("id", f"its id is {number!r}; choose a free integer from 1 to {LAST_ID}")
    return number


def _errors(table: _Table) -> tuple[str, ...]:
    names = table.array("errors")
    numbers = set()
    for name in names:
        number = getattr(errno, name, None) if isinstance(name, str) and name.startswith("E") else None
        if number is None:
            table.refuse("errors", f"{name!r} is no errno; use names such as ENOENT")
        if number in numbers:
            table.refuse("errors", f"{name} is declared twice (perhaps under another name); remove one")
        numbers.add(number)
    return tuple(names)


def _fields(table: _Table, key: str, taken: set[str]) -> tuple[Field, ...]:
    entries = table.array(key)
    if len(entries) > REGISTERS:
        table.refuse(key, f"has {len(entries)} {key}; a call has {REGISTERS} registers, so merge some into bytes")
    fields = [_field(table, key, index, entry, taken) for index, entry in enumerate(entries)]
    names = [field.name for field in fields]
    for index, name in enumerate(names):
        if name in names[:index]:
            place = table.source.field(table.extent, key, index)
            table.source.refuse(place, f"{table.what}: {name!r} stands twice in {key}; rename one")
    _refuse_excess(table, key, fields)
    return tuple(fields)


def _refuse_excess(table: _Table, key: str, fields: list[Field]) -> None:
    inline = sum(field.limit for field in fields if field.kind is not Kind.BUFFER)
    if inline > INLINE_BYTES:
        text = f"its {key} may need {inline} bytes inline, but a frame holds {INLINE_BYTES}"
        table.refuse(key, f"{text}; declare smaller `max` (it is {DEFAULT_MAX} by default) or use a buffer")
    if any(field.kind is Kind.BUFFER for field in fields[:-1]):
        table.refuse(key, "a buffer is not last; there may be one, and it must be the last")
    total = sum(field.limit for field in fields)
    if total > MAX_BULK_BYTES:
        table.refuse(key, f"its {key} may need {total} bytes, but a call carries {MAX_BULK_BYTES}; lower a `max`")


def _field(operation: _Table, key: str, index: int, entry: Any, taken: set[str]) -> Field:
    place = operation.source.field(operation.extent, key, index)
    if not isinstance(entry, dict):
        text = f'{key} holds {entry!r}; write {{ name = "...", kind = "..." }}'
        operation.source.refuse(place, f"{operation.what}: {text}")
    what = f"{operation.what}, {key[:-1]} {entry.get('name', index + 1)!r}"
    table = _Table(operation.source, operation.extent, what, entry, fixed=place)
    table.only("name", "kind", "max", "doc")
    name, kind = table.name(taken), _kind(table)
    return Field(name, kind, _limit(table, kind), table.doc(required=False))


def _kind(table: _Table) -> Kind:
    kind = table.values.get("kind")
    if not isinstance(kind, str) or kind not in list(Kind):
        table.refuse("kind", f"its kind is {kind!r}; choose one of {', '.join(Kind)}")
    return Kind(kind)


def _limit(table: _Table, kind: Kind) -> int:
    declared = table.values.get("max")
    if not kind.has_contents:
        if declared is not None:
            table.refuse("max", f"a {kind} has no max; remove it")
        return 0
    if declared is None and kind is Kind.BUFFER:
        table.refuse("max", 'a buffer must say how large it may be; add max = "64 KiB"')
    limit = DEFAULT_MAX if declared is None else _size(declared)
    largest = MAX_BULK_BYTES if kind is Kind.BUFFER else INLINE_BYTES
    if limit is None or not 1 <= limit <= largest:
        text = f"its max is {declared!r}; write an integer from 1 to {largest}, or a size such as"
        table.refuse("max", f'{text} "2 KiB"')
    return limit


def _size(declared: object) -> int | None:
    if type(declared) is int:
        return declared
    found = _SIZE.fullmatch(declared) if isinstance(declared, str) else None
    return int(found[1]) * _UNITS[found[2]] if found else None
