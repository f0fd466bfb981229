"""A wrong composition is refused before anything starts, with file and line, whatever the file says."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corekernel.composition import Composition, CompositionError, load
from corekernel.errors import HmkError
from corekernel.toml_lines import MAX_BYTES, MAX_MISTAKES
from tests.composition_samples import FULL, MISTAKES, refusal, write

# -- every kind of mistake -------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "line", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_once_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    error = refusal(tmp_path, text)
    assert isinstance(error, HmkError)
    assert str(error).startswith(f"{tmp_path / 'mine.toml'}:{line}: ")
    assert said in str(error)
    assert "; " in str(error), "it must say how to mend it"
    assert len(error.mistakes) == len(str(error).splitlines()) == 1


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    text = "[system]\nprebind = ['x']\n[service.a]\nclas = 1\nmemory_mib = 0\nafter = ['a']\n[service.B]\n"
    error = refusal(tmp_path, text)
    assert sorted(mistake.place.line for mistake in error.mistakes) == [2, 4, 5, 6, 7]
    assert str(error).splitlines() == [str(mistake) for mistake in error.mistakes]


def test_a_report_of_endless_mistakes_stops(tmp_path: Path) -> None:
    text = "".join(f"key{number} = 1\n" for number in range(5000))
    assert len(refusal(tmp_path, text).mistakes) == MAX_MISTAKES


def test_an_interface_must_have_its_file(tmp_path: Path) -> None:
    interfaces = tmp_path / "interfaces"
    interfaces.mkdir()
    (interfaces / "memmgr.toml").touch()
    path = write(tmp_path, "[service.memmgr]\n[service.b]\ninterface = 'memgr'\n[service.c]\n")
    with pytest.raises(CompositionError) as caught:
        load(path, search=tmp_path, interfaces=interfaces)
    first, second = map(str, caught.value.mistakes)
    assert first.startswith(f"{path}:3: there is no interface memgr") and 'did you mean "memmgr"?' in first
    assert second.startswith(f"{path}:4: there is no interface c")


# -- hostile files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"\0\1\2\3", 1, "not valid TOML"),
        (b"# fine\n[service.a]\nx = '\xff'\n", 3, "is not UTF-8 text"),
        (b"#" + b" \n" * MAX_BYTES, 1, "is larger than 64 KiB"),
        (b"\xef\xbb\xbf[service.a]\n", 1, "not valid TOML"),
        (b"[service.a]\r\n\r\nclas = 1\r\n", 3, "unknown key"),
        (b"a." * 30_000, 1, "longer than 500 characters"),
        ((b"a." * 200 + b"a = 1\n") * 150, 2, "keep one of the two"),
        (b"[service.a]\nx = 9" + b"9" * 400, 2, "unknown key"),
    ],
    ids=["binary", "latin-1", "huge", "byte order mark", "crlf", "long key", "deep keys", "large number"],
)
def test_hostile_bytes_are_refused(tmp_path: Path, content: bytes, line: int, said: str) -> None:
    error = refusal(tmp_path, content)
    assert str(error.mistakes[0]).startswith(f"{tmp_path / 'mine.toml'}:{line}: ")
    assert said in str(error)


def test_deep_nesting_is_refused_where_it_becomes_too_deep(tmp_path: Path) -> None:
    line = "[" * 400
    (mistake,) = refusal(tmp_path, "[service.a]\nx = [\n" + f"{line}\n" * 10).mistakes
    assert mistake.what == "brackets are nested too deeply"
    assert 3 <= mistake.place.line <= 5


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    paths = [
        tmp_path,
        tmp_path / "fifo",
        tmp_path / "missing",
        Path("/dev/zero"),
        Path("nul\0"),
        Path("x" * 5000),
    ]
    for path in paths:
        with pytest.raises(CompositionError) as caught:
            load(path, search=tmp_path)
        assert str(caught.value).startswith(f"{path}:1: ")


@pytest.mark.parametrize("name", ["defalt", "", "..", "a\nb", "nul\0", "DEFAULT"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(CompositionError) as caught:
        load(name)
    assert len(str(caught.value).splitlines()) == 1
    assert "there is no composition" in str(caught.value)


def test_a_misspelt_name_brings_a_suggestion() -> None:
    with pytest.raises(CompositionError, match='did you mean "default"'):
        load("defalt")


# -- whatever the file says, the answer is a composition or a place --------------------------------

FULL_LINES = FULL.splitlines()
TOML_VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["true", "1.5", "nan", "[]", "{}", "1979-05-27", "[[1]]", "{ a.b = 1 }", '""', "[[]", "'''x"]),
    st.sampled_from(["a", "b", "c", "core", "pair", "IC0", "IC1", "owner", "free", "poller 0", "c", "mine"]).map(repr),
    st.text(max_size=12),
    st.text(max_size=12).map(repr),
)
TOML_KEYS = st.one_of(
    st.sampled_from([line.split(" = ")[0] for line in FULL_LINES if " = " in line]),
    st.sampled_from(["inherit", "remove", "[system]", "[service.c", "service.a", "[[service.c]]", '"a b"']),
    st.text(max_size=8),
)


def check_answer(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory), data)
        try:
            assert isinstance(load(path, search=Path(directory), interfaces=None), Composition)
        except CompositionError as error:
            assert error.mistakes
            for mistake in error.mistakes:
                assert mistake.place.file == path
                assert 1 <= mistake.place.line <= data.removesuffix(b"\n").count(b"\n") + 1
            assert len(str(error).split("\n")) == len(error.mistakes)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(FULL_LINES) - 1), TOML_KEYS, TOML_VALUES, st.sampled_from(["key", "value", "both"]))
def test_changing_a_key_or_a_value_gives_a_composition_or_a_line(number: int, key: str, value: str, what: str) -> None:
    lines = list(FULL_LINES)
    old_key, _, old_value = lines[number].partition(" = ")
    new_key = old_key if what == "value" else key
    new_value = old_value if what == "key" else value
    lines[number] = f"{new_key} = {new_value}" if new_value else new_key
    check_answer("\n".join(lines).encode(errors="replace"))


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(FULL)), st.integers(0, 30), st.binary(max_size=20))
@example(0, len(FULL), b"")
@example(0, len(FULL), b"[")
def test_cutting_and_pasting_bytes_gives_a_composition_or_a_line(start: int, cut: int, paste: bytes) -> None:
    data = FULL.encode()
    check_answer(data[:start] + paste + data[start + cut :])
