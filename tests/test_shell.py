"""The shell: what its commands do and print, what they say when something is wrong, and how it is at a terminal."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corekernel import boot
from shim.shell.changing import changed_mode
from shim.shell.completion import candidates
from shim.shell.language import Mistake, parse
from shim.shell.listing import columns
from shim.shell.shell import Shell
from shim.shell.table import COMMANDS
from tests.systems import Box, boot_box
from tests.terminals import PATIENCE, Terminal, terminal

LAUNCHER = str(boot.ROOT / "launcher.py")


@dataclass
class User:
    """Somebody at a shell of the system, in a directory of his own."""

    shell: Shell
    output: pytest.CaptureFixture[str]

    def __call__(self, line: str) -> str:
        """What a line prints."""
        self.shell.out = io.BytesIO()
        self.shell.run(line)
        return self.shell.out.getvalue().decode("utf-8", "surrogateescape")

    def fails(self, line: str) -> str:
        """What a line complains of; its status is 1."""
        self(line)
        assert self.shell.status == 1
        return self.output.readouterr().err


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    made = boot_box(tmp_path_factory.mktemp("shell"), "default", "")
    yield made
    made.close()


@pytest.fixture
def user(box: Box, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> User:
    shell = Shell(box.attach(), box.name)
    shell.terminal = False
    home = f"/tmp/{request.node.name}"
    shell.files.mkdir(home)
    shell.files.chdir(home)
    return User(shell, capsys)


# ---- files


def test_what_is_echoed_into_a_file_is_there(user: User) -> None:
    user("echo one > f; echo 'two  words' >> f")
    assert user("cat f") == "one\ntwo  words\n"
    assert user("wc f").split() == ["2", "3", "15", "f"]
    assert user("head -n 1 f; head -c 2 f") == "one\non"


def test_a_tree_of_the_host_comes_in_and_goes_out_again_unchanged(user: User, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below" / "data").write_bytes(os.urandom(300_000))
    (source / "below" / "data").chmod(0o750)
    (source / "link").symlink_to("below/data")
    user(f"cp -r host:{source} in && mkdir copies && cp -r in copies && cp -r copies/in host:{tmp_path}/back")
    assert user.shell.status == 0
    back = tmp_path / "back"
    assert (back / "below" / "data").read_bytes() == (source / "below" / "data").read_bytes()
    assert (back / "below" / "data").stat().st_mode == (source / "below" / "data").stat().st_mode
    assert os.readlink(back / "link") == "below/data"
    digest = hashlib.sha256((source / "link").read_bytes()).hexdigest()
    assert user("sha256sum in/link") == f"{digest}  in/link\n"


def test_files_are_made_moved_linked_and_removed(user: User) -> None:
    user("mkdir -p a/b; touch a/f a/g; mv a/f a/g a/b; ln -s b/f a/l; ln a/b/g a/hard; rmdir a/b")
    assert "Directory not empty" in user.output.readouterr().err
    assert user("find a") == "a\na/b\na/b/f\na/b/g\na/hard\na/l\n"
    assert user("find -type l; find . -name 'h*'") == "./a/l\n./a/hard\n"
    assert user("tree a").splitlines()[1:4] == ["├── b", "│   ├── f", "│   └── g"]
    user("rm -r a")
    assert user("ls") == ""


def test_a_long_listing_shows_mode_owner_size_and_target(user: User) -> None:
    user("echo 12345 > f; chmod 640 f; chown 5:7 f; ln -s f l; chmod u+x,o=r f")
    lines = [line.split() for line in user("ls -l").splitlines()]
    assert [(line[0], line[1], line[4], line[-1]) for line in lines] == [
        ("-rwxr--r--", "1", "6", "f"),
        ("lrwxrwxrwx", "1", "1", "f"),
    ]
    shown = user("stat f")
    assert "Access: (0744/-rwxr--r--)  Uid: (    5/" in shown
    assert user("ls -la").splitlines()[0].endswith(" .")


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        (0o100644, "755", 0o755), (0o100644, "+x", 0o755), (0o100644, "a=rX", 0o444), (0o040644, "a=rX", 0o555),
        (0o100777, "go-w,u=r", 0o455), (0o100644, "u+s,+t", 0o5644), (0o104755, "u=rw", 0o655),
    ],
)  # fmt: skip
def test_changes_of_a_mode_are_those_of_chmod(before: int, change: str, after: int) -> None:
    assert changed_mode(before, change) == after


# ---- the line


def test_globs_are_expanded_in_the_system_unless_they_are_quoted(user: User) -> None:
    user("mkdir d; touch x1 x2 'x *' .hidden d/x3")
    assert user("echo x? */x* [d]") == "x1 x2 d/x3 d\n"
    assert user("echo '*' \\* \"x*\" n*") == "* * x* n*\n"
    assert user("ls x\\ '*'") == "x *\n"
    assert user("echo .h* *") == ".hidden d x * x1 x2\n"
    assert user(f"echo host:{boot.ROOT}/launch*.py") == f"host:{LAUNCHER}\n"


def test_lines_join_commands_as_other_shells_do(user: User) -> None:
    assert user("echo a; echo b # not this") == "a\nb\n"
    assert user("cat nothing && echo no || echo yes") == "yes\n"
    assert user("echo 'a;b|c>d' | cat | wc -c") == "8\n"
    assert user("echo one two>f;cat<f") == ""
    assert "'<' means nothing here" in user.output.readouterr().err


@pytest.mark.parametrize("line", ["; ls", "ls |", "ls > ; ls", "ls && && ls", "ls & ls", "echo 'x", "| ls"])
def test_a_line_that_makes_no_sense_is_a_mistake(line: str) -> None:
    with pytest.raises(Mistake):
        parse(line)


def test_directories_are_gone_to_and_back_from(user: User) -> None:
    home = user("pwd").strip()
    assert user("mkdir d; cd d; pwd; cd ..; pwd; cd -; pwd; cd; pwd") == f"{home}/d\n{home}\n{home}/d\n/\n"
    assert user.fails("cd nowhere") == "cd: nowhere: No such file or directory\n"


# ---- what goes wrong


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("cat /x", "cat: /x: No such file or directory"),
        ("ls /x/y", "ls: /x/y: No such file or directory"),
        ("rm d", "rm: d: Is a directory"),
        ("mv /x y", "mv: /x to y: No such file or directory"),
        ("cp host:/nowhere f", "cp: host:/nowhere: No such file or directory"),
        ("cp f /no/where", "cp: /no/where: No such file or directory"),
        ("cp d e", "cp: d: is a directory; -r copies it"),
        ("cp f f", "cp: f: is f itself"),
        ("cp -r . d", "cp: ./d: cannot be copied into itself"),
        ("rm host:/etc/passwd", "rm: host:/etc/passwd: only cp writes to the host"),
        ("echo x > d", "shell: d: Is a directory"),
        ("kill 4000", "kill: 4000: No such process"),
        ("kill nobody", "kill: nobody: no such service"),
        ("kill core", "kill: core: it is in the core's process, and would take the system with it"),
        ("rm -r /", "rm: /: not by this name"),
    ],
)
def test_errors_are_said_as_linux_tools_say_them(
    box: Box, capfd: pytest.CaptureFixture[str], line: str, complaint: str
) -> None:
    shell = Shell(box.attach(), box.name)
    shell.out = io.BytesIO()
    shell.files.makedirs("/tmp/wrong/d", exist_ok=True)
    shell.run("cd /tmp/wrong; touch f")
    shell.run(line)
    assert capfd.readouterr().err == complaint + "\n"
    assert shell.status == 1


def test_after_an_error_a_command_goes_on_with_the_next_file(user: User) -> None:
    user("echo a > a; echo b > b")
    assert user("cat a nothing b") == "a\nb\n"
    assert user.shell.status == 1
    assert user("cat -x") == ""
    assert user.shell.status == 2
    assert "usage: cat [FILE]..." in user.output.readouterr().err
    assert (user("frobnicate"), user.shell.status) == ("", 127)


# ---- what runs


def test_ps_and_df_show_services_programs_and_space(user: User) -> None:
    shown = user("ps")
    assert all(f" {name} (IC2)" in shown for name in ("memmgr", "procmgr", "fs"))
    assert any(line.split()[:1] == [str(user.shell.system.pid)] for line in shown.splitlines())
    assert {"/", "/proc"} <= {line.split()[-1] for line in user("df").splitlines()}
    assert [line.split()[-1] for line in user("df . /proc").splitlines()][1:] == ["/", "/proc"]
    assert "proc on /proc type proc" in user("mount")


def test_a_mount_comes_and_goes(user: User) -> None:
    user("mkdir p; mount proc p")
    assert "self" in user("ls p").split()
    user("umount p")
    assert user("ls p") == ""


def test_top_shows_what_services_did_in_one_second(user: User) -> None:
    assert user("top").startswith("service ")


def test_the_death_of_a_service_is_not_noticed(user: User, box: Box) -> None:
    generation = box.generation("fs")
    killed = user("echo kept > f; cd .; kill fs; cat f; pwd; ls")
    assert killed.startswith("kill -9 ")
    assert killed.splitlines()[1:] == ["kept", user("pwd").strip(), "f"]
    assert user.shell.status == 0
    assert box.generation("fs") > generation


def test_a_program_is_killed_by_its_number_if_it_is_the_system_s(user: User, box: Box) -> None:
    request = {"do": "run", "argv": ["sleep", "60"], "env": dict(os.environ), "cwd": "/"}
    with open(os.devnull, "r+b") as null:
        number = user.shell.system.attachment.ask(request, [null.fileno()] * 3)[0]["number"]
    assert str(number) in user("ps")
    user(f"kill -KILL {number}")
    assert user.shell.status == 0
    assert box.ask("result", number=number)["status"] == -signal.SIGKILL
    if os.getuid() == 0:
        assert user.fails(f"kill {user.shell.system.pid}").endswith(": Operation not permitted\n")


def test_every_command_has_a_line_of_help(user: User) -> None:
    listed = user("help").splitlines()
    assert {line.split()[0] for line in listed[: len(COMMANDS)]} == set(COMMANDS)
    assert all(len(line) < 80 and len(line.split()) > 1 for line in listed[: len(COMMANDS)])
    assert user("help ls").startswith("ls [-ald1] [PATH]...\nList directories\n-a: ")


# ---- without a terminal


def launcher(*words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, LAUNCHER, "shell", *words], input=typed, capture_output=True, text=True, timeout=PATIENCE
    )


def test_commands_come_from_a_pipe_and_the_last_gives_the_status(box: Box) -> None:
    ran = launcher("--name", box.name, typed="echo hi > /tmp/piped\ncat /nothing\n\ncat /tmp/piped\n")
    assert (ran.returncode, ran.stdout) == (0, "hi\n")
    assert ran.stderr == "cat: /nothing: No such file or directory\n"
    ended = launcher("--name", box.name, typed="cat /nothing\nexit\necho no")
    assert (ended.returncode, ended.stdout) == (1, "")


def test_one_line_runs_on_a_system_of_its_own_that_ends_with_it() -> None:
    ran = launcher("-c", "default", "--command", "mkdir /tmp/d && ls /tmp")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "d\n", "")


# ---- at a terminal


def test_the_word_at_the_cursor_is_completed(user: User, tmp_path: Path) -> None:
    (tmp_path / "of the host").touch()
    user("mkdir 'a dir' alone; touch 'a dir/f#1' .hidden")
    shell = user.shell
    assert candidates(shell, "ec") == ["echo "]
    assert candidates(shell, "ls; pw") == ["pwd "]
    assert candidates(shell, "ls a") == ["a\\ dir/", "alone/"]
    assert candidates(shell, "cat a\\ dir/") == ["a\\ dir/f\\#1 "]
    assert candidates(shell, "cat .") == [".hidden "]
    assert candidates(shell, f"cp host:{tmp_path}/of") == [f"host:{tmp_path}/of\\ the\\ host "]
    assert candidates(shell, "ls 'a") == candidates(shell, "ls nowhere/") == []


def test_names_stand_in_columns_that_fit() -> None:
    names = [f"name{number}" for number in range(10)]
    shown = columns(names, 30)
    assert shown[0].split() == ["name0", "name3", "name6", "name9"]
    assert columns(["x" * 100, "y\x1b[2J"], 30) == ["x" * 100, "y\ufffd[2J"]


def at_prompt(shown: Terminal, name: str) -> str:
    return shown.read_until(f"{name}:/")


def test_a_terminal_has_completion_history_progress_and_ctrl_c(box: Box, tmp_path: Path) -> None:
    argv = [sys.executable, LAUNCHER, "shell", "--name", box.name]
    with terminal(argv, {"XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"}) as shown:
        at_prompt(shown, box.name)
        shown.type("mkdir /tmp/ours; touch '/tmp/ours/one file'\n")
        at_prompt(shown, box.name)
        shown.type("ech\tdo''ne; ls -1 /tmp/ou\tone\t\n")
        assert "done" in shown.read_until("\n/tmp/ours/one file")
        at_prompt(shown, box.name)
        shown.type("\x10; echo ag''ain\n")  # the last line once more, and something new
        shown.read_until("again")
        at_prompt(shown, box.name)
        shown.type(f"cp -r host:{sysconfig.get_paths()['stdlib']} /tmp/library\n")
        shown.read_until("files/s")
        shown.type("\x03")
        at_prompt(shown, box.name)
        shown.type("rm -r /tmp/library; echo st''ill here\n")
        shown.read_until("still here")
        at_prompt(shown, box.name)
        shown.type("\x04")
        result = os.waitid(os.P_PID, shown.pid, os.WEXITED | os.WNOWAIT)
        assert result is not None and result.si_status == 0
    assert "mkdir /tmp/ours" in (tmp_path / "hmk" / "history").read_text()
