"""The line finder: where each key of a TOML text stands, whatever the keys and the values look like."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from corekernel.toml_keys import MAX_KEY_PARTS, KeyPath, key_lines

AWKWARD = '''\
top = 1 # top2 = 2
"quoted key" = """
fake = 1
[fake] \\""" still the string
"""""
'li=teral' = \'\'\'
[fake]\'\'\'
[a . "b.c"]
d.e = { f = "}", g = { h = [ { i = 1 }, { j = 2 } ] }, k = 3 }
list = [
  "x", # ]
  [1, 2],
]
after = 07:32:00
[[a.rows]]
n = 1
[[a.rows]]
[[a.rows.sub]]
[a.rows.sub.x]
n = 2
[ a ]
last = 1'''


def test_key_lines_are_found_past_strings_comments_arrays_and_inline_tables() -> None:
    tomllib.loads(AWKWARD)
    found = key_lines(AWKWARD)
    inner = ("a", "b.c", "d", "e")
    assert found == {
        ("top",): 1,
        ("quoted key",): 2,
        ("li=teral",): 6,
        ("a",): 21,
        ("a", "b.c"): 8,
        ("a", "b.c", "d"): 9,
        inner: 9,
        (*inner, "f"): 9,
        (*inner, "g"): 9,
        (*inner, "k"): 9,
        ("a", "b.c", "list"): 10,
        ("a", "b.c", "list", 1): 12,
        ("a", "b.c", "after"): 14,
        ("a", "rows"): 15,
        ("a", "rows", 0): 15,
        ("a", "rows", 0, "n"): 16,
        ("a", "rows", 1): 17,
        ("a", "rows", 1, "sub"): 18,
        ("a", "rows", 1, "sub", 0): 18,
        ("a", "rows", 1, "sub", 0, "x"): 19,
        ("a", "last"): 22,
        (*inner, "g", "h"): 9,
    }


KEY_NAMES = st.text("ab.=[]{}#'\" ", min_size=1, max_size=4)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text("ab\n]}#'\"=", max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEY_NAMES, inner, max_size=3)),
    max_leaves=6,
)


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@dataclass
class Writer:
    """Writes a tree down, and notes where."""

    text: str = ""
    written: dict[KeyPath, int] = field(default_factory=dict)

    def note(self, path: KeyPath) -> None:
        if len(path) <= MAX_KEY_PARTS:
            self.written[path] = self.text.count("\n") + 1

    def rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.note((name,))
        for number, row in enumerate(rows):
            self.note((name, number))
            self.text += f"[[{quote(name)}]] # [[x]]\n"
            self.pairs((name, number), row, "\n\n")

    def table(self, name: str, table: dict[str, Any]) -> None:
        self.note((name,))
        self.text += f"[{quote(name)}]\n"
        self.pairs((name,), table, "\n")

    def pairs(self, path: KeyPath, table: dict[str, Any], end: str) -> None:
        for position, (key, value) in enumerate(table.items()):
            self.text += ", " if end == "" and position else ""
            self.note((*path, key))
            self.text += f"{quote(key)} = "
            self.value((*path, key), value)
            self.text += end

    def value(self, path: KeyPath, value: Any) -> None:
        if isinstance(value, dict):
            self.text += "{ "
            self.pairs(path, value, "")
            self.text += " }"
        elif isinstance(value, list):
            self.items(path, value)
        else:
            self.text += str(value).lower() if isinstance(value, int) else quote(value)

    def items(self, path: KeyPath, items: list[Any]) -> None:
        self.text += "[\n"
        for number, item in enumerate(items):
            if isinstance(item, dict | list):
                self.note((*path, number))
            self.value((*path, number), item)
            self.text += ", # ]\n"
        self.text += "]"


TABLES = st.dictionaries(KEY_NAMES, TREES, max_size=3)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(KEY_NAMES, TABLES | st.lists(TABLES, min_size=1, max_size=3), max_size=3))
def test_key_lines_agree_with_where_the_keys_were_written(tree: dict[str, Any]) -> None:
    writer = Writer()
    for name, value in tree.items():
        writer.rows(name, value) if isinstance(value, list) else writer.table(name, value)
    assert tomllib.loads(writer.text) == tree
    assert key_lines(writer.text) == writer.written
