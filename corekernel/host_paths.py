"""Host directories that a service may read: what a composition's `host_paths` means on this host.

The composition names directories; `PYTHON` stands for those of the Python that runs hmk. Which of them are there is
looked up anew at each start of the service, because the host may have changed. `confine` enforces it.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable, Iterable

PYTHON = "@python"


def expand(listed: Iterable[str]) -> tuple[str, ...]:
    """Absolute directories, each once, for what a composition lists."""
    paths = (path for word in listed for path in (_python() if word == PYTHON else (word,)))
    return tuple(dict.fromkeys(paths))


def present(listed: Iterable[str], say: Callable[[str], None]) -> tuple[str, ...]:
    """The directories for what a composition lists that this host has; `say` hears of each that it has not."""
    paths = expand(listed)
    there = tuple(path for path in paths if os.path.isdir(path))
    for path in paths:
        if path not in there:
            say(f"{path} is no directory of this host, so it is left out")
    return there


def _python() -> tuple[str, ...]:
    """The standard library: the platform-independent part, and the other one."""
    return tuple(os.path.normpath(sysconfig.get_path(part)) for part in ("stdlib", "platstdlib"))
