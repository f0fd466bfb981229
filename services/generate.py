"""Generates stubs, C constants and documentation from `services/interfaces/*.toml`.

    python -m services.generate            rewrite what is stale, remove stubs whose interface is gone
    python -m services.generate --check    change nothing; exit 1 and show what is stale

A definition that cannot be generated exits 2 with `file:line: what is wrong; how to mend it` (see
`services.idl`), and nothing is written. What is generated is committed, so that it can be read, searched and
type-checked like everything else; a file is written only when its text changes.

The C constants are bare `#define`s, without an include guard, so that `ffi.cdef` can read the same file.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from pathlib import Path

from services.codec import camel_case, signature
from services.emit import stub
from services.idl import DefinitionError, Field, Interface, Operation, load_all

INTERFACES = "services/interfaces"
STUBS = "services/stubs"
C_HEADER = "corekernel/native/ops_gen.h"
DOCUMENT = "docs/interfaces.md"

_MARK = "by `python -m services.generate`"
_DIFF_LINES = 12


def generate(interfaces: list[Interface]) -> dict[str, str]:
    """The path, relative to the repository, and the text of every generated file."""
    stubs = {
        f"{STUBS}/{interface.name}.py": stub(
            interface, f"Generated from {INTERFACES}/{interface.name}.toml {_MARK}: edit that file."
        )
        for interface in interfaces
    }
    return {
        **stubs,
        f"{STUBS}/__init__.py": registry(interfaces),
        C_HEADER: c_header(interfaces),
        DOCUMENT: document(interfaces),
    }


def registry(interfaces: list[Interface]) -> str:
    """The text of `services/stubs/__init__.py`."""
    lines = [
        f'"""Every interface by name. Generated from {INTERFACES}/*.toml {_MARK}."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Any, Final",
        "",
        "from corekernel.errors import NoSuchService",
        "from corekernel.interface import InterfaceInfo",
        *(f"from services.stubs import {interface.name} as _{interface.name}" for interface in interfaces),
        "",
        "INTERFACES: Final[dict[str, InterfaceInfo]] = {",
        *(f'    "{interface.name}": _{interface.name}.INTERFACE,' for interface in interfaces),
        "}",
        "",
        "_CLIENTS: Final[dict[str, type[Any]]] = {",
        *(f'    "{item.name}": _{item.name}.{camel_case(item.name)}Client,' for item in interfaces),
        "}",
        "",
        "",
        "def client_class(name: str) -> type[Any]:",
        '    """The client of an interface; its constructor takes a `Port`.',
        "",
        "    Raises:",
        "        NoSuchService: no interface has this name.",
        '    """',
        "    try:",
        "        return _CLIENTS[name]",
        "    except KeyError:",
        '        raise NoSuchService(f"no interface is called {name!r}") from None',
    ]
    return "\n".join(lines) + "\n"


def c_header(interfaces: list[Interface]) -> str:
    """The text of the C header: `HMK_OP_INTERFACE_OPERATION` for each operation's number."""
    lines = [f"/* Operation numbers. Generated from {INTERFACES}/NAME.toml {_MARK}. */"]
    for interface in interfaces:
        lines.append("")
        for operation in interface.operations:
            constant = f"HMK_OP_{interface.name}_{operation.name}".upper()
            lines.append(f"#define {constant} {operation.number}")
    return "\n".join(lines) + "\n"


def document(interfaces: list[Interface]) -> str:
    """The text of the reference documentation."""
    lines = [
        "# Interfaces",
        "",
        f"Generated from `{INTERFACES}/*.toml` {_MARK}.",
        "",
        "Every operation may also end with an error of the transport (`corekernel.errors.CallError`).",
        "An *idempotent* one is re-issued when the service died with the call in flight; one that *may wait*",
        "holds no stack of the service while it waits. A `buffer` may travel in shared memory; the rest",
        "travels in the frame.",
    ]
    for interface in interfaces:
        lines += ["", f"## {interface.name}", "", interface.doc]
        lines += [line for operation in interface.operations for line in _documented(operation)]
    return "\n".join(lines) + "\n"


def _documented(operation: Operation) -> list[str]:
    marks = [mark for mark, holds in (("idempotent", operation.idempotent), ("may wait", operation.may_wait)) if holds]
    facts = ", ".join([f"id {operation.number}", *marks])
    lines = ["", f"### {operation.name}", "", f"`{signature(operation)}` ({facts})", "", operation.doc]
    described = [field for field in (*operation.arguments, *operation.returns) if field.doc]
    lines += ["", *map(_bullet, described)] if described else []
    return [*lines, "", f"Errors: {', '.join(operation.errors)}."] if operation.errors else lines


def _bullet(field: Field) -> str:
    return textwrap.indent(f"`{field.name}`: {field.doc}", "  ").replace("  ", "- ", 1)


def stale(root: Path, files: dict[str, str]) -> dict[str, str | None]:
    """What must change below `root`: path to its new text, or None where it must be removed."""
    changes: dict[str, str | None] = {name: text for name, text in files.items() if _committed(root / name) != text}
    for path in sorted((root / STUBS).glob("*.py")):
        name = f"{STUBS}/{path.name}"
        if name not in files and _MARK in _committed(path):
            changes[name] = None
    return changes


def _committed(path: Path) -> str:
    """A generated file's present text; what cannot be read as text counts as empty, so it is stale."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _apply(root: Path, changes: dict[str, str | None]) -> None:
    for name, text in changes.items():
        path = root / name
        if text is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _summary(root: Path, name: str, text: str | None) -> str:
    """One stale file: how many lines differ, and the first of them."""
    before, after = _committed(root / name).splitlines(), (text or "").splitlines()
    diff = list(difflib.unified_diff(before, after, "committed", "generated", n=0, lineterm=""))[2:]
    added, removed = (sum(line.startswith(sign) for line in diff) for sign in "+-")
    verdict = "must be removed" if text is None else f"stale (+{added} -{removed} lines)"
    shown = [f"    {line}" for line in diff[:_DIFF_LINES]]
    more = [f"    ... {len(diff) - _DIFF_LINES} more"] if len(diff) > _DIFF_LINES else []
    return "\n".join([f"{name}: {verdict}", *shown, *more])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status (0 done, 1 stale, 2 a definition was refused)."""
    parser = argparse.ArgumentParser(prog="python -m services.generate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if anything is stale")
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--root", type=Path, default=here, help="the repository (default: this one)")
    options = parser.parse_args(arguments)
    try:
        interfaces = load_all(options.root / INTERFACES, f"{INTERFACES}/")
    except DefinitionError as error:
        print(error, file=sys.stderr)
        return 2
    changes = stale(options.root, generate(interfaces))
    if options.check:
        for name, text in changes.items():
            print(_summary(options.root, name, text))
        print(
            f"{len(changes)} stale: run `python -m services.generate`"
            if changes
            else "all generated files are up to date"
        )
        return 1 if changes else 0
    _apply(options.root, changes)
    print(f"{len(changes)} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
