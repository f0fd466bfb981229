"""The README keeps its word: its listings are the files, its tour runs, and every path it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.systems import system_name

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (
    "services/example/__init__.py",
    "services/example/service.py",
    "services/interfaces/example.toml",
    "tests/test_example.py",
)
LISTING = re.compile(r"^`([\w./]+)`:\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOUR = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", "corekernel/README.md", "services/README.md", "drivers/README.md")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title!r}"
    return found.group(1)


def test_every_listing_is_what_stands_in_its_file() -> None:
    listings = LISTING.findall(README)
    assert {path for path, _ in listings} >= set(EXAMPLE[1:]) | {"compositions/default.toml"}
    for path, shown in listings:
        assert shown in (ROOT / path).read_text(encoding="utf-8"), f"{path} differs from its listing"


def test_the_example_with_interface_entry_and_test_is_under_forty_lines() -> None:
    composition = (ROOT / "compositions/default.toml").read_text(encoding="utf-8")
    entry = composition[composition.index("[service.example]") :].split("\n\n")[0]
    lines = [line for path in EXAMPLE for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]
    assert len(lines + entry.splitlines()) < 40


@pytest.mark.timeout(120)
def test_every_command_of_the_tour_works(tmp_path: Path) -> None:
    name = system_name()
    commands = "\n".join(TOUR.findall(section("A tour in five minutes")))
    assert commands.count("launcher.py") >= 8
    script = commands.replace("/tmp/", f"{tmp_path}/")  # before our own path comes in, which may lie there
    script = script.replace("--name tour", f"--name {name}").replace(".venv/bin/python", sys.executable)
    ran = subprocess.run(
        ["sh", "-eux", "-c", f"trap '{sys.executable} launcher.py down --name {name} 2>/dev/null || :' EXIT\n{script}"],
        cwd=ROOT, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "[core] example died (signal 9)" in ran.stdout
    assert "2cf24dba5fb0a30e" in ran.stdout  # the digest of b"hello"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def test_the_map_of_the_core_names_every_file_and_no_other() -> None:
    table = (ROOT / "corekernel/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./]+\.(?:py|c|h|cdef\.h))`", table))
    core, native = ROOT / "corekernel", ROOT / "corekernel/native"
    files = {p.name for p in core.glob("*.py")} | {p.name for p in native.iterdir() if p.suffix in (".py", ".c", ".h")}
    assert files - {"__init__.py"} == named


def test_every_verb_that_the_readme_names_is_in_the_makefile() -> None:
    made = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)\b(?=`|\s+#|$)", README, re.MULTILINE))
    assert named
    assert named <= made
