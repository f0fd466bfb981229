"""Attacks from inside a confined process, each in a real process; and what it must still be able to do."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corekernel import confine, doctor, namespaces
from corekernel.channel import Channel
from corekernel.confine import Confinement

MIB = 1 << 20
UID = 61001
NOBODY = 65534
CODE = "import json, corekernel.errors; print(json.dumps('imported'))"
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, *[ctypes.c_size_t] * 5)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

memory = ctypes.create_string_buffer(64)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(memory), 64)
path = ctypes.create_string_buffer(b"/etc/passwd")

as_root = os.geteuid() == 0


def run_forked(body: Callable[[], Any]) -> Any:
    """Run `body` in a forked child; return its JSON result; a failure there fails the test with its text."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            answer: dict[str, Any] = {"result": body()}
        except BaseException:
            answer = {"failure": traceback.format_exc()}
        with contextlib.suppress(OSError):
            os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    assert data, "the child died without an answer"
    answer = json.loads(data)
    assert "failure" not in answer, answer.get("failure")
    return answer["result"]


def become_nobody() -> None:
    """Drop to a user id without any privilege, with the interpreter still reachable."""
    if as_root:
        namespaces.private_mounts()
        namespaces.private_view(namespaces.interpreter_paths())
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def outcome(attempt: Callable[[], Any]) -> str:
    """`allowed`, or the name of the errno that refused the attempt."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "allowed"


def raw(number: int, *arguments: int) -> Callable[[], int]:
    return lambda: namespaces.syscall(number, *arguments)


def checked(call: Callable[[], int | None]) -> Callable[[], None]:
    """An attempt through a C function that returns -1 or MAP_FAILED."""

    def attempt() -> None:
        ctypes.set_errno(0)
        result = call()
        if result in (-1, (1 << 64) - 1):
            raise OSError(ctypes.get_errno(), "refused")

    return attempt


def fork_and_report() -> None:
    if os.fork() == 0:
        os._exit(0)


def attacks(core: int, victim: int, page: int) -> dict[str, Callable[[], Any]]:
    """Everything a service must not be able to do; `core` and `victim` are processes outside."""
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = ctypes.addressof(vector)
    return {
        "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "open (old call)": raw(2, ctypes.addressof(path), 0),
        "openat2": raw(437, -100, ctypes.addressof(path), address, 24),
        "create": lambda: os.open("/tmp/hmk-attack", os.O_CREAT | os.O_WRONLY),
        "memory of the core": lambda: os.open(f"/proc/{core}/mem", os.O_RDONLY),
        "stat": lambda: os.stat("/etc/passwd"),
        "list": lambda: os.listdir("/"),
        "unlink": lambda: os.unlink("/tmp/hmk-attack"),
        "chdir": lambda: os.chdir("/"),
        "mount": raw(165, 0, 0, 0, 0, 0),
        "socket": raw(41, 1, 1, 0),
        "internet socket": raw(41, 2, 1, 0),
        "socketpair": raw(53, 1, 1, 0, ctypes.addressof(memory)),
        "connect": raw(42, 0, ctypes.addressof(path), 2),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "execveat": raw(322, -100, ctypes.addressof(path), 0, 0, 0),
        "fork": fork_and_report,
        "vfork": raw(58),
        "clone a process sharing memory": raw(56, 0x4111, 0),
        "clone a thread in a new user namespace": raw(56, 0x3D0F00 | 0x10000000, 0),
        "ptrace": raw(101, 16, victim, 0, 0),
        "read memory of the core": raw(310, core, address, 1, address, 1, 0),
        "write memory of the victim": raw(311, victim, address, 1, address, 1, 0),
        "kill": lambda: os.kill(victim, signal.SIGKILL),
        "kill with signal 0": lambda: os.kill(core, 0),
        "tkill": raw(200, victim, 9),
        "tgkill": raw(234, victim, victim, 9),
        "queue a signal": raw(129, victim, 9, address),
        "pidfd": lambda: os.pidfd_open(victim),
        "affinity of the victim": lambda: os.sched_setaffinity(victim, [0]),
        "priority of the victim": raw(141, 0, victim, 5),
        "limits of the victim": raw(302, victim, 7, 0, address),
        "raise own limits": raw(302, 0, 7, address, 0),
        "map executable": checked(lambda: libc.mmap(0, 4096, 5, anonymous, 2**64 - 1, 0)),
        "map descriptor executable": checked(lambda: libc.mmap(0, 4096, 4, mmap.MAP_PRIVATE, page, 0)),
        "make executable": checked(lambda: libc.mprotect(ctypes.addressof(memory) & ~4095, 4096, 7)),
        "pkey_mprotect": raw(329, ctypes.addressof(memory) & ~4095, 4096, 7, -1),
        "io_uring": raw(425, 1, address),
        "bpf": raw(321, 0, address, 8),
        "userfaultfd": raw(323, 0),
        "perf_event_open": raw(298, address, 0, -1, -1, 0),
        "keyctl": raw(250, 0, -3, 0),
        "memfd_create": lambda: os.memfd_create("attack"),
        "requeue waiters": raw(202, address, 3, 1, 1, address),
        "become root": lambda: os.setresuid(0, 0, 0),
        "prctl dumpable": raw(157, 4, 1),
        "forget the death signal": raw(157, 1, 0),
        "seal": raw(72, page, 1033, 1),
        "unshare": raw(272, 0x10000000),
        "chroot": lambda: os.chroot("/"),
        "ioctl": raw(16, 0, 0x5412, address),
        "setns": raw(308, page, 0),
    }


def attempt_all(core: int, victim: int, page: int) -> dict[str, str]:
    return {name: outcome(attempt) for name, attempt in attacks(core, victim, page).items()}


def confined(wanted: Confinement, body: Callable[[], Any], unprivileged: bool = False) -> Any:
    def child() -> Any:
        if unprivileged:
            become_nobody()
        confine.preload([])
        confine.apply(wanted)
        return body()

    return run_forked(child)


@pytest.fixture(params=["root", "nobody"])
def privilege(request: pytest.FixtureRequest) -> tuple[Confinement, bool]:
    """A confinement as the core may apply it with privilege, and without."""
    if request.param == "root" and as_root:
        return Confinement(uid=UID), False
    return Confinement(), True


@pytest.mark.parametrize("landlock", [True, False], ids=["with Landlock", "filter alone"])
def test_every_attack_is_refused(privilege: tuple[Confinement, bool], landlock: bool) -> None:
    wanted, unprivileged = privilege
    victim = os.fork()
    if victim == 0:
        signal.pause()
        os._exit(0)
    page = os.memfd_create("page")
    os.ftruncate(page, 4096)
    try:
        wanted = Confinement(uid=wanted.uid, landlock=landlock)
        core = os.getpid()
        results = confined(wanted, lambda: attempt_all(core, victim, page), unprivileged)
        assert len(results) > 45
        # execvp and friends try nothing else; EPERM is the filter's answer, so no attempt reached the host.
        assert {name: result for name, result in results.items() if result != "EPERM"} == {}
        assert os.waitpid(victim, os.WNOHANG) == (0, 0), "the victim was hurt"
    finally:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        os.close(page)


def test_the_attacks_do_succeed_without_confinement() -> None:
    """Guards the attack list itself: an attempt that fails anyway would prove nothing."""
    names = ["open", "stat", "list", "socket", "fork", "kill with signal 0", "pidfd", "memfd_create"]
    names += ["map executable", "socketpair", "read memory of the core", "memory of the core", "tgkill"]

    def body() -> dict[str, str]:
        page = os.memfd_create("page")
        victim = os.fork()
        if victim == 0:
            signal.pause()
        attempts = attacks(os.getpid(), victim, page)
        results = {name: outcome(attempts[name]) for name in names}
        os.waitpid(victim, 0)
        return results

    assert run_forked(body) == dict.fromkeys(names, "allowed")


def work_as_a_service_does(channel: Channel) -> dict[str, Any]:
    """Receive a memfd, map it, and answer from several threads; then raise, format and log an error."""
    message, (fd,) = channel.recv()
    window = mmap.mmap(fd, 4096)
    os.close(fd)

    def write(index: int) -> None:
        window[index] = index + 1

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.sched_yield()
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    try:
        raise RuntimeError("of the service")
    except RuntimeError:
        text = traceback.format_exc()
    channel.send({"ready": poll.poll(0) == [], "asked": message})
    return {"window": list(window[:4]), "trace": text, "idna": "é.example".encode("idna").decode()}


def test_threads_mappings_and_received_descriptors_work(privilege: tuple[Confinement, bool]) -> None:
    wanted, unprivileged = privilege
    ours, theirs = Channel.pair()
    with ours, theirs:
        page = os.memfd_create("page")
        os.ftruncate(page, 4096)
        os.fchmod(page, 0o600)
        ours.send({"map": "this"}, [page])
        result = confined(wanted, lambda: work_as_a_service_does(theirs), unprivileged)
        assert result["window"] == [1, 2, 3, 4]
        assert os.pread(page, 4, 0) == bytes([1, 2, 3, 4])
        assert "RuntimeError: of the service" in result["trace"]
        assert result["idna"] == "xn--9ca.example"
        assert ours.recv()[0] == {"ready": True, "asked": {"map": "this"}}
        os.close(page)


def test_a_traceback_of_a_preloaded_module_shows_its_source() -> None:
    def body() -> str:
        confine.preload(["corekernel.namespaces"])
        confine.apply(Confinement(uid=UID if as_root else None))
        try:
            namespaces.syscall(41, 1, 1, 0)
        except OSError:
            return traceback.format_exc()
        return "allowed"

    assert "return _checked(_libc.syscall(" in run_forked(body)


def test_too_much_memory_is_a_memory_error_not_a_death() -> None:
    def body() -> list[str]:
        found = []
        for size in (16 * MIB, 512 * MIB):
            try:
                found.append(f"{len(bytearray(size)) // MIB}")
            except MemoryError:
                found.append("MemoryError")
        return found

    wanted = Confinement(uid=UID if as_root else None, memory_bytes=256 * MIB)
    assert confined(wanted, body) == ["16", "MemoryError"]


def test_descriptors_are_limited() -> None:
    def body() -> str:
        channel, _ = pair
        with contextlib.suppress(OSError):
            while True:
                os.dup(channel.fileno())
        return outcome(lambda: os.dup(channel.fileno()))

    pair = Channel.pair()
    try:
        assert confined(Confinement(uid=UID if as_root else None, nofile=64), body) == "EMFILE"
    finally:
        for end in pair:
            end.close()


def status_fields() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(not as_root, reason="needs root to change user id")
def test_a_client_loses_user_id_groups_capabilities_and_new_privileges_only() -> None:
    def body() -> dict[str, Any]:
        fields = status_fields()
        return {
            "ids": [fields["Uid"].split(), fields["Gid"].split(), fields["Groups"]],
            "capabilities": int(fields["CapPrm"], 16) | int(fields["CapEff"], 16),
            "no_new_privs": fields["NoNewPrivs"],
            "filters": fields["Seccomp"],
            "fork": outcome(fork_and_report),
            "open": outcome(lambda: os.close(os.open("/etc/passwd", os.O_RDONLY))),
            "core": outcome(lambda: os.kill(parent, 0)),
        }

    parent = os.getpid()
    found = confined(Confinement.client(UID), body)
    assert found["ids"] == [[str(UID)] * 4, [str(UID)] * 4, ""]
    assert found["capabilities"] == 0
    assert (found["no_new_privs"], found["filters"]) == ("1", "0")
    assert (found["fork"], found["open"], found["core"]) == ("allowed", "allowed", "EPERM")


@pytest.mark.skipif(not as_root, reason="needs root to change user id")
def test_the_number_of_processes_of_a_client_is_limited() -> None:
    def body() -> str:
        children: list[int] = []
        try:
            while len(children) < 20:
                child = os.fork()
                if child == 0:
                    signal.pause()
                    os._exit(0)
                children.append(child)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        return "allowed"

    assert confined(Confinement.client(UID + 1, processes=5), body) == "EAGAIN"


@pytest.mark.skipif(not as_root, reason="needs root to make a network namespace")
def test_without_network_there_is_no_interface_but_an_idle_loopback() -> None:
    def names() -> list[str]:
        return [name for _, name in socket.if_nameindex()]

    assert confined(Confinement(uid=UID, landlock=False, seccomp="none"), names) == ["lo"]


def test_landlock_alone_denies_every_path_and_signals() -> None:
    if confine.landlock_abi() < 6:
        assert any("Landlock" in text for text in confine.weaknesses())
        return

    def body() -> list[str]:
        return [
            outcome(lambda: os.open("/etc/passwd", os.O_RDONLY)),
            outcome(lambda: os.listdir("/")),
            outcome(lambda: os.execv("/bin/true", ["true"])),
            outcome(lambda: os.kill(outside, 0)),
        ]

    outside = os.getpid()
    assert confined(Confinement(seccomp="none"), body) == ["EACCES", "EACCES", "EACCES", "EPERM"]


def test_wrong_confinements_are_refused() -> None:
    with pytest.raises(ValueError, match="profile"):
        Confinement(seccomp="sometimes")
    with pytest.raises(ValueError, match="root"):
        Confinement(uid=0)


def test_weaknesses_without_privilege_name_what_is_lost() -> None:
    def body() -> list[str]:
        become_nobody()
        return confine.weaknesses()

    found = " ".join(run_forked(body))
    for lost in ("user id", "pid namespace", "private view", "network namespace", "memory control group"):
        assert lost in found


def test_preload_of_a_missing_module_fails_at_once() -> None:
    with pytest.raises(ImportError):
        confine.preload(["corekernel.no_such_module"])


def run_interpreter() -> dict[str, Any]:
    """Exec the interpreter as another user id, and look around the home it lies in."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.execv(sys.executable, [sys.executable, "-c", CODE])
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read().strip()
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "text": text}


