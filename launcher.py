#!/usr/bin/env python3
"""The command line of hmk: read, validate, hand over.

Every command is a subparser whose defaults name the function that serves it; those live in `corekernel.cli`,
`corekernel.doctor` and `bench`, and are imported only when asked for. What can go wrong ends in one place
(`main`): a wrong composition prints one FILE:LINE line per mistake and exits 2, a system that does not come up, is
not there or refuses us exits 1. `run` exits with its program's status.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DEFAULT = "default"
COMPOSITION_HELP = "a name in compositions/, or a file"

EPILOG = """\
a first tour:
  launcher.py up                          boot the default composition as the system "default"; Ctrl-C ends it
  launcher.py status                      (from another terminal) its processes, clients and objects
  launcher.py run --name default -- python my_program.py
                                          a program on it; inside, `import shim; system = shim.attach()`
  launcher.py run -- python my_program.py the same on a system of its own, which ends with the program
  launcher.py shell                       its files: ls, cat, cp, mount, kill ...; `help` lists the commands
  launcher.py top                         calls per second and latencies, per service and operation
  launcher.py down                        end it

more:
  launcher.py up -c isolated --name lab -d          boot another composition, in the background, as "lab"
  launcher.py up -c ./mine.toml                     boot a composition of your own (compositions/README.md)
  launcher.py shell --command 'cp -r host:/etc / && tree -L 1 /etc'
                                                    commands without a terminal, also from a pipe
  launcher.py compositions default                  what a composition says, as a table
  launcher.py trace --seconds 2 -o trace.json       single calls, for https://ui.perfetto.dev
  launcher.py bench ipc --quick                     latency and throughput beside eight other ways to call
  launcher.py bench fs --quick                      files, beside the file systems of the host
  launcher.py doctor                                what this host offers, and what is weaker without it

