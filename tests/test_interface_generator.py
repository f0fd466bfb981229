"""Definitions that are refused, and the generator as a command: what it writes, how it tells what is stale.

The command runs for real, in a process of its own, on a small repository made for the test.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cffi
import pytest

from corekernel.errors import NoSuchService
from services.emit import stub
from services.generate import generate
from services.idl import DefinitionError, load, load_all
from services.stubs import INTERFACES, client_class
from services.stubs.core import CoreOperation
from tests.test_interfaces import SAMPLE, written

ROOT = Path(__file__).resolve().parent.parent


# What is committed -----------------------------------------------------------------------------------


def run_generator(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.generate", "--root", str(root), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one definition, everything generated."""
    (tmp_path / "services/interfaces").mkdir(parents=True)
    (tmp_path / "services/interfaces/sample.toml").write_text(SAMPLE)
    assert run_generator(tmp_path).returncode == 0
    return tmp_path


def test_everything_committed_is_up_to_date() -> None:
    assert run_generator(ROOT, "--check").stdout == "all generated files are up to date\n"


def test_generating_twice_changes_nothing_and_check_agrees(tree: Path) -> None:
    assert run_generator(tree).stdout == "0 files changed\n"
    assert run_generator(tree, "--check").returncode == 0


@pytest.mark.parametrize("victim", sorted(generate([written(SAMPLE)])))
def test_check_shows_a_file_that_was_edited_or_lost_and_leaves_it_alone(tree: Path, victim: str) -> None:
    path = tree / victim
    path.write_text(path.read_text() + "stray line\n")
    edited = run_generator(tree, "--check")
    assert edited.returncode == 1 and f"{victim}: stale (+0 -1 lines)" in edited.stdout
    assert "-stray line" in edited.stdout and path.read_text().endswith("stray line\n")
    path.unlink()
    assert run_generator(tree, "--check").returncode == 1 and not path.exists()
    assert run_generator(tree).stdout == "1 files changed\n"
    assert run_generator(tree, "--check").returncode == 0


def test_a_changed_definition_makes_its_stub_stale(tree: Path) -> None:
    definition = tree / "services/interfaces/sample.toml"
    definition.write_text(SAMPLE.replace("max = 4 ", "max = 5 "))
    checked = run_generator(tree, "--check")
    assert checked.returncode == 1 and "services/stubs/sample.py: stale" in checked.stdout


def test_the_stub_of_a_removed_interface_is_removed_and_other_files_are_not(tree: Path) -> None:
    stubs = tree / "services/stubs"
    (stubs / "byhand.py").write_text('"""Mine."""\n')
    (tree / "services/interfaces/sample.toml").rename(tree / "services/interfaces/other.toml")
    other = SAMPLE.replace('name = "sample"', 'name = "other"')
    (tree / "services/interfaces/other.toml").write_text(other)
    checked = run_generator(tree, "--check")
    assert checked.returncode == 1 and "sample.py: must be removed" in checked.stdout
    assert run_generator(tree).returncode == 0
    assert sorted(path.name for path in stubs.iterdir()) == ["__init__.py", "byhand.py", "other.py"]


def test_a_refused_definition_changes_nothing_and_exits_2(tree: Path) -> None:
    definition = tree / "services/interfaces/sample.toml"
    definition.write_text(SAMPLE.replace("id = 3", "id = 64"))
    refused = run_generator(tree)
    line = SAMPLE.split("id = 3")[0].count("\n") + 1
    assert refused.returncode == 2 and f"services/interfaces/sample.toml:{line}: " in refused.stderr
    definition.write_text(SAMPLE)
    assert run_generator(tree, "--check").returncode == 0


def test_c_and_python_agree_on_every_operation_number() -> None:
    ffi = cffi.FFI()
    ffi.cdef((ROOT / "corekernel/native/ops_gen.h").read_text())
    constants: Any = ffi.dlopen(None)
    assert constants.HMK_OP_CORE_UNBIND_IDLE == CoreOperation.UNBIND_IDLE
    for name, info in INTERFACES.items():
        for number, operation in info.operations.items():
            assert getattr(constants, f"HMK_OP_{name}_{operation.name}".upper()) == number


