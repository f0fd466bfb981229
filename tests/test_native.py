"""The dispatcher in C, tested in C: freestanding, interrupted, under the sanitizers, and under attack.

The programs stand in `tests/native/` and are compiled here, each run with a time limit of its own. Where one needs a
service, a pool of the C echo service runs in a forked child of the test process, which hands the frames object to the
program as an inherited descriptor; when the programs are done every carrier must have come back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from corekernel import dispatcher
from corekernel.dispatcher import CarrierPool, WaitPolicy
from corekernel.native import build
from corekernel.port import Handler
from corekernel.shared import Frames, Mapping, PoolPage
from tests.forked import run_forked

HERE = Path(__file__).parent / "native"
PRODUCT = Path(build.__file__).parent
CLIENT_HALF = [PRODUCT / "wait.c", PRODUCT / "client.c"]
BOTH_HALVES = [PRODUCT / name for name in build.SOURCES if name != "python.c"]
COMMON = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing", f"-I{PRODUCT}", f"-I{HERE}"]
FREESTANDING = ["-O2", "-ffreestanding", "-fno-stack-protector", "-mgeneral-regs-only", "-fno-pic"]
STACK = 64 << 10
PRIORITY_HIGH = 2
SECONDS = 20  # for a program that takes one or two

SANITIZERS = {
    "thread": ["-O1", "-g", "-fsanitize=thread"],
    "address": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
}
# hmk_pool_set_bulk() does not free the record it replaces: a call may be reading it, and it is 16 bytes.
LEAKS = "leak:hmk_pool_set_bulk\n"


def run(command: list[str | Path], **options: Any) -> str:
    """Standard output of a command that must succeed in time and say nothing on standard error."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **options)
    assert (done.returncode, done.stderr) == (0, ""), f"{command[0]}: status {done.returncode}\n{done.stderr}"
    return str(done.stdout)


_objects: dict[tuple[Path, str], Path] = {}  # what was compiled for one program serves all


def objects_of(directory: Path, sources: list[Path], flags: list[str]) -> list[Path]:
    """The objects of these sources, those that are missing compiled at once; an object stands for itself."""
    wanted = {source: (source, " ".join(flags)) for source in sources if source.suffix == ".c"}
    compilers: list[subprocess.Popen[str]] = []
    for source, key in wanted.items():
        if key not in _objects:
            made = directory / f"{source.stem}-{len(_objects)}.o"
            command: list[str | Path] = ["gcc", *COMMON, *flags, "-c", source, "-o", made]
            compilers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
            _objects[key] = made
    said = [compiler.communicate()[0] for compiler in compilers]
    if any(said) or any(compiler.returncode for compiler in compilers):
        _objects.clear()
        pytest.fail("".join(said))
    return [_objects[wanted[source]] if source in wanted else source for source in sources]


def compiled(directory: Path, name: str, sources: list[Path], flags: list[str]) -> Path:
    program = directory / name
    run(["gcc", *COMMON, *flags, *objects_of(directory, sources, flags), "-o", program])
    return program


def without_aslr() -> list[str | Path]:
    """What to put before a ThreadSanitizer program: its shadow does not fit every random layout of the host."""
    prefix: list[str | Path] = ["setarch", "x86_64", "-R"]
    return prefix if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0 else []


# ---- a pool of the echo service ------------------------------------------------------------------------------


@dataclass
class Bound:
    """A binding record; the C handlers have no use for it."""

    client: int = 7
    uid: int = 0
    gid: int = 0
    pid: int = 0
    thread: int = 0
    handlers: dict[int, Handler] = field(default_factory=dict)
    wait_sequence: int = 0


_mapped: list[object] = []  # carriers live as long as their process: nothing they use may be collected before


class Echo:
    """A pool of carriers of the C echo service, and the frames objects bound to them."""

    def __init__(self, carriers: int) -> None:
        _mapped.append(self)
        cpus = dispatcher.cpus()
        self.policy = WaitPolicy(dispatcher.measure_tick_khz(), cpus)
        size = PoolPage.size(carriers, cpus)
        self.page = PoolPage(Mapping(memory("pool", size), size), carriers, cpus)
        stacks = Mapping(memory("stacks", carriers * STACK), carriers * STACK)
        self.pool = CarrierPool(self.page, stacks, STACK, self.policy, python=False, base=0)
        assert self.pool.grow(carriers) == carriers

    def open(self, *slots: int) -> Client:
        """A new client, with these slots of its frames object bound."""
        fd = memory("frames", Frames.SIZE)
        client = Client(self, fd, Frames(fd))
        _mapped.append(client)
        for slot in slots:
            client.bind(slot)
        return client

    def forged(self) -> int:
        return self.page.totals()["forged"]


