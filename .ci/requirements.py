"""Prints what pip must install: build requirements, dependencies, and those of the extras named as arguments.

pyproject.toml stays the one place that names them. The checkout itself is not installed: it runs where it lies.
"""

import sys
import tomllib
from pathlib import Path

manifest = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
project = manifest["project"]
wanted = [*manifest["build-system"]["requires"], *project["dependencies"]]
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
print("\n".join(wanted))