def test_the_registry_finds_clients_by_name() -> None:
    assert client_class("bench_echo").__name__ == "BenchEchoClient"
    with pytest.raises(NoSuchService):
        client_class("nobody")


def test_generated_code_is_strictly_typed_whatever_its_names(tmp_path: Path) -> None:
    awkward = SAMPLE.replace('"flag"', '"type"').replace('"raw"', '"payload"').replace('"hand"', '"list"')
    awkward = awkward.replace('name = "size"', 'name = "bytes"').replace('"hold"', '"property"')
    stubs = [tmp_path / "awkward.py", *sorted((ROOT / "services/stubs").glob("*.py"))]
    stubs[0].write_text(stub(written(awkward), "Generated in a test."))
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *map(str, stubs)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout


# What is refused -------------------------------------------------------------------------------------

HEAD = 'name = "sample"\ndoc = "A sample."\n'
GOOD = '[[operation]]\nname = "first"\nid = 1\ndoc = "Do it."\n'


def with_fields(*fields: str) -> str:
    """A definition whose fields stand on lines 8 and after, below two decoys."""
    lines = "\n".join(f"    {{ {entry} }}," for entry in fields)
    return f'{HEAD}{GOOD}arguments = [ # {{ not = "a field" }}\n{lines}\n]\n'