def make_home(root: Path) -> Path:
    """A 0700 home with a tool (reached through a link), a secret beside it and a closed directory."""
    home = root / "home"
    tool = home / "tools" / "v1"
    tool.mkdir(parents=True)
    (tool / "script").write_text("usable")
    (home / "tools" / "current").symlink_to("v1")
    (home / "secret").write_text("secret")
    (home / "tools" / "beside").write_text("secret")
    (home / "closed").mkdir(mode=0o700)
    home.chmod(0o700)
    for above in (root, *root.parents[:2]):
        above.chmod(above.stat().st_mode | 0o055)
    return home


@pytest.mark.skipif(not as_root, reason="needs root to mount")
def test_a_private_view_shows_what_is_needed_and_nothing_else(tmp_path: Path) -> None:
    home = make_home(tmp_path)

    def body() -> dict[str, Any]:
        os.chdir(home / "tools")
        namespaces.private_mounts()
        closed = namespaces.private_view([home / "tools" / "current", home / "closed", home, Path("/usr")])
        seen = sorted(str(p.relative_to(home)) for p in home.rglob("*"))
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return {
            "seen": seen,
            "closed": [str(path) for path in closed],
            "script": (home / "tools" / "current" / "script").read_text(),
            "relative": sorted(os.listdir("..")),
            "write": outcome(lambda: os.open(home / "tools/v1/new", os.O_CREAT | os.O_WRONLY)),
            "set aside": outcome(lambda: os.mkdir(home / "new")),
        }

    found = run_forked(body)
    assert found["seen"] == ["tools", "tools/current", "tools/v1", "tools/v1/script"]
    assert found["closed"] == [str(home), str(home / "closed")]
    assert found["script"] == "usable"
    assert found["relative"] == ["tools"], "the old directory was still within reach"
    assert found["write"] == found["set aside"] == "EROFS"
    assert (home / "secret").read_text() == "secret", "the view leaked out of its namespace"


