"""A wrong composition is refused before anything starts, with file and line; the shipped ones load."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corekernel.composition import (
    COMPOSITIONS,
    AttachKind,
    AttachPolicy,
    Composition,
    CompositionError,
    Isolation,
    Language,
    Limits,
    Placement,
    PlacementKind,
    Pool,
    Priority,
    Restart,
    Service,
    available,
    explain,
    load,
)
from corekernel.errors import HmkError
from corekernel.toml_lines import MAX_BYTES, MAX_MISTAKES, key_lines

FULL = """\
description = "all keys at once"

[system]
prebind = ["a", "b"]
attach = [0, 1000]
memory_mib = 512
stack_memory_mib = 64

[service.a]
class = "IC1"
module = "elsewhere.a"
interface = "a_interface"
placement = "poller 1"
calls = ["core", "b"]
clients = [1000]

[service.b]
after = ["a"]
class = "IC2"
group = "pair"
placement = "cpu 0"
language = "c"
priority = "high"
memory_mib = 64
handler_limit_ms = 0
devices = ["disk0", "net:1"]
pool = { initial = 1, low = 1, high = 2, reserve = 1, limit = 8, stack_kib = 128 }

[service.b.restart]
max_per_minute = 5
backoff_ms = 20
backoff_max_ms = 40

[service.b.options]
path = "somewhere"
size = 3
fast = true

