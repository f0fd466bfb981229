'''The shell: a small interactive client of a running system (`launcher.py shell`).

It holds no authority: each command is a few calls of `system.files`, of the process manager, or of what the owner may
ask the core. A service that dies meanwhile is started again by the core, and the stubs issue its calls once more, so
no command notices.

    shell.py       reads lines and runs them              language.py    what a line says: words, `;`, `|`, `>`
    table.py       the table of commands                  globs.py       `*`, `?` and `[...]`
    going.py       cd, echo, help                         places.py      a path here or, with "host:", on the host
    looking.py     ls, cat, stat, find                    listing.py     how files are shown
    changing.py    cp, mv, rm, chmod                      copying.py     trees, with progress
    running.py     ps, kill, df, mount, top               completion.py  Tab and history

A command is one function. To add one, write it into the file where it belongs; `help` and Tab know it then:

    @command("FILE...")
    def size(shell: Shell, options: Options, names: Names) -> None:
        """Print how many bytes files have."""
        for name in names:
            with shell.tries(name):
                shell.say(f"{shell.files.getsize(name):>12} {name}")
'''