@pytest.mark.skipif(not as_root, reason="needs root to mount")
def test_another_user_id_runs_this_interpreter_behind_the_view() -> None:
    def body() -> dict[str, Any]:
        namespaces.private_mounts()
        os.chdir(Path(namespaces.__file__).parents[1])
        assert namespaces.private_view(namespaces.interpreter_paths()) == []
        return run_interpreter()

    assert run_forked(body) == {"status": 0, "text": '"imported"'}


@pytest.mark.skipif(not as_root, reason="needs root to make a namespace")
def test_killing_the_launcher_kills_a_namespaced_core_and_all_below_it() -> None:
    """The launcher forks init, init forks a child in a session of its own; then the launcher is killed."""
    reader, writer = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        if namespaces.fork_init() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
            os.write(writer, f"{os.getpid()} {namespaces.host_pid()}\n".encode())
        signal.pause()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        born = sorted(tuple(map(int, file.readline().split())) for _ in range(2))
        assert [pid for pid, _ in born] == [1, 2]
        pidfds = [os.pidfd_open(host) for _, host in born]
        os.kill(launcher, signal.SIGKILL)
        os.waitpid(launcher, 0)
        assert file.read() == "", "end of file: nobody is left to hold the pipe"
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 10)[0] == [pidfd]
        os.close(pidfd)