[service.c]
group = "pair"
clients = false
"""


def write(directory: Path, text: str | bytes, name: str = "mine.toml") -> Path:
    path = directory / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parse(directory: Path, text: str | bytes) -> Composition:
    return load(write(directory, text), search=directory, interfaces=None)


def refusal(directory: Path, text: str | bytes) -> CompositionError:
    with pytest.raises(CompositionError) as caught:
        parse(directory, text)
    return caught.value


# -- what a good file means ------------------------------------------------------------------------


def test_a_service_with_no_keys_has_the_documented_defaults(tmp_path: Path) -> None:
    composition = parse(tmp_path, "[service.a]\n")
    assert composition.services == (Service("a"),)
    service = composition.service("a")
    assert (service.module, service.interface, service.process) == ("services.a", "a", "a")
    assert service.isolation is Isolation.IC2 and service.clients is True
    assert service.pool == Pool(initial=4, low=2, high=16, reserve=2, limit=4096, stack_kib=4096)
    assert service.restart == Restart(max_per_minute=60, backoff_ms=10, backoff_max_ms=2000)
    assert (service.memory_mib, service.handler_limit_ms) == (256, 10_000)
    assert composition.attach == AttachPolicy(AttachKind.OWNER)
    assert (composition.name, composition.description, composition.prebind) == ("mine", "", ())


def test_every_key_reaches_its_field(tmp_path: Path) -> None:
    composition = parse(tmp_path, FULL)
    assert composition.prebind == ("a", "b")
    assert composition.attach == AttachPolicy(AttachKind.LISTED, (0, 1000))
    assert composition.limits == Limits(memory_mib=512, stack_memory_mib=64)
    assert composition.service("a") == Service(
        name="a",
        module="elsewhere.a",
        interface="a_interface",
        isolation=Isolation.IC1,
        placement=Placement(PlacementKind.POLLER, 1),
        calls=("core", "b"),
        clients=(1000,),
    )
    assert composition.service("b") == Service(
        name="b",
        group="pair",
        after=("a",),
        placement=Placement(PlacementKind.CPU, 0),
        language=Language.C,
        priority=Priority.HIGH,
        memory_mib=64,
        handler_limit_ms=0,
        devices=("disk0", "net:1"),
        pool=Pool(initial=1, low=1, high=2, reserve=1, limit=8, stack_kib=128),
        restart=Restart(max_per_minute=5, backoff_ms=20, backoff_max_ms=40),
        options={"path": "somewhere", "size": 3, "fast": True},
    )
    assert composition.service("c").clients is False


def test_a_c_service_has_small_stacks_unless_told_otherwise(tmp_path: Path) -> None:
    text = '[service.a]\nlanguage = "c"\n[service.b]\nlanguage = "c"\npool.stack_kib = 32\n'
    assert [service.pool.stack_kib for service in parse(tmp_path, text).services] == [64, 32]


def test_services_share_a_process_by_group_and_ic0_lives_in_the_core(tmp_path: Path) -> None:
    text = '[service.a]\ngroup = "g"\n[service.b]\ngroup = "g"\n[service.c]\nclass = "IC0"\n[service.d]\n'
    processes = {service.name: service.process for service in parse(tmp_path, text).services}
    assert processes == {"a": "g", "b": "g", "c": "core", "d": "d"}


@pytest.mark.parametrize(
    ("attach", "uid", "owner", "allowed"),
    [
        ('"owner"', 5, 5, True),
        ('"owner"', 0, 5, False),
        ('"root"', 0, 5, True),
        ('"root"', 5, 5, False),
        ('"anyone"', 7, 5, True),
        ("[7, 8]", 7, 5, True),
        ("[7, 8]", 5, 5, False),
        ("[]", 5, 5, False),
    ],
)
def test_attach_policy_allows(tmp_path: Path, attach: str, uid: int, owner: int, allowed: bool) -> None:
    composition = parse(tmp_path, f"[system]\nattach = {attach}\n[service.a]\n")
    assert composition.attach.allows(uid, owner) is allowed


# -- every kind of mistake -------------------------------------------------------------------------

MISTAKES = [
    # syntax
    ("[service.a]\nclass = \n", 2, "not valid TOML: Invalid value"),
    ("[service.a]\n[service.a]\n", 2, "keep one of the two"),
    ("[service.a]\npool = {low = 1, low = 1}\n", 2, "keep one of the two"),
    ('[service.a]\nafter = ["b"\n', 2, "not valid TOML"),
    ("[service.a]\nx = '" + "y" * 600 + "'\n", 2, "longer than 500 characters"),
    # unknown keys
    ("[service.a]\n\nclas = 'IC2'\n", 3, 'unknown key "clas" in [service.a]; did you mean "class"?'),
    ("[service.a]\n[sistem]\n", 2, 'unknown key "sistem" in the file; did you mean "system"?'),
    ("[system]\nzzz = 1\n[service.a]\n", 2, "known are: prebind, attach, memory_mib, stack_memory_mib"),
    ("[service.a]\npool.lowest = 1\n", 2, 'unknown key "lowest" in [service.a.pool]; did you mean "low"?'),
    ("[service.a.restart]\nbackof_ms = 1\n", 2, 'did you mean "backoff_ms"?'),
    # types
    ("[service.a]\nclass = 2\n", 2, 'class must be one of "IC0", "IC1", "IC2", not 2'),
    ("[service.a]\nclass = 'ic2'\n", 2, 'not "ic2"'),
    ("[service.a]\nclass = 'IC3'\n", 2, "did you mean"),
    ("[service.a]\nmemory_mib = '64'\n", 2, 'memory_mib must be an integer from 16 to 1048576, not "64"'),
    ("[service.a]\nmemory_mib = true\n", 2, "not true"),
    ("[service.a]\nmemory_mib = 64.0\n", 2, "not 64.0"),
    ("[service.a]\nmemory_mib = 2020-01-01\n", 2, "not a date or a time"),
    ("[service.a]\ncalls = 'core'\n", 2, "calls must be an array of strings"),
    ("[service.a]\ncalls = [1]\n", 2, "calls holds 1, not the name of a service"),
    ("[service.a]\ncalls = [[['core']]]\n", 2, "calls holds an array"),
    ("[service.a]\nclients = 'all'\n", 2, "clients must be true, false or an array of user ids"),
    ("[service.a]\nclients = [-1]\n", 2, "a user id is from 0 to 4294967294"),
    (
        "[system]\nattach = 'everyone'\n[service.a]\n",
        2,
        'attach must be "owner", "root", "anyone" or an array',
    ),
    ("[system]\nattach = [true]\n[service.a]\n", 2, "attach must be"),
    ("[service.a]\npool = 3\n", 2, "pool must be a table, not 3; write [service.a.pool]"),
    ("system = 1\n[service.a]\n", 1, "system must be a table"),
    ("service = []\n", 1, "service must be a table"),
    ("[[service.a]]\n", 1, "a must be a table, not an array; write [service.a]"),
    ("[service]\na = 1\n", 2, "a must be a table"),
    ('description = "two\\nlines"\n[service.a]\n', 1, "description must be one line"),
    ("[service.a]\nlanguage = 'rust'\n", 2, 'language must be one of "python", "c"'),
    ("[service.a]\npriority = 'hihg'\n", 2, 'did you mean "high"?'),
    ("[service.a]\nmodule = 'a-b'\n", 2, "module must be the dotted name of a Python module"),
    ("[service.a]\nmodule = 'a..b'\n", 2, "module must be the dotted name"),
    ("[service.class]\n", 1, "must not hold a Python keyword"),
    ("[service.a]\ninterface = '../a'\n", 2, "interface must be a name"),
    ("[service.a]\ndevices = ['disk0', 'disk0']\n", 2, 'devices names "disk0" twice'),
    ("[service.a]\ndevices = ['/dev/sda']\n", 2, "not the name of a device"),
    ("[service.a.options]\nx = 1.5\n", 2, "x must be a string, a 64-bit integer or a boolean"),
    ("[service.a.options]\nx = 99999999999999999999999999999\n", 2, "not 99999999999999999999..."),
    ("[service.a.options]\n\n'X Y' = 1\n", 3, 'option "X Y" is not a name'),
    # ranges
    ("[service.a]\nmemory_mib = 15\n", 2, "from 16 to"),
    ("[service.a]\nhandler_limit_ms = -1\n", 2, "from 0 to 3600000"),
    ("[service.a]\npool.stack_kib = 128\n", 2, "from 256 to 8192"),
    ("[service.a]\nlanguage = 'c'\npool.stack_kib = 28\n", 3, "from 32 to 8192"),
    ("[service.a]\npool.stack_kib = 257\n", 2, "a multiple of 4"),
    ("[service.a]\npool.limit = 30001\n", 2, "from 1 to 30000"),
    ("[service.a.pool]\nlow = 3\n\nhigh = 2\n", 2, "low (3) is above high (2)"),
    ("[service.a.pool]\n\nhigh = 1\n", 3, "low (2) is above high (1)"),
    ("[service.a.pool]\nhigh = 4\nlimit = 8\ninitial = 9\n", 4, "initial (9) is above limit (8)"),
    ("[service.a.pool]\nhigh = 4\nlimit = 8\nreserve = 9\n", 4, "reserve (9) is above limit (8)"),
    ("[service.a]\nrestart.backoff_ms = 3000\n", 2, "backoff_ms (3000) is above backoff_max_ms (2000)"),
    (
        "[system]\nstack_memory_mib = 2000\n[service.a]\n",
        2,
        "stack_memory_mib (2000) is above memory_mib (1024)",
    ),
    # names
    ("[service.core]\n", 1, "core is the core itself"),
    ("[service.A]\n", 1, 'service "A" is not a name'),
    ('[service."a\\nb"]\n', 1, '"a\\nb"'),
    ("[service." + "a" * 33 + "]\n", 1, "32 characters at most"),
    ("description = ''\n", 1, "no service is defined"),
    ("", 1, "no service is defined"),
    ("".join(f"[service.s{number}]\n" for number in range(61)), 61, "61 services are too many; keep to 60"),
    (
        "[service.memmgr]\n[service.b]\nafter = ['memgr']\n",
        3,
        'which is no service here; did you mean "memmgr"?',
    ),
    ("[service.a]\n[service.b]\ncalls = [\n'a',\n'coer']\n", 3, 'did you mean "core"?'),
    ("[service.a]\ncalls = ['a']\n", 2, "a lists itself in calls"),
    ("[service.a]\nafter = ['core']\n", 2, "always there first"),
    ("[system]\nprebind = ['b']\n[service.a]\n", 2, "prebind names b, which is no service here"),
    ("[system]\nprebind = ['a']\n[service.a]\nclients = false\n", 2, "which clients may not call"),
    ("[system]\nprebind = ['a', 'a']\n[service.a]\n", 2, 'prebind names "a" twice'),
    # order
    ("[service.a]\n\nafter = ['a']\n", 3, "start order goes round: a after a"),
    ("[service.a]\nafter=['b']\n[service.b]\nafter=['a']\n", 2, "start order goes round: a after b after a"),
    (
        "[service.x]\nafter=['a']\n[service.a]\nafter=['b']\n[service.b]\nafter=['a']\n",
        4,
        "a after b after a",
    ),
    (
        "[service.a]\ngroup='g'\n[service.b]\nafter=['a']\n[service.c]\ngroup='g'\nafter=['b']\n",
        7,
        "group g after b after group g, and a group starts as one",
    ),
    # classes and placement
    ("[service.a]\nplacement = 'poller 1'\n", 2, "only IC1 has a poller"),
    ("[service.a]\nclass = 'IC1'\ngroup = 'g'\n", 3, "is IC1 and in a group"),
    ("[service.a]\nclass = 'IC0'\nplacement = 'cpu 1'\n", 3, "cannot be placed"),
    ("[service.a]\nclass = 'IC0'\nplacement = 'poller 1'\n", 3, "cannot be placed"),
    ("[service.a]\nclass = 'IC1'\nplacement = 'same-core'\n", 3, "is served by a poller"),
    ("[service.a]\nplacement = 'cpu'\n", 2, '"cpu N" or "poller N"'),
    ("[service.a]\nplacement = 'cpu 01'\n", 2, "placement must be"),
    (
        "[service.a]\nclass = 'IC1'\nplacement = 'poller 1'\n[service.b]\nplacement = 'cpu 1'\n",
        5,
        "cpu 1 is dedicated to the poller of a",
    ),
    (
        "[service.a]\ngroup = 'g'\n[service.b]\ngroup = 'g'\nclass = 'IC0'\n",
        5,
        "group g mixes a (IC2) and b (IC0)",
    ),
    ("[service.a]\ngroup = 'b'\n[service.b]\n", 2, "group b has the name of another process"),
    ("[service.a]\ngroup = 'core'\n", 2, "group core has the name of another process"),
    # inheritance
    ("inherit = 3\n", 1, "inherit must be a name, not 3"),
    ("\ninherit = 'nothing'\n", 2, 'there is no composition "nothing"'),
    ('\ninherit = "a\\u0000b"\n', 2, "there is no composition"),
    ('\ninherit = "a\\u0000b.toml"\n', 2, "there is no file"),
    ('\ninherit = "a\\nb.toml"\n', 2, "there is no file"),
    ("\ninherit = 'nothing.toml'\n", 2, 'there is no file "nothing.toml" to inherit'),
    ("inherit = 'mine'\n", 1, "inherit goes round"),
    ("inherit = './mine.toml'\n", 1, "inherit goes round"),
    ("[service.a]\n[service.b]\nremove = true\n", 3, 'service "b" is not inherited'),
    ("[service.a]\n[service.b]\nremove = false\n", 3, "remove must be true and the only key"),
    ("[service.a]\n[service.b]\nremove = true\nclass = 'IC2'\n", 3, "remove must be true and the only key"),
]


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


# -- inheritance -----------------------------------------------------------------------------------

BASE = """\
description = "the base"
[system]
prebind = ["a"]
memory_mib = 512
[service.a]
calls = ["core", "b"]
pool = { low = 1, high = 8 }
[service.b]
[service.c]
options = { x = 1, y = 2 }
"""


def child(directory: Path, text: str) -> Composition:
    write(directory, BASE, "base.toml")
    return parse(directory, f'inherit = "base"\n{text}')


def test_tables_merge_deeply_and_arrays_are_replaced(tmp_path: Path) -> None:
    text = '[service.a]\ncalls = ["core"]\npool.high = 4\n[service.c.options]\ny = 3\n[service.d]\n'
    composition = child(tmp_path, text)
    assert [service.name for service in composition.services] == ["a", "b", "c", "d"]
    a = composition.service("a")
    assert (a.calls, a.pool.low, a.pool.high) == (("core",), 1, 4)
    assert composition.service("c").options == {"x": 1, "y": 3}
    assert (composition.prebind, composition.limits.memory_mib) == (("a",), 512)
    assert (composition.name, composition.description) == ("mine", "")


def test_a_service_can_be_removed(tmp_path: Path) -> None:
    composition = child(tmp_path, "[service.c]\nremove = true\n")
    assert [service.name for service in composition.services] == ["a", "b"]


def test_removing_a_service_that_is_still_named_is_told_at_the_removal(tmp_path: Path) -> None:
    with pytest.raises(CompositionError) as caught:
        child(tmp_path, "[service.b]\nremove = true\n")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.toml'}:3: service b is removed")
    assert f"{tmp_path / 'base.toml'}:6" in str(caught.value)


def test_a_removed_service_can_be_defined_anew_further_down(tmp_path: Path) -> None:
    write(tmp_path, 'inherit = "base"\n[service.c]\nremove = true\n', "middle.toml")
    write(tmp_path, BASE, "base.toml")
    composition = parse(tmp_path, 'inherit = "middle"\n[service.c]\nmemory_mib = 32\n')
    assert composition.service("c") == Service("c", memory_mib=32)


def test_a_mistake_in_an_inherited_file_is_told_there(tmp_path: Path) -> None:
    write(tmp_path, "\n[service.a]\nclas = 1\n", "base.toml")
    with pytest.raises(CompositionError) as caught:
        parse(tmp_path, "inherit = 'base'\n[service.a]\nmemory_mib = 1\n")
    places = {str(mistake.place) for mistake in caught.value.mistakes}
    assert places == {f"{tmp_path / 'base.toml'}:3", f"{tmp_path / 'mine.toml'}:3"}


def test_inheritance_that_goes_round_is_told_where_it_closes(tmp_path: Path) -> None:
    write(tmp_path, "\n\ninherit = 'mine'\n", "other.toml")
    error = refusal(tmp_path, "inherit = 'other'\n")
    assert str(error).startswith(f"{tmp_path / 'other.toml'}:3: inherit goes round")


def test_inherit_takes_a_path_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "[service.z]\n", "base.toml")
    composition = parse(tmp_path, 'inherit = "sub/base.toml"\n')
    assert [service.name for service in composition.services] == ["z"]


# -- start order -----------------------------------------------------------------------------------


def test_services_keep_the_order_of_the_file_where_after_is_silent(tmp_path: Path) -> None:
    text = "[service.d]\nafter = ['a']\n[service.c]\n[service.b]\nafter = ['d']\n[service.a]\n"
    names = [service.name for service in parse(tmp_path, text).services]
    assert names == ["c", "a", "d", "b"]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[list[str], str]]:
    names = draw(st.permutations([f"s{number}" for number in range(draw(st.integers(1, 9)))]))
    services = {}
    for position, name in enumerate(names):
        after = draw(st.lists(st.sampled_from(names[:position]), unique=True)) if position else []
        services[name] = (after, draw(st.sampled_from(["", "", "g", "h"])))
    return {name: services[name] for name in draw(st.permutations(names))}


@settings(deadline=None, max_examples=150)
@given(graphs())
def test_start_order_is_topological_deterministic_and_keeps_groups_together(
    services: dict[str, tuple[list[str], str]],
) -> None:
    text = "".join(f"[service.{name}]\nafter = {after}\ngroup = '{g}'\n" for name, (after, g) in services.items())
    with tempfile.TemporaryDirectory() as directory:
        try:
            composition = parse(Path(directory), text)
        except CompositionError as error:
            assert all("a group starts as one" in mistake.mend + mistake.what for mistake in error.mistakes)
            assert any(group for _, group in services.values())
            return
        assert parse(Path(directory), text) == composition
    order = [service.name for service in composition.services]
    assert sorted(order) == sorted(services)
    for name, (after, _) in services.items():
        assert all(order.index(other) < order.index(name) for other in after)
    units = [service.group or service.name for service in composition.services]
    runs = [unit for index, unit in enumerate(units) if index == 0 or units[index - 1] != unit]
    assert len(runs) == len(set(runs))


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


# -- the line finder -------------------------------------------------------------------------------

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
        ("a",): 18,
        ("a", "b.c"): 8,
        ("a", "b.c", "d"): 9,
        inner: 9,
        (*inner, "f"): 9,
        (*inner, "g"): 9,
        (*inner, "k"): 9,
        ("a", "b.c", "list"): 10,
        ("a", "b.c", "after"): 14,
        ("a", "rows"): 17,
        ("a", "rows", "n"): 16,
        ("a", "last"): 19,
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


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quote(key)} = {inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[\n" + "".join(f"{inline(item)}, # ]\n" for item in value) + "]"
    return str(value).lower() if isinstance(value, int) else quote(value)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(KEY_NAMES, st.dictionaries(KEY_NAMES, TREES, max_size=3), max_size=3))
def test_key_lines_agree_with_where_the_keys_were_written(tree: dict[str, dict[str, Any]]) -> None:
    text = ""
    written: dict[tuple[str, ...], int] = {}
    for table, values in tree.items():
        text += f"[{quote(table)}]\n"
        written[(table,)] = text.count("\n")
        for key, value in values.items():
            written[(table, key)] = text.count("\n") + 1
            text += f"{quote(key)} = {inline(value)}\n\n"
    assert tomllib.loads(text) == tree
    found = key_lines(text)
    assert {path: line for path, line in found.items() if len(path) <= 2} == written


# -- what is shipped, and how it is shown ----------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "isolated", "monolith"])
def test_shipped_compositions_load_fit_one_page_and_describe_themselves(name: str) -> None:
    composition = load(name)
    assert composition.description
    assert {service.name for service in composition.services} >= {"procmgr", "memmgr", "example"}
    assert len(composition.path.read_text().splitlines()) <= 45


def test_shipped_compositions_isolate_as_their_names_say() -> None:
    classes = {name: {service.isolation for service in load(name).services} for name in ("default", "isolated")}
    assert classes == {"default": {Isolation.IC2}, "isolated": {Isolation.IC2}}
    assert {service.isolation for service in load("monolith").services} == {Isolation.IC0}
    alone = [service.process for service in load("isolated").services]
    assert len(alone) == len(set(alone))


def test_the_default_grants_only_the_calls_it_lists() -> None:
    composition = load("default")
    assert composition.prebind == ("procmgr", "memmgr")
    calls = {name: composition.service(name).calls for name in ("memmgr", "procmgr", "example")}
    assert calls == {"memmgr": ("core",), "procmgr": ("core", "memmgr"), "example": ()}


def test_isolated_never_gives_more_than_default() -> None:
    usual, tight = load("default"), load("isolated")
    for service in tight.services:
        other = usual.service(service.name)
        assert service.calls == other.calls
        assert service.memory_mib < other.memory_mib
        assert service.pool.limit < other.pool.limit
        assert service.handler_limit_ms < other.handler_limit_ms


def test_available_lists_every_composition_and_says_which_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "description = 'good'\n[service.a]\n", "good.toml")
    write(tmp_path, "x = \n", "bad.toml")
    write(tmp_path, "not a composition", "notes.txt")
    bad, good = available(tmp_path, interfaces=None)
    assert good == ("good", tmp_path / "good.toml", "good")
    assert bad[:2] == ("bad", tmp_path / "bad.toml")
    assert bad[2].startswith(f"refused: {tmp_path / 'bad.toml'}:1: not valid TOML")
    assert available(tmp_path / "missing") == []
    assert {name for name, _, _ in available()} >= {"default", "isolated", "monolith"}
    assert all(path.parent == COMPOSITIONS for _, path, _ in available())


def test_explain_shows_every_service_on_a_line_of_its_own(tmp_path: Path) -> None:
    lines = explain(parse(tmp_path, FULL)).splitlines()
    assert lines[0] == "mine: all keys at once"
    head, a, b, c = lines[-4:]
    assert head.split() == ["service", "class", "process", "placement", "calls", "clients", "pool"]
    assert a.startswith("a        IC1    a        poller 1   core, b  1000")
    assert b.split()[:5] == ["b", "IC2", "pair", "cpu", "0"]
    assert b.endswith("1 (1..2, reserve 1, limit 8) x 128 KiB")
    assert " none " in c


def test_the_example_of_the_readme_loads(tmp_path: Path) -> None:
    text = (COMPOSITIONS / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    service = load(write(tmp_path, text)).service("example")
    assert (service.isolation, str(service.placement)) == (Isolation.IC1, "poller 1")


def test_the_readme_names_every_key() -> None:
    readme = (COMPOSITIONS / "README.md").read_text()
    stated = {path[-1] for path in key_lines(FULL) if path[:1] == ("system",) or len(path) > 2}
    tables_and_options = {"system", "pool", "restart", "path", "size", "fast"}
    missing = [key for key in sorted(stated - tables_and_options) if not any(f"{dot}{key}`" in readme for dot in "`.")]
    assert missing == []
