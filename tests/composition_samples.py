"""Compositions that tests load: one with every key, and every kind of mistake with the line it is told at."""

from __future__ import annotations

from pathlib import Path

import pytest

from corekernel.composition import Composition, CompositionError, load

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
host_paths = ["/", "/usr/x.y", "@python"]

[service.b]
after = ["a"]
class = "IC2"
group = "pair"
placement = "cpu 0"
language = "c"
priority = "high"
memory_mib = 64
handler_limit_ms = 0
devices = ["disk0", "console", "net:1"]
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
devices = ["null"]

[device.disk0]
kind = "ram"
size_mib = 8

[device."net:1"]
kind = "ram"

[device.console]
kind = "serial"

[device.null]
kind = "memory"
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


# Text of a file, the line that is to blame, and what the refusal must say.
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
    ("[device.disk0]\nkind = 'ram'\n[service.a]\ndevices = ['disk0', 'disk0']\n", 4, 'devices names "disk0" twice'),
    ("[service.a]\ndevices = ['/dev/sda']\n", 2, "not the name of a device"),
    ("[service.a.options]\nx = 1.5\n", 2, "x must be a string, a 64-bit integer or a boolean"),
    ("[service.a.options]\nx = 99999999999999999999999999999\n", 2, "not 99999999999999999999..."),
    ("[service.a.options]\n\n'X Y' = 1\n", 3, 'option "X Y" is not a name'),
    # devices
    ("[service.a]\n[device.x]\n", 2, 'device x has no kind; give it one of "memory", "serial", "ram"'),
    ("[service.a]\n[device.x]\nkind = 'disk'\n", 3, 'kind must be one of "memory", "serial", "ram", not "disk"'),
    ("[service.a]\n[device.x]\nkind = 3\n", 3, "kind must be one of"),
    ("[service.a]\n[device]\nx = 1\n", 3, "x must be a table"),
    ("device = 1\n[service.a]\n", 1, "device must be a table"),
    ("[service.a]\n[device.X]\nkind = 'ram'\n", 2, 'device "X" is not a name'),
    (
        f"[service.a]\ndevices = {[f'd{n}' for n in range(9)]}\n"
        + "".join(f"[device.d{number}]\nkind = 'ram'\n" for number in range(9)),
        2,
        "devices of a names 9 devices of memory; keep to 8",
    ),
    ("[service.a]\n[device.nul]\nkind = 'memory'\n", 3, 'no device nul of kind "memory"; did you mean "null"?'),
    ("[service.a]\n[device.serial0]\nkind = 'serial'\n", 3, 'no device serial0 of kind "serial"; known are: console'),
    ("[service.a]\n[device.zero]\nkind = 'ram'\n", 3, 'device zero is of kind "memory", not "ram"'),
    ("[service.a]\n[device.console]\nkind = 'memory'\n", 3, 'no device console of kind "memory"'),
    ("[service.a]\n[device.x]\nkind = 'ram'\nsize_mib = 0\n", 4, "from 1 to 65536"),
    ("[service.a]\n[device.x]\nkind = 'ram'\nsize_mib = 65537\n", 4, "from 1 to 65536"),
    ("[service.a]\n[device.x]\nkind = 'ram'\nsize_mib = '8'\n", 4, "size_mib must be an integer"),
    ("[service.a]\n[device.null]\nkind = 'memory'\nsize_mib = 1\n", 4, 'unknown key "size_mib"'),
    ("[service.a]\ndevices = ['nul']\n[device.null]\nkind = 'memory'\n", 2, 'no device here; did you mean "null"?'),
    ("[service.a]\ndevices = ['x']\n", 2, "names x, which is no device here; add a [device.x] table"),
    (
        "[device.x]\nkind = 'ram'\n[service.a]\ndevices = ['x']\n[service.b]\ndevices = ['x']\n",
        6,
        "devices of b names x, which is a's; it belongs to one service",
    ),
    (
        "[service.a]\n" + "".join(f"[device.d{number}]\nkind = 'ram'\n" for number in range(65)),
        130,
        "65 devices are too many; keep to 64",
    ),
    ("[service.a]\n[device.b]\nremove = true\n", 3, 'device "b" is not inherited'),
    ("[service.a]\n[device.b]\nremove = false\n", 3, "remove must be true and the only key"),
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
    # host directories
    ("[service.a]\nhost_paths = '/usr'\n", 2, "host_paths must be an array of strings"),
    ("[service.a]\nhost_paths = ['/usr', '/usr']\n", 2, 'host_paths names "/usr" twice'),
    *(
        (f"[service.a]\n\nhost_paths = ['{path}']\n", 3, "not an absolute path in its shortest form")
        for path in ("usr", "", "/usr/", "//", "/usr//lib", "/usr/.", "/./usr", "/usr/../etc", "/..", "@Python", "~")
    ),
    ('[service.a]\nhost_paths = ["/a\\u0000b"]\n', 2, "not an absolute path"),
    ("[service.a]\nclass = 'IC0'\nhost_paths = ['/usr']\n", 3, "nothing would enforce them"),
    ("[service.a]\ngroup = 'g'\nhost_paths = ['/usr']\n", 3, "which the whole group would get"),
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