def test_without_privilege_the_caller_adopts_orphans_instead() -> None:
    def body() -> bool:
        become_nobody()
        assert namespaces.fork_init() is None
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.close(reader)
                os.write(writer, str(os.getpid()).encode())
            os._exit(0)
        os.waitpid(middle, 0)
        orphan = int(os.read(reader, 32))
        return os.waitpid(orphan, 0) == (orphan, 0)

    assert run_forked(body) is True


def test_the_doctor_finds_what_is_there_and_says_what_is_lost() -> None:
    found = {check.name: check for check in doctor.checks()}
    assert all(check.ok for check in found.values() if check.required)
    assert all(bool(check.consequence) != check.ok for check in found.values())
    assert found["namespaces (CAP_SYS_ADMIN)"].ok == as_root
    assert found["CPUs"].detail == str(len(os.sched_getaffinity(0)))
    table = doctor.report(list(found.values()))
    assert all(check.name in table and check.consequence in table for check in found.values())


def test_the_doctor_of_an_unprivileged_user_warns_of_each_weakness() -> None:
    def body() -> dict[str, bool]:
        become_nobody()
        return {check.name: check.ok for check in doctor.checks()}

    found = run_forked(body)
    lost = ["own user ids (CAP_SETUID)", "namespaces (CAP_SYS_ADMIN)", "control group: memory"]
    assert [found[name] for name in lost] == [False] * 3
    assert found["pidfd"] and found["seccomp"]