def memory(name: str, size: int) -> int:
    fd = os.memfd_create(f"hmk-test-{name}", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


@dataclass
class Client:
    """One client process as the service sees it."""

    service: Echo
    fd: int
    frames: Frames
    carriers: list[int] = field(default_factory=list)

    def bind(self, slot: int) -> int:
        carrier = self.service.pool.take(reserve=False)
        assert carrier >= 0
        self.service.pool.bind(carrier, 7, self.frames, slot, Bound(), priority=PRIORITY_HIGH, charged=0)
        self.carriers.append(carrier)
        return carrier

    def drop(self) -> None:
        """The client is gone: all its carriers must come back."""
        for carrier in self.carriers:
            self.service.pool.unbind(carrier, force=True)
        give_up = time.monotonic() + 5
        for carrier in self.carriers:
            while not self.service.pool.parked(carrier):
                assert time.monotonic() < give_up, f"carrier {carrier} did not come back"
                os.sched_yield()
        self.carriers.clear()

    def words(self) -> list[str]:
        """What every client program is told: descriptor, time stamp frequency, CPUs."""
        policy = self.service.policy
        return [str(self.fd), str(policy.tick_khz), str(policy.cpus)]

    def start(self, program: Path, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [program, *arguments], pass_fds=[self.fd], stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1
        )


@contextlib.contextmanager
def running(client: Client, program: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program that is gone at the end, whatever happens."""
    with client.start(program, *arguments) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> None:
    """Wait for that many signs of progress."""
    assert process.stdout is not None
    got = process.stdout.read(count)
    assert len(got) == count, f"it ended: {process.stderr.read() if process.stderr else ''}"


def finish(process: subprocess.Popen[str]) -> str:
    """Close its input and have what it printed; it must succeed."""
    output, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")
    return output


# ---- the client half on its own ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The client half compiled as for an unmodified program."""
    return objects_of(tmp_path_factory.mktemp("freestanding"), CLIENT_HALF, [*FREESTANDING, "-nostdlib"])


def test_the_client_half_needs_no_symbol_but_its_own(objects: list[Path]) -> None:
    def symbols(which: str) -> set[str]:
        return set(run(["nm", "--format=just-symbols", which, *objects]).split()) - {f"{o}:" for o in objects}

    assert {"hmk_call", "hmk_resume", "hmk_cancel", "hmk_wait_phase"} <= symbols("--defined-only")
    assert symbols("--undefined-only") <= symbols("--defined-only")


def test_the_client_half_has_no_data_and_no_thread_local_storage(objects: list[Path]) -> None:
    for path in objects:
        sections = run(["readelf", "-SW", path])
        sizes = {name: int(size, 16) for name, size in re.findall(r"\] (\.\S+) +\S+ +\S+ +\S+ (\S+)", sections)}
        assert sizes[".text"] > 0
        assert {n: s for n, s in sizes.items() if s and n.startswith((".data", ".bss", ".tdata", ".tbss"))} == {}
        assert not re.search(r"TLS|TPOFF|DTP", run(["readelf", "-rsW", path]))


def test_the_client_half_uses_general_registers_only(objects: list[Path]) -> None:
    for path in objects:
        code = run(["objdump", "-d", "--no-show-raw-insn", path])
        assert "%rax" in code
        assert re.findall(r".*%(?:[xyz]?mm\d|st\b|k\d|fs:|gs:).*", code) == []


def test_a_program_without_libc_makes_calls(objects: list[Path], tmp_path: Path) -> None:
    flags = [*FREESTANDING, "-nostdlib", "-static", "-no-pie"]
    program = compiled(tmp_path, "freestanding", [HERE / "freestanding.c", *objects], flags)

    def body() -> None:
        service = Echo(3)
        client = service.open(0)
        idle = client.bind(2)
        assert service.pool.unbind(idle)
        with running(client, program, *client.words(), "1500") as process:
            finish(process)
        assert service.page.totals()["calls"] > 4 * 1500
        client.drop()

    run_forked(body)


def test_calls_from_a_signal_handler_that_interrupts_calls_are_all_answered(tmp_path: Path) -> None:
    program = compiled(tmp_path, "reentrant", [HERE / "reentrant.c", *CLIENT_HALF], ["-O2"])

    def body() -> dict[str, int]:
        service = Echo(2)
        client = service.open(0, 1)
        with running(client, program, *client.words(), "5000") as process:
            told: dict[str, int] = json.loads(finish(process))
        client.drop()
        return {**told, "served": service.page.totals()["calls"]}

    told = run_forked(body)
    assert told["handler"] == 5000
    assert told["replied"] > 1000 and told["busy"] > 500 and told["resumed"] > 10 and told["cancelled"] > 10
    assert told["served"] <= told["issued"] <= told["served"] + told["cancelled"]


# ---- both halves ---------------------------------------------------------------------------------------------


def test_calls_that_get_no_reply_say_why(tmp_path: Path) -> None:
    program = compiled(tmp_path, "endings", [HERE / "endings.c", *BOTH_HALVES], [*SANITIZERS["address"], "-lpthread"])
    run([program, str(dispatcher.measure_tick_khz()), str(dispatcher.cpus())])


@pytest.fixture(scope="module", params=list(SANITIZERS))
def stress(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The command of the stress test under one sanitizer."""
    directory = tmp_path_factory.mktemp(request.param)
    sources = [HERE / "stress.c", HERE / "stress_clients.c", *BOTH_HALVES]
    program = compiled(directory, "stress", sources, [*SANITIZERS[request.param], "-lpthread"])
    suppressions = directory / "leaks"
    suppressions.write_text(LEAKS)
    options = ["env", f"LSAN_OPTIONS=suppressions={suppressions}:print_suppressions=0", "TSAN_OPTIONS=exitcode=66"]
    return [*options, *(without_aslr() if request.param == "thread" else []), program]


@pytest.mark.parametrize(("waiting", "rounds"), [("carriers", 1500), ("poller", 500)])
def test_the_stress_test_runs_clean_under_a_sanitizer(stress: list[str | Path], waiting: str, rounds: int) -> None:
    told = json.loads(run([*stress, waiting, str(rounds)]))
    assert told["forced"] >= told["promised"]
    assert told["unbound"] > 5 and told["taken"] > 5 and told["waited"] > 50 and told["late"] > 20


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("how", ["calm", "disturbed"])
def test_carriers_at_the_gate_get_in_first_come_first_served_and_one_at_a_time(
    sanitizer: str, how: str, tmp_path: Path
) -> None:
    sources = [HERE / "in_line.c", PRODUCT / "gate.c", PRODUCT / "wait.c"]
    program = compiled(tmp_path, "in_line", sources, [*SANITIZERS[sanitizer], "-lpthread"])
    prefix = without_aslr() if sanitizer == "thread" else []
    policy = [str(dispatcher.measure_tick_khz()), str(dispatcher.cpus())]
    told = json.loads(run([*prefix, program, how, *policy, "3000"]))
    assert told["lined_up"] >= 6 and told["passed"] > 0 and told["called_out"] > 0 and told["let_go"] > 0


# ---- a hostile client ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("hostile")
    return {
        "echoer": compiled(directory, "echoer", [HERE / "echoer.c", *CLIENT_HALF], ["-O2"]),
        "hostile": compiled(directory, "hostile", [HERE / "hostile.c"], ["-O2"]),
    }


def echoes(client: Client, program: Path, slots: int) -> None:
    """The service answers on every slot of a client."""
    with running(client, program, *client.words(), str(slots)) as process:
        assert int(finish(process).split()[-1]) >= 16 * slots


@pytest.mark.parametrize("seed", [1, 20241])
def test_a_client_that_scribbles_over_its_frames_harms_no_other(programs: dict[str, Path], seed: int) -> None:
    def body() -> tuple[int, int]:
        service = Echo(6)
        honest, bad = service.open(0, 1), service.open(0, 1, 2, 3)
        with running(honest, programs["echoer"], *honest.words(), "2") as echoer:
            lines(echoer, len("echoing\n"))
            with running(bad, programs["hostile"], "scribble", str(bad.fd), "4", str(seed)) as scribbler:
                lines(scribbler, 60)
            replies = int(finish(echoer))
        forged = service.forged()
        bad.drop()
        echoes(service.open(0, 1, 2, 3), programs["echoer"], 4)
        return replies, forged

    replies, forged = run_forked(body)
    assert replies > 200 and forged > 100


def test_a_client_that_requeues_sleeping_carriers_cannot_keep_them(programs: dict[str, Path]) -> None:
    def body() -> None:
        service = Echo(4)
        bad = service.open(0, 1, 2, 3)
        with running(bad, programs["hostile"], "requeue", str(bad.fd), "4") as thief:
            lines(thief, 1)  # every carrier now sleeps on a word of the thief's
            bad.drop()
        echoes(service.open(0, 1, 2, 3), programs["echoer"], 4)

    run_forked(body)
