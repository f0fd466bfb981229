"""What a good composition means: keys, inheritance and start order; and the compositions that are shipped."""

from __future__ import annotations

import sysconfig
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corekernel import host_paths
from corekernel.composition import (
    COMPOSITIONS,
    AttachKind,
    AttachPolicy,
    Composition,
    CompositionError,
    Device,
    DeviceKind,
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
from corekernel.toml_keys import key_lines
from tests.composition_samples import FULL, parse, refusal, write

# -- what a good file means ------------------------------------------------------------------------


def test_a_service_with_no_keys_has_the_documented_defaults(tmp_path: Path) -> None:
    composition = parse(tmp_path, "[service.a]\n")
    assert composition.services == (Service("a"),)
    service = composition.service("a")
    assert (service.module, service.interface, service.process) == ("services.a", "a", "a")
    assert service.isolation is Isolation.IC2 and service.clients is True
    assert service.pool == Pool(initial=4, low=2, high=16, reserve=2, limit=4096, stack_kib=4096)
    assert service.restart == Restart(max_per_minute=60, backoff_ms=1, backoff_max_ms=2000)
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
        host_paths=("/", "/usr/x.y", "@python"),
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
        devices=("disk0", "console", "net:1"),
        pool=Pool(initial=1, low=1, high=2, reserve=1, limit=8, stack_kib=128),
        restart=Restart(max_per_minute=5, backoff_ms=20, backoff_max_ms=40),
        options={"path": "somewhere", "size": 3, "fast": True},
    )
    assert composition.service("c").clients is False
    assert composition.devices == (
        Device("disk0", DeviceKind.RAM, 8 << 20),
        Device("net:1", DeviceKind.RAM, 256 << 20),
        Device("console", DeviceKind.SERIAL),
        Device("null", DeviceKind.MEMORY),
    )
    listed = [device.name for device in composition.devices_of(composition.service("b"))]
    assert listed == ["disk0", "console", "net:1"]


def test_a_c_service_has_small_stacks_unless_told_otherwise(tmp_path: Path) -> None:
    text = '[service.a]\nlanguage = "c"\n[service.b]\nlanguage = "c"\npool.stack_kib = 32\n'
    assert [service.pool.stack_kib for service in parse(tmp_path, text).services] == [64, 32]


def test_python_stands_for_the_standard_library_and_each_directory_is_there_once(tmp_path: Path) -> None:
    stdlib = sysconfig.get_path("stdlib")
    listed = host_paths.expand(["/usr", host_paths.PYTHON, stdlib])
    assert listed[:2] == ("/usr", stdlib)
    assert sysconfig.get_path("platstdlib") in listed
    assert len(set(listed)) == len(listed)
    said: list[str] = []
    assert host_paths.present(["/usr", str(tmp_path / "none"), __file__], said.append) == ("/usr",)
    assert [text.split()[0] for text in said] == [str(tmp_path / "none"), __file__]


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


DEVICES = """\
[device.disk]
kind = "ram"
size_mib = 8
[device.null]
kind = "memory"
[service.a]
devices = ["disk", "null"]
"""


def test_devices_are_inherited_merged_and_removed(tmp_path: Path) -> None:
    write(tmp_path, DEVICES, "base.toml")
    text = 'inherit = "base"\n[device.disk]\nsize_mib = 16\n[device.null]\nremove = true\n'
    composition = parse(tmp_path, f'{text}[service.a]\ndevices = ["disk"]\n')
    assert composition.devices == (Device("disk", DeviceKind.RAM, 16 << 20),)
    error = refusal(tmp_path, text)
    assert str(error).startswith(f"{tmp_path / 'mine.toml'}:5: device null is removed, but ")
    assert f"{tmp_path / 'base.toml'}:7 still has it in devices of a" in str(error)


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


# -- what is shipped, and how it is shown ----------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "isolated", "monolith"])
def test_shipped_compositions_load_fit_one_page_and_describe_themselves(name: str) -> None:
    composition = load(name)
    assert composition.description
    assert {service.name for service in composition.services} >= {"procmgr", "memmgr", "example"}
    assert len(composition.path.read_text().splitlines()) <= 66


def test_shipped_compositions_isolate_as_their_names_say() -> None:
    classes = {name: {service.isolation for service in load(name).services} for name in ("default", "isolated")}
    assert classes == {"default": {Isolation.IC2}, "isolated": {Isolation.IC2}}
    monolith = {service.name: service.isolation for service in load("monolith").services}
    assert monolith.pop("hostfs") is Isolation.IC2, "what it may read is enforced on a process of its own"
    assert set(monolith.values()) == {Isolation.IC0}
    alone = [service.process for service in load("isolated").services]
    assert len(alone) == len(set(alone))


def test_the_default_grants_only_the_calls_it_lists() -> None:
    composition = load("default")
    assert composition.prebind == ("procmgr", "memmgr")
    calls = {name: composition.service(name).calls for name in ("memmgr", "procmgr", "example")}
    assert calls == {"memmgr": ("core",), "procmgr": ("core", "memmgr"), "example": ()}
    assert {service.name for service in composition.services if service.host_paths} == {"hostfs"}
    assert composition.service("hostfs").clients is False


def test_isolated_never_gives_more_than_default() -> None:
    usual, tight = load("default"), load("isolated")
    for service in tight.services:
        other = usual.service(service.name)
        assert service.calls == other.calls
        assert service.host_paths == other.host_paths
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
    head, a, b, c, _, *devices = lines[-10:]
    assert [line.split() for line in devices] == [
        ["device", "kind", "size", "services"],
        ["disk0", "ram", "8", "MiB", "b"],
        ["net:1", "ram", "256", "MiB", "b"],
        ["console", "serial", "-", "b"],
        ["null", "memory", "-", "c"],
    ]
    assert head.split() == ["service", "class", "process", "placement", "calls", "clients", "pool"]
    assert a.startswith("a        IC1    a        poller 1   core, b  1000")
    assert b.split()[:5] == ["b", "IC2", "pair", "cpu", "0"]
    assert b.endswith("1 (1..2, reserve 1, limit 8) x 128 KiB")
    assert " none " in c
    assert "host      a reads /, /usr/x.y, @python" in lines


def test_the_example_of_the_readme_loads(tmp_path: Path) -> None:
    text = (COMPOSITIONS / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    service = load(write(tmp_path, text)).service("example")
    assert (service.isolation, str(service.placement)) == (Isolation.IC1, "poller 1")


def test_the_readme_names_every_key() -> None:
    readme = (COMPOSITIONS / "README.md").read_text()
    stated = {str(path[-1]) for path in key_lines(FULL) if path[:1] == ("system",) or len(path) > 2}
    tables_and_options = {"system", "pool", "restart", "path", "size", "fast"}
    missing = [key for key in sorted(stated - tables_and_options) if not any(f"{dot}{key}`" in readme for dot in "`.")]
    assert missing == []
