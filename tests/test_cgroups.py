"""Memory limits of programs: the host enforces them by control groups, or the core finds out and kills.

What a limit does is tested both ways on every host: as the host is, and with control groups taken away. On a host
without any the two are the same, and what the core does instead is what is tested.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shim
from corekernel import boot, cgroup_places, cgroups, composition, doctor, memory_watch
from corekernel.cgroup_places import CONTROLLERS, Place, find, where
from corekernel.cgroups import Group, Groups
from tests.processes import Child, Tell, alive, children_of, status_of, until
from tests.systems import Boots, Box, system_name
from tests.test_procmgr import refusal, script

MIB = 1 << 20
LIMIT = 64 * MIB
LIMITED = f"import mmap, signal, time\ns.memmgr.limit_set(s.pid, {LIMIT})\n"
HOG = "held = b'x' * (128 << 20)\nsignal.pause()\n"
SPARSE = """
fd = os.memfd_create("sparse")
os.ftruncate(fd, 1 << 40)
with mmap.mmap(fd, 128 << 20) as window:
    for at in range(0, 128 << 20, 4096):
        window[at] = 1
    signal.pause()
"""
FORKED = """
child = os.fork()
if child == 0:
    held = b'x' * (128 << 20)
    signal.pause()
sys.exit(10 + os.WTERMSIG(os.waitpid(child, 0)[1]))
"""
RAISED = """
while s.memmgr.limit_get(s.pid) < 512 << 20:
    time.sleep(0.01)
held = b'x' * (128 << 20)
sys.exit(6)
"""


@pytest.fixture(params=["as the host is", "without control groups"])
def box(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, system: Boots) -> Box:
    """A system as this host lets it be, and one that must do without control groups."""
    if request.param == "without control groups":
        monkeypatch.setattr(cgroup_places, "places", lambda: ())
    return system("default")


def weakness(box: Box, controller: str) -> bool:
    """Whether a system says that it has no groups of a controller."""
    return any(f"no {controller} control group" in text for text in box.status()["weaknesses"])


def host_pid(system: shim.System, number: int) -> int:
    """A program's pid as the host shows it."""
    return next(record.host_pid for record in system.processes() if record.pid == number)


