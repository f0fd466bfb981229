"""The demonstration's programs: one copies real files into the system, another reads them back and compares.

Each runs as an ordinary client under a user id of its own, named by the first argument, and says how far it is as one
JSON object per line on standard output: first `{"files": N, "bytes": N, "source": path, "user": id}` (the work), then
`{"done": N, "sent": bytes, "seconds": S}` now and then, at last the same with what came of it:

    copy LIBRARY    `digests`: name -> SHA-256 of what was read from the source
    check           reads that object from standard input; `wrong`, `missing`, `unexpected`: names
    costs           only `{"calls": [[what, p50 ns, p99 ns], ...], "files": the same}`

They know nothing of the services that die meanwhile. Every file operation carries a number by which the file system
knows a request that is made again, so each write happens once.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import shim
from bench import demo_costs
from shim.files import Files
from shim.shell.places import Host, Place

TARGET: Final = "/tmp/python"
ZEROS: Final = "/dev/zero"
LARGEST: Final = 4 << 20  # what is larger is no source, but an archive of compiled ones
MOST_BYTES: Final = 256 << 20  # the device holds 512 MiB
LEFT_OUT: Final = frozenset(("site-packages", "dist-packages", "__pycache__"))  # added by others, or made of the rest
REPORT_SECONDS: Final = 0.05
ASK_EVERY: Final = 64


class Found(NamedTuple):
    """A regular file below some directory."""

    name: str
    size: int


def say(**facts: object) -> None:
    """One line to the demonstration."""
    print(json.dumps(facts), flush=True)


def library(files: Files, directory: Path) -> Place:
    """Where the library is read: in the system, if that has the host's directories mounted, else here on the host."""
    mounted = f"/host{directory}"
    return Place(files, mounted, mounted) if files.isdir(mounted) else Place(Host(), str(directory), str(directory))


def regular_files(top: Place, below: str = "") -> Iterator[Found]:
    """Every regular file below a directory by its path from there, sorted."""
    here = top.below(below) if below else top
    for name in sorted(here.side.listdir(here.path)):
        path = f"{below}/{name}" if below else name
        found = here.side.lstat(top.below(path).path)
        if stat.S_ISDIR(found.st_mode) and name not in LEFT_OUT:
            yield from regular_files(top, path)
        elif stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST:
            yield Found(path, found.st_size)


def within(files: Iterator[Found], most: int) -> Iterator[Found]:
    """The first files that together have no more than so many bytes."""
    for found in files:
        most -= found.size
        if most < 0:
            return
        yield found


class Meter:
    """Says how far a program is, and now and then asks the process manager and a device: they die, too.

    Attributes:
        done, sent: files and bytes so far.
        misled: whether one of them has given a wrong answer.
    """

    def __init__(self, system: shim.System) -> None:
        self.done = self.sent = 0
        self.misled = False
        self._system = system
        self._zeros = system.files.open(ZEROS, "rb", buffering=0) if system.files.exists(ZEROS) else None
        self._began = self._told = time.monotonic()

    def count(self, size: int) -> None:
        """One more file."""
        self.done += 1
        self.sent += size
        if self.done % ASK_EVERY == 0:
            self.misled |= self._system.procmgr.getpid() != self._system.pid
            self.misled |= self._zeros is not None and self._zeros.read(64) != bytes(64)
        now = time.monotonic()
        if now - self._told > REPORT_SECONDS:
            self._told = now
            self.say()

    def say(self, **more: object) -> None:
        """How far it is, and more."""
        say(done=self.done, sent=self.sent, seconds=time.monotonic() - self._began, **more)


def copy(system: shim.System, directory: Path) -> bool:
    """Copy the library into the system; whether all went well."""
    files, source = system.files, library(system.files, directory)
    wanted = list(within(regular_files(source), MOST_BYTES))
    say(files=len(wanted), bytes=sum(found.size for found in wanted), source=source.shown, user=os.getuid())
    meter, digests, made = Meter(system), {}, set[str]()
    for name, _ in wanted:
        data, target = source.side.read_bytes(f"{source.path}/{name}"), f"{TARGET}/{name}"
        parent = os.path.dirname(target)
        if parent not in made:
            files.makedirs(parent, exist_ok=True)
            made.add(parent)
        files.write_bytes(target, data)
        digests[name] = hashlib.sha256(data).hexdigest()
        meter.count(len(data))
    meter.say(digests=digests)
    return not meter.misled


def check(system: shim.System) -> bool:
    """Read everything back; whether it is what it was, and nothing else is there."""
    digests: dict[str, str] = json.load(sys.stdin)
    top = Place(system.files, TARGET, TARGET)
    present = list(regular_files(top))
    say(files=len(present), bytes=sum(found.size for found in present), source=TARGET, user=os.getuid())
    meter, wrong = Meter(system), []
    for name, _ in present:
        data = system.files.read_bytes(f"{TARGET}/{name}")
        if name in digests and hashlib.sha256(data).hexdigest() != digests[name]:
            wrong.append(name)
        meter.count(len(data))
    names = {found.name for found in present}
    missing, unexpected = sorted(digests.keys() - names), sorted(names - digests.keys())
    meter.say(wrong=wrong, missing=missing, unexpected=unexpected)
    return not (wrong or missing or unexpected or meter.misled)


def main() -> int:
    """Run the program named; exit status 1 when something was not as it should be."""
    with shim.attach() as system:
        if sys.argv[1] == "copy":
            return int(not copy(system, Path(sys.argv[2])))
        if sys.argv[1] == "check":
            return int(not check(system))
        say(calls=demo_costs.calls(system), files=demo_costs.file_operations(demo_costs.of(system.files), "/tmp"))
        return 0


if __name__ == "__main__":
    sys.exit(main())
