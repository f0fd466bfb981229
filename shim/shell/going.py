"""Commands of the shell itself: cd, pwd, echo, help, exit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corekernel.cli.text import table
from shim.shell.table import COMMANDS, Leave, Names, Options, Usage, command

if TYPE_CHECKING:
    from shim.shell.shell import Shell


@command("[DIRECTORY]")
def cd(shell: Shell, options: Options, names: Names) -> None:
    """Go to a directory.

    Without one to /, and with - back to the one before.
    """
    target = names[0] if names else "/"
    here = shell.files.getcwd()
    shell.files.chdir(shell.before if target == "-" else shell.here(target))
    shell.before = here


@command("")
def pwd(shell: Shell, options: Options, names: Names) -> None:
    """Print the current directory."""
    shell.say(shell.files.getcwd())


@command("[-n] [WORD]...", None)
def echo(shell: Shell, options: Options, names: Names) -> None:
    """Print words.

    -n: without a line's end. `> FILE` and `>> FILE` put into a file what this or any command prints.
    """
    bare = names[:1] == ["-n"]
    text = " ".join(names[1:]) if bare else " ".join(names) + "\n"
    shell.write(text.encode("utf-8", "surrogateescape"))


@command("[COMMAND]")
def help_(shell: Shell, options: Options, names: Names) -> None:
    """List the commands, or tell of one."""
    names = names[:1]
    if names and names[0] not in COMMANDS:
        raise Usage(f"there is no command {names[0]}")
    for name in names:
        entry = COMMANDS[name]
        shell.say("\n".join(filter(None, (f"{name} {entry.usage}", entry.about, entry.more))))
    if not names:
        shell.say("\n".join(table([(name, COMMANDS[name].about) for name in sorted(COMMANDS)])))
        shell.say("\nA path with host: before it is the host's; only cp writes there.")
        shell.say("Quotes, * ? [...] and ; && || | > >> mean what they mean elsewhere.")


@command("[STATUS]")
def exit_(shell: Shell, options: Options, names: Names) -> None:
    """Leave the shell, as Ctrl-D does.

    Its status is that of the last command, unless one is given.
    """
    if names and not names[0].isdecimal():
        raise Usage(f"{names[0]} is not a status")
    raise Leave(int(names[0]) & 255 if names else shell.last)