def groups_of(pid: int) -> set[str]:
    """The control groups of a process that are ours, one for each hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line for line in lines if f"/{cgroups.PREFIX}" in line}


def tops(name: str) -> list[Path]:
    """The groups of a system, one for each hierarchy."""
    return [path for path in cgroups.systems() if path.name.startswith(f"{cgroups.PREFIX}{name}-")]


def inner(name: str) -> set[Path]:
    """The groups of single processes of a system."""
    return {path for top in tops(name) for path in top.glob("*/")}


# ---- who dies at the limit


@pytest.mark.parametrize("hog", [HOG, SPARSE], ids=["private", "sparse memfd"])
def test_a_program_over_its_limit_is_killed_and_nobody_else(box: Box, hog: str) -> None:
    system = box.attach()
    bystander = script(system, "import signal\nsignal.pause()")
    services = {p["name"]: p["pid"] for p in box.status()["processes"]}
    assert system.procmgr.wait(script(system, LIMITED + hog)) == -signal.SIGKILL
    box.logged("memory limit: the core killed 1" if weakness(box, "memory") else "memory limit: the host killed 1")
    assert {p["name"]: p["pid"] for p in box.status()["processes"]} == services
    assert alive(host_pid(system, bystander))


def test_within_its_limit_a_program_lives(box: Box) -> None:
    system = box.attach()
    text = LIMITED + "held = b'x' * (20 << 20)\nassert s.procmgr.getpid() == s.pid\nsys.exit(5)"
    assert system.procmgr.wait(script(system, text)) == 5


def test_what_a_program_forks_is_under_its_limit_too(box: Box) -> None:
    system = box.attach()
    assert system.procmgr.wait(script(system, LIMITED + FORKED)) == 10 + signal.SIGKILL


def test_a_limit_below_what_is_used_already_ends_the_program(box: Box) -> None:
    system = box.attach()
    text = f"import signal\nheld = b'x' * (128 << 20)\ns.memmgr.limit_set(s.pid, {LIMIT})\nsignal.pause()"
    assert system.procmgr.wait(script(system, text)) == -signal.SIGKILL


def test_a_raised_limit_lets_a_program_have_more(box: Box) -> None:
    system = box.attach()
    number = script(system, LIMITED + RAISED)
    if os.getuid() == 0:
        until(lambda: system.memmgr.limit_get(number) == LIMIT, "the program has lowered its limit")
        system.memmgr.limit_set(number, 512 * MIB)
        assert system.procmgr.wait(number) == 6
    else:  # only root may raise it
        assert refusal(system.memmgr.limit_set, number, 512 * MIB) == "EPERM"


def test_a_process_that_attaches_is_neither_moved_nor_killed(box: Box) -> None:
    def body(system: shim.System, tell: Tell) -> list[Any]:
        system.memmgr.limit_set(system.pid, 4 * MIB)
        held = b"x" * LIMIT
        assert system.procmgr.wait(script(system, LIMITED + HOG)) == -signal.SIGKILL  # so the core has looked
        return [len(held), sorted(groups_of(os.getpid()))]

    assert box.client(body).result() == [LIMIT, sorted(groups_of(os.getpid()))]


def test_a_program_that_closes_its_channel_is_still_watched(box: Box) -> None:
    system = box.attach()
    number = script(system, LIMITED + "os.closerange(3, 1000)\n" + HOG)
    assert system.procmgr.wait(number) == -signal.SIGKILL


def test_only_what_exceeds_is_killed() -> None:
    def body(tell: Tell) -> None:
        held = b"x" * LIMIT
        tell(len(held))
        tell.pause()

    child = Child(body)
    try:
        assert child.hear() == LIMIT
        assert memory_watch.used(child.pid) >= LIMIT
        assert memory_watch.kill_excess(child.pid, 1 << 40) == 0 and alive(child.pid)
        assert memory_watch.kill_excess(child.pid, LIMIT) == 1
        until(lambda: not alive(child.pid), "it is dead")
        assert memory_watch.used(child.pid) == 0
    finally:
        child.close()


# ---- the groups of a system


def test_each_process_that_the_core_starts_has_a_group_of_its_own(echoes: Box) -> None:
    system = echoes.attach()
    programs = [host_pid(system, system.spawn(["/bin/sleep", "1000"])) for _ in range(2)]
    services = [p["pid"] for p in echoes.status()["processes"] if p["name"] != "core"]
    found = [groups_of(pid) for pid in (*programs, *services)]
    hierarchies = len(cgroup_places.places())
    assert [len(groups) for groups in found] == [hierarchies] * len(found)
    assert len(set().union(*found)) == hierarchies * len(found)
    assert all(f"/{cgroups.PREFIX}{echoes.name}-" in group for groups in found for group in groups)
    assert groups_of(echoes.status()["core_pid"]) == groups_of(os.getpid())


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_system_and_the_doctor_say_what_the_host_does_not_enforce(echoes: Box, controller: str) -> None:
    check = next(check for check in doctor.checks() if check.name == f"control group: {controller}")
    assert weakness(echoes, controller) == (where(controller) is None) == (not check.ok)


def test_programs_start_with_the_limits_that_policy_gives_them(echoes: Box) -> None:
    system = echoes.attach()
    system.spawn(["/bin/sleep", "1000"])
    for controller, names, wanted in (
        ("memory", ("memory.limit_in_bytes", "memory.max"), str(256 * MIB)),
        ("pids", ("pids.max",), "256"),
    ):
        files = [path / name for path in inner(echoes.name) for name in names if (path / name).exists()]
        assert [path.read_text().strip() for path in files].count(wanted) == (where(controller) is not None)
    assert system.procmgr.wait(script(system, "sys.exit(s.memmgr.limit_get(s.pid) >> 20 == 256)")) == 1


def test_groups_go_with_their_processes(echoes: Box) -> None:
    system = echoes.attach()
    before = len(inner(echoes.name))
    for _ in range(5):
        assert system.procmgr.wait(system.spawn(["/bin/true"])) == 0
    echoes.recovered("echo", echoes.kill("echo"))
    with pytest.raises(OSError, match="No such file"):
        system.spawn(["/no/such/program"])
    until(lambda: len(inner(echoes.name)) == before, f"there are {before} groups again")


def test_a_group_stays_until_the_last_of_a_programs_processes_has_ended(system: Boots) -> None:
    box = system("default")
    attached = box.attach()
    before = len(inner(box.name))
    assert attached.procmgr.wait(attached.spawn(["/bin/sh", "-c", "sleep 1000 & exit 0"])) == 0
    orphan = until(lambda: next(iter(named("sleep", children_of(box.status()["core_pid"]))), 0), "there is an orphan")
    assert len(inner(box.name)) == before + len(cgroup_places.places())
    os.kill(orphan, signal.SIGKILL)
    until(lambda: len(inner(box.name)) == before, "its group is gone")


def named(name: str, pids: Iterable[int]) -> list[int]:
    """Those of some living processes that run a program."""
    return [pid for pid in pids if status_of(pid)["Name"] == name]


# ---- what is left behind


@pytest.fixture
def own_places(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Places where no other system of this host looks; at the end nothing may be left in them."""
    name = f"own-{system_name()}"
    found = [Place(place.path / name, place.controllers, place.unified) for place in cgroup_places.places()]
    for place in found:
        place.path.mkdir()
        if place.unified:
            cgroups._distribute(place.path.parent, place.controllers)
    monkeypatch.setattr(cgroup_places, "places", lambda: tuple(found))
    yield
    for place in found:
        place.path.rmdir()