REFUSED = [
    ("name = \n", 1, "not valid TOML"),
    (HEAD + "[[operation]\n", 3, "not valid TOML"),
    (HEAD, 1, "has no operation"),
    (HEAD + "operation = 3\n", 3, "is not an array"),
    (HEAD + "operation = [3]\n", 3, "not a table"),
    (
        HEAD + 'operation = [\n{ name = "a", id = 1, doc = "A." },\n{ name = "a", id = 2, doc = "B." }]\n',
        5,
        "defined twice",
    ),
    ('doc = "A sample."\n' + GOOD, 1, "has no name"),
    ('\nname = "other"\ndoc = "A sample."\n' + GOOD, 2, "give both the same name"),
    ('name = "sample"\n' + GOOD, 1, "has no doc"),
    ('name = "sample"\ndoc = " "\n' + GOOD, 2, "has no doc"),
    ('name = "sample"\ndoc = "\\u0000"\n' + GOOD, 2, "unprintable"),
    (HEAD + 'version = "1"\n' + GOOD, 3, "unknown key 'version'"),
    (HEAD + GOOD + "arguements = []\n", 7, "unknown key 'arguements'"),
    (HEAD + '[[operation]]\nid = 1\ndoc = "Do it."\n', 3, "has no name"),
    (HEAD + GOOD.replace("first", "First"), 4, "is no name"),
    (HEAD + GOOD.replace("first", "a__b"), 4, "is no name"),
    (HEAD + GOOD.replace("first", "class"), 4, "is taken"),
    (HEAD + GOOD.replace("first", "handlers"), 4, "is taken"),
    (HEAD + GOOD.replace("id = 1\n", ""), 3, "its id is None"),
    (HEAD + GOOD.replace("id = 1", "id = 0"), 5, "from 1 to 63"),
    (HEAD + GOOD.replace("id = 1", "id = 64"), 5, "from 1 to 63"),
    (HEAD + GOOD.replace("id = 1", "id = true"), 5, "from 1 to 63"),
    (HEAD + GOOD.replace('doc = "Do it."', ""), 3, "has no doc"),
    (HEAD + GOOD + GOOD.replace("id = 1", "id = 2"), 8, "defined twice"),
    (HEAD + GOOD + GOOD.replace("first", "second"), 9, "already that of 'first'"),
    (HEAD + GOOD + "may_wait = 1\n", 7, "true or false"),
    (HEAD + GOOD + 'idempotent = "yes"\n', 7, "true or false"),
    (HEAD + GOOD + "errors = 3\n", 7, "is not an array"),
    (HEAD + GOOD + 'errors = ["ENOSUCH"]\n', 7, "no errno"),
    (HEAD + GOOD + 'errors = ["errorcode"]\n', 7, "no errno"),
    (HEAD + GOOD + "errors = [2]\n", 7, "no errno"),
    (HEAD + GOOD + 'errors = ["EAGAIN", "EWOULDBLOCK"]\n', 7, "declared twice"),
    (HEAD + GOOD + 'arguments = ["data"]\n', 7, "write { name"),
    (with_fields('kind = "u64"'), 8, "has no name"),
    (with_fields('name = "a", kind = "u64"', 'name = "b", kind = "u32"'), 9, "choose one of u64"),
    (with_fields('name = "a", kind = "u64"', 'name = "b"'), 9, "choose one of u64"),
    (with_fields('name = "a", kind = "u64"', 'name = "a", kind = "u64"'), 9, "stands twice"),
    (with_fields('name = "a", kind = "u64", maximum = 3'), 8, "unknown key 'maximum'"),
    (with_fields('name = "caller", kind = "u64"'), 8, "is taken"),
    (with_fields('name = "a", kind = "u64", doc = 3'), 8, "has no doc"),
    (with_fields('name = "a", kind = "u64", max = 3'), 8, "has no max"),
    (with_fields('name = "a", kind = "str", max = 0'), 8, "its max is 0"),
    (with_fields('name = "a", kind = "str", max = "4 KiB"'), 8, "from 1 to 3584"),
    (with_fields('name = "a", kind = "bytes", max = "many"'), 8, "its max is 'many'"),
    (with_fields('name = "a", kind = "buffer"'), 8, "must say how large"),
    (with_fields('name = "a", kind = "buffer", max = "17 MiB"'), 8, "from 1 to 16777216"),
    (with_fields('name = "a", kind = "buffer", max = 9', 'name = "b", kind = "u64"'), 7, "must be the last"),
    (with_fields('name = "a", kind = "str"', 'name = "b", kind = "buffer", max = "16 MiB"'), 7, "lower a"),
    (with_fields(*(f'name = "{name}", kind = "str"' for name in "abcd")), 7, "4096 bytes inline"),
    (with_fields(*(f'name = "{name}", kind = "u64"' for name in "abcdefghi")), 7, "has 9 arguments"),
    (
        HEAD + GOOD + 'returns = [\n{ name = "count", kind = "u64" },\n{ name = "b", kind = "u64" }]\n',
        8,
        "is taken",
    ),
    (HEAD + GOOD + 2 * '[[operation.arguments]]\nname = "a"\nkind = "u64"\n', 10, "stands twice"),
    (
        'name = "sample"\ndoc = """\n[[operation]]\nid = 1\n"""\n' + GOOD.replace("id = 1", "id = 99"),
        8,
        "from 1 to 63",
    ),
]


@pytest.mark.parametrize(("text", "line", "says"), REFUSED)
def test_a_bad_definition_is_refused_with_its_line_and_how_to_mend_it(text: str, line: int, says: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        written(text)
    message = str(caught.value)
    assert message.startswith(f"sample.toml:{line}: ") and says in message
    assert "; " in message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sample.toml"
    path.write_bytes(b"\nname = \xff")
    with pytest.raises(DefinitionError, match=r"sample\.toml:2: is not UTF-8 text"):
        load(path)
    with pytest.raises(DefinitionError, match="cannot be read"):
        load(tmp_path / "missing.toml")


def test_interfaces_whose_c_constants_would_collide_are_refused(tmp_path: Path) -> None:
    for name, operation in (("a", "b_c"), ("a_b", "c")):
        text = HEAD.replace("sample", name, 1) + GOOD.replace("first", operation)
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.raises(DefinitionError, match=r"a_b\.toml:1: .* rename one of them"):
        load_all(tmp_path)