exit status: 0 done; 1 the system is not there, did not come up or refused; 2 a mistake in the command line or in a
composition; `run`: that of the program, 128 plus the signal that killed it, 127 no such program, 126 not startable;
`shell`: that of its last command.
"""


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name: letters, digits, '_', '.' and '-', at most 64")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 3600")
    return value


# ---- commands


def _up(options: argparse.Namespace) -> int:
    from corekernel.cli import systems

    return systems.up(options.name, options.composition, options.detach)


def _down(options: argparse.Namespace) -> int:
    from corekernel.cli import systems

    return systems.down(options.name)


def _logs(options: argparse.Namespace) -> int:
    from corekernel.cli import systems

    return systems.logs(options.name, options.follow)


def _status(options: argparse.Namespace) -> int:
    import json

    import shim
    from corekernel.cli import status

    with shim.attach(options.name) as system:
        found = system.ask("status")
    print(json.dumps(found, indent=2) if options.json else status.full(found))
    return 0


def _top(options: argparse.Namespace) -> int:
    from corekernel.cli import top

    return top.top(options.name, options.once)


def _trace(options: argparse.Namespace) -> int:
    from corekernel.cli import trace

    return trace.trace(options.name, options.seconds, options.output)


def _run(options: argparse.Namespace) -> int:
    from corekernel.cli import run

    return run.run(options.command, options.composition, options.name)


def _shell(options: argparse.Namespace) -> int:
    from corekernel.cli import shell

    return shell.shell(options.name, options.composition, options.line)


def _compositions(options: argparse.Namespace) -> int:
    from corekernel import composition
    from corekernel.cli import text

    if options.composition is not None:
        print(composition.explain(composition.load(options.composition)))
        return 0
    rows = [(name, text.label(about)) for name, _, about in composition.available()]
    print("\n".join(text.table(rows)))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from corekernel import doctor

    found = doctor.checks()
    print(doctor.report(found))
    return int(any(check.required and not check.ok for check in found))


def _bench(options: argparse.Namespace) -> int:
    from bench import fs, ipc

    passed = ["--quick"] if options.quick else []
    for name in ("only", "read", "json", "plots", "markdown"):
        given = getattr(options, name)
        passed += [f"--{name}", given] if given else []
    serve = {"ipc": ipc.main, "fs": fs.main}[options.what]
    return serve(passed)


def _demo(options: argparse.Namespace) -> int:
    from bench import demo

    return demo.main()


# ---- the parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launcher.py",
        description="Boot a microkernel operating system from a composition, run programs on it, look inside.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", type=_name, default=DEFAULT, help=f'the system (default: "{DEFAULT}")')
    _add_system_commands(commands, named)
    _add_looking_commands(commands, named)
    _add_run(commands)
    _add_shell(commands)
    _add_other_commands(commands)
    return parser


def _add_system_commands(commands: Commands, named: argparse.ArgumentParser) -> None:
    up = commands.add_parser("up", parents=[named], help="boot a composition and stay, showing its console")
    up.add_argument("-c", "--composition", default="default", metavar="COMPOSITION", help=COMPOSITION_HELP)
    up.add_argument("-d", "--detach", action="store_true", help="return once it is up; `down` ends it")
    up.set_defaults(serve=_up)
    down = commands.add_parser("down", parents=[named], help="end a running system")
    down.set_defaults(serve=_down)
    logs = commands.add_parser("logs", parents=[named], help="print a system's console")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the system ends")
    logs.set_defaults(serve=_logs)


def _add_looking_commands(commands: Commands, named: argparse.ArgumentParser) -> None:
    status = commands.add_parser("status", parents=[named], help="processes, stacks, clients, objects")
    status.add_argument("--json", action="store_true", help="as data")
    status.set_defaults(serve=_status)
    top = commands.add_parser("top", parents=[named], help="calls and latencies, each second")
    top.add_argument("--once", action="store_true", help="look for one second and leave")
    top.set_defaults(serve=_top)
    trace = commands.add_parser("trace", parents=[named], help="record single calls, for Perfetto")
    trace.add_argument("--seconds", type=_seconds, default=1.0, metavar="S", help="how long (default: 1)")
    trace.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the trace, JSON")
    trace.set_defaults(serve=_trace)


def _add_run(commands: Commands) -> None:
    run = commands.add_parser(
        "run",
        help="run a program as a client, and exit with its status",
        usage="launcher.py run [-c COMPOSITION | --name NAME] -- CMD ...",
        description="Run a program as a client under its own user id. `python` means the interpreter that runs "
        "this; the program can `import shim` and is attached already. Without --name a system is booted for it.",
    )
    where = run.add_mutually_exclusive_group()
    where.add_argument("-c", "--composition", metavar="COMPOSITION", help=COMPOSITION_HELP)
    where.add_argument("--name", type=_name, help="run it on this system, which is up already")
    run.add_argument("command", nargs="+", metavar="CMD", help="the program and its arguments, after --")
    run.set_defaults(serve=_run)


def _add_shell(commands: Commands) -> None:
    shell = commands.add_parser(
        "shell",
        help="a shell on the files of a system",
        description="A small shell: files, processes, mounts. Without a terminal it reads its commands from a pipe. "
        f'Without --name it is on the system "{DEFAULT}" or, if that is not up, on one booted for it.',
    )
    where = shell.add_mutually_exclusive_group()
    where.add_argument("-c", "--composition", metavar="COMPOSITION", help=f"boot it for the shell: {COMPOSITION_HELP}")
    where.add_argument("--name", type=_name, help="the system, which is up already")
    shell.add_argument("--command", dest="line", metavar="LINE", help="run this line and leave with its status")
    shell.set_defaults(serve=_shell)


def _add_other_commands(commands: Commands) -> None:
    compositions = commands.add_parser("compositions", help="list the compositions, or explain one")
    compositions.add_argument("composition", nargs="?", metavar="NAME", help=COMPOSITION_HELP)
    compositions.set_defaults(serve=_compositions)
    doctor = commands.add_parser("doctor", help="what this host offers, and what is weaker without it")
    doctor.set_defaults(serve=_doctor)
    bench = commands.add_parser("bench", help="measure")
    what = "ipc: the call, beside other ways to call; fs: files, beside the host's"
    bench.add_argument("what", choices=["ipc", "fs"], help=what)
    bench.add_argument("--quick", action="store_true", help="under half a minute, and less exact")
    bench.add_argument("--only", metavar="CASE,...", help="some cases")
    bench.add_argument("--read", metavar="FILE", help="report on stored rows, measure nothing")
    bench.add_argument("--json", metavar="FILE", help="write one row per line")
    bench.add_argument("--plots", metavar="DIR", help="write plots")
    bench.add_argument("--markdown", metavar="FILE", help="write a section of docs/benchmarks.md")
    bench.set_defaults(serve=_bench)
    demo = commands.add_parser("demo", help="the demonstration: what `make run` runs")
    demo.set_defaults(serve=_demo)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        from corekernel.boot import BootError
        from corekernel.cli.systems import on_termination
        from corekernel.composition import CompositionError
        from corekernel.errors import HmkError
    except ModuleNotFoundError as error:
        print(f"hmk is not set up here ({error}): run `make build`, then use .venv/bin/python", file=sys.stderr)
        return 1
    on_termination()
    try:
        return int(options.serve(options))
    except CompositionError as error:
        print(error, file=sys.stderr)
        return 2
    except (BootError, HmkError) as error:
        print(f"launcher.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        return 128 + getattr(stop, "number", 2)
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