def launch_and_lose_both(name: str) -> None:
    """Boot a system, and kill its keeper and then its launcher, so that nobody cleans up."""

    def launcher(tell: Tell) -> None:
        tell(boot.launch(name, composition.load("default")).pid)
        tell.pause()

    child = Child(launcher)
    try:
        keeper = child.hear()
        with shim.attach(name) as system:
            core = system.ask("status")["core_pid"]
        os.kill(keeper, signal.SIGKILL)
        until(lambda: not alive(core), "the core is gone")
    finally:
        child.close()


def test_what_nobody_was_left_to_remove_the_next_system_removes(own_places: None) -> None:
    name = system_name()
    launch_and_lose_both(name)
    assert len(tops(name)) == len(cgroup_places.places())
    running = boot.launch(system_name(), composition.load("default"))
    assert tops(name) == []
    running.kill()
    os.close(running.pidfd)


def test_a_sweep_ends_what_a_dead_system_left_running(own_places: None) -> None:
    name = system_name()
    launch_and_lose_both(name)
    child = Child(lambda tell: tell.pause())
    try:
        for top in tops(name):
            (top / "left").mkdir()
            (top / "left" / "cgroup.procs").write_text(str(child.pid))
        cgroups.sweep(name, 10.0)
        assert tops(name) == []
        assert alive(child.pid) == (not cgroup_places.places())
    finally:
        child.close()


def test_a_sweep_leaves_a_living_system_alone(echoes: Box) -> None:
    before = inner(echoes.name)
    cgroups.sweep()
    assert inner(echoes.name) == before
    system = echoes.attach()
    assert system.procmgr.wait(system.spawn(["/bin/true"])) == 0


def test_a_system_that_is_refused_groups_says_so_and_runs(monkeypatch: pytest.MonkeyPatch, system: Boots) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(1, "refused here", str(path))

    monkeypatch.setattr(cgroups, "_claim", refuse)
    box = system("default")
    reasons = [text for text in box.status()["weaknesses"] if "refused here" in text]
    assert len(reasons) == (len(CONTROLLERS) if cgroup_places.places() else 0)
    attached = box.attach()
    assert attached.procmgr.wait(attached.spawn(["/bin/true"])) == 0


def test_without_root_there_is_no_place_for_groups() -> None:
    def body(tell: Tell) -> list[str]:
        if os.getuid() == 0:
            os.setresuid(65534, 65534, 65534)
        return [str(place) for place in cgroup_places.places()]

    child = Child(body)
    assert child.result() == []
    child.close()


# ---- where groups can be made, from what the host says


def hierarchy(at: Path, groups: dict[str, dict[str, str]]) -> None:
    """Directories that look like a hierarchy: path of each group -> its files, besides cgroup.procs."""
    for group, files in groups.items():
        path = at / group.lstrip("/")
        path.mkdir(parents=True, exist_ok=True)
        for name, text in {"cgroup.procs": "", **files}.items():
            (path / name).write_text(text)


