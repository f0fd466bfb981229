"""Explore both models: every scenario, then every known mistake, a line each."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from corekernel.native.model import call_model, gate_model
from corekernel.native.model.explorer import Result

LIMIT = 20_000_000

Check = tuple[str, Callable[[], Result]]


def scenarios(large: bool) -> Iterator[Check]:
    """What must hold."""
    for name, call in {**call_model.SCENARIOS, **(call_model.LARGE if large else {})}.items():
        yield f"call: {name}", partial(call_model.check, call, LIMIT)
    for name, gate in {**gate_model.SCENARIOS, **(gate_model.LARGE if large else {})}.items():
        yield f"gate: {name}", partial(gate_model.check, gate, LIMIT)


def mistakes() -> Iterator[Check]:
    """What must be caught."""
    for name in call_model.MISTAKES:
        yield f"call, mistake: {name}", partial(call_model.check_mistake, name)
    for name in gate_model.MISTAKES:
        yield f"gate, mistake: {name}", partial(gate_model.check_mistake, name)


def main() -> int:
    """The exit status says whether all is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m corekernel.native.model", description="Explore both models.")
    parser.add_argument("--large", action="store_true", help="the large bounds too (minutes)")
    parser.add_argument("--traces", action="store_true", help="show the counterexample of each mistake")
    options = parser.parse_args()
    failed = 0
    for name, check in scenarios(options.large):
        started = time.monotonic()
        result = check()
        failed += not result.holds
        print(f"{name:36} {result} ({time.monotonic() - started:.1f} s)", flush=True)
    for name, check in mistakes():
        result = check()
        failed += result.holds
        print(f"{name:44} {result if options.traces else str(result).splitlines()[0]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
