"""Prints what pip must install: build requirements, dependencies, and those of the extras named as arguments.

pyproject.toml stays the one place that names them. The checkout itself is not installed: it runs where it lies.
"""

import sys
import tomllib
from pathlib import Path

MANIFEST = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = MANIFEST["project"]


def extra(name: str) -> list[str]:
    """Requirements of an extra; another extra of ours that it names is taken apart too."""
    found: list[str] = []
    for item in PROJECT["optional-dependencies"][name]:
        inner = item.removeprefix(PROJECT["name"] + "[").removesuffix("]")
        found += [item] if inner == item else extra(inner)
    return found


wanted = [*MANIFEST["build-system"]["requires"], *PROJECT["dependencies"]]
print("\n".join(wanted + [item for name in sys.argv[1:] for item in extra(name)]))