def mounted(at: Path, kind: str, options: str = "rw", root: str = "/") -> str:
    """A line of mountinfo."""
    return f"30 25 0:26 {root} {at} rw,relatime shared:9 - {kind} {kind} {options}\n"


def test_version_1_has_a_place_in_each_controllers_hierarchy(tmp_path: Path) -> None:
    memory, pids = tmp_path / "memory", tmp_path / "pids"
    hierarchy(memory, {"/a/b": {}})
    hierarchy(pids, {"/": {}})
    own = "8:pids:/\n4:memory:/a/b\n1:name=systemd:/x\n0::/\n"
    mounts = mounted(memory, "cgroup", "rw,memory") + mounted(pids, "cgroup", "rw,pids")
    assert set(find(own, mounts)) == {
        Place(memory / "a/b", ("memory",), False),
        Place(pids, ("pids",), False),
    }


def test_a_container_that_sees_a_part_of_a_hierarchy_has_its_place_there(tmp_path: Path) -> None:
    hierarchy(tmp_path, {"/": {}, "/inner": {}})
    mounts = mounted(tmp_path, "cgroup", "rw,memory", root="/docker/x")
    assert [p.path for p in find("4:memory:/docker/x/inner\n", mounts)] == [tmp_path / "inner"]
    assert find("4:memory:/elsewhere\n", mounts) == ()


def test_a_hierarchy_that_is_mounted_twice_is_one_place(tmp_path: Path) -> None:
    for at, kind, own in ((tmp_path / "v1", "cgroup", "4:memory:/\n"), (tmp_path / "v2", "cgroup2", "0::/\n")):
        mounts = ""
        for name in ("a", "b"):
            hierarchy(at / name, {"/": {"cgroup.controllers": "memory"}})
            mounts += mounted(at / name, kind, "rw,memory")
        assert [place.path for place in find(own, mounts)] == [at / "a"]


CHILD = {"cgroup.type": "domain", "cgroup.subtree_control": ""}
PARENT = {"cgroup.type": "domain", "cgroup.subtree_control": "cpu memory pids"}
FREE = {"memory.max": "max\n", "memory.high": "max\n", "cpu.max": "max 100000\n", "pids.max": "99\n"}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("/", {"/": {"cgroup.controllers": "cpu memory pids"}}, [("", ("memory", "pids"))]),
        ("/u/s", {"/u": PARENT, "/u/s": CHILD | FREE}, [("u", ("memory", "pids"))]),
        ("/u/s", {"/u": PARENT, "/u/s": CHILD | FREE | {"memory.high": "9"}}, []),
        ("/u/s", {"/u": PARENT, "/u/s": CHILD | FREE | {"cpu.max": "9 100000"}}, []),
        ("/u/s", {"/u": CHILD, "/u/s": CHILD | FREE}, []),
        ("/u/s", {"/u": CHILD | {"cgroup.subtree_control": "memory"}, "/u/s": CHILD | FREE}, [("u", ("memory",))]),
        ("/u/s", {"/u": PARENT, "/u/s": PARENT | FREE}, [("u/s", ("memory", "pids"))]),
    ],
    ids=["root", "beside", "limited memory", "limited CPU", "nothing distributed", "one of two", "below"],
)
def test_version_2_has_a_place_where_no_limit_is_escaped(
    tmp_path: Path, own: str, files: dict[str, dict[str, str]], expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    hierarchy(tmp_path, files)
    found = find(f"0::{own}\n", mounted(tmp_path, "cgroup2"))
    assert found == tuple(Place(tmp_path / path, names, True) for path, names in expected)


def test_version_2_is_limited_by_its_own_files(tmp_path: Path) -> None:
    hierarchy(tmp_path, {"/": {"memory.max": "", "memory.swap.max": "", "pids.max": "", "memory.events": "oom_kill 3"}})
    group = Group(Groups(), [(tmp_path, Place(tmp_path, CONTROLLERS, True))])
    group.limit_memory(LIMIT)
    group.limit_processes(7)
    shown = {name: (tmp_path / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")}
    assert shown == {"memory.max": str(LIMIT), "memory.swap.max": "0", "pids.max": "7"}
    assert group.kills() == 3
