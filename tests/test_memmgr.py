"""The memory manager: limits that hold, figures that are true, and both across its own death."""

from __future__ import annotations

import pytest

import shim
from corekernel.errors import ServiceError, TooBig
from services.memmgr.policy import PoolState, plan
from tests.processes import Tell, until
from tests.systems import Boots, Box
from tests.test_procmgr import refusal, script

UNLIMITED = 2**64 - 1
MIB = 1 << 20


def test_a_limit_is_what_was_set_and_is_kept(echoes: Box) -> None:
    system = echoes.attach()
    memmgr = system.memmgr
    assert memmgr.limit_get(system.pid) == 256 * MIB
    memmgr.limit_set(system.pid, 3 * MIB)
    assert memmgr.limit_get(system.pid) == 3 * MIB
    assert system.client("echo").echo(bytes(MIB)) == bytes(MIB)
    assert memmgr.usage(system.pid).buffers == MIB
    with pytest.raises(TooBig, match="limit"):
        system.client("cecho").echo(bytes(4 * MIB))
    assert system.client("cecho").echo(bytes(2 * MIB)) == bytes(2 * MIB)
    assert memmgr.usage(system.pid).limit == 3 * MIB


def test_a_restart_keeps_limits(echoes: Box) -> None:
    systems = [echoes.attach() for _ in range(3)]
    for number, system in enumerate(systems, 1):
        system.memmgr.limit_set(system.pid, number * MIB)
    for _ in range(2):
        echoes.recovered("memmgr", echoes.kill("memmgr"))
    for number, system in enumerate(systems, 1):
        assert system.memmgr.limit_get(system.pid) == number * MIB
    with pytest.raises(TooBig):
        systems[0].client("echo").echo(bytes(2 * MIB))


def test_the_limit_of_a_client_that_has_gone_goes_with_it(echoes: Box) -> None:
    def body(system: shim.System, tell: Tell) -> None:
        system.memmgr.limit_set(system.pid, MIB)

    for _ in range(3):
        echoes.client(body).result()
    until(lambda: echoes.status()["clients"] == [], "they are gone")
    memmgr = echoes.attach().memmgr
    for number in range(100, 110):
        assert memmgr.limit_get(number) == 256 * MIB


def test_limits_of_others_are_for_root_and_raising_too(shared: Box) -> None:
    system = shared.attach()
    text = """
from corekernel.errors import ServiceError
s.memmgr.limit_set(s.pid, 128 << 20)
refused = []
for attempt in (lambda: s.memmgr.limit_set(s.pid, 129 << 20), lambda: s.memmgr.limit_set(%d, 1 << 20),
                lambda: s.memmgr.limit_get(%d), lambda: s.memmgr.usage(%d)):
    try: attempt()
    except ServiceError as error: refused.append(error.errno)
sys.exit(10 + len(refused) if set(refused) == {1} else 1)
"""
    assert system.procmgr.wait(script(system, text % ((system.pid,) * 3))) == 14


def test_stacks_are_on_the_account_of_whoever_binds_them(shared: Box) -> None:
    system = shared.attach()
    before = system.memmgr.usage(system.pid).stacks
    assert before >= 2 * 48 << 10
    system.client("echo").null()
    assert system.memmgr.usage(system.pid).stacks == before + (48 << 10)
    system.client("cecho").null()
    assert system.memmgr.usage(system.pid).stacks == before + (48 << 10) + (32 << 10)


def test_only_the_core_asks_for_a_plan(shared: Box) -> None:
    assert refusal(shared.attach().memmgr.reclaim, 5, 1) == "EPERM"


def test_figures_of_a_client_that_does_not_exist_are_refused(shared: Box) -> None:
    memmgr = shared.attach().memmgr
    assert refusal(memmgr.usage, 1 << 40) == "ESRCH"
    assert refusal(memmgr.limit_set, 1 << 40, 1) == "ESRCH"


def test_info_shows_every_pool(shared: Box) -> None:
    import json

    names = {s["name"] for p in shared.status()["processes"] for s in p["services"]}
    assert set(json.loads(shared.attach().memmgr.info())) == names


def test_without_a_memory_manager_stacks_are_still_taken_back(system: Boots) -> None:
    small = "pool = { initial = 2, low = 1, high = 2, limit = 4, reserve = 1 }\n"
    box = system(text=f"[service.memmgr]\nrestart = {{ max_per_minute = 0 }}\n[service.echo]\n{small}")
    box.kill("memmgr")
    until(lambda: box.process("memmgr")["state"] == "failed", "it is down")
    for _ in range(8):
        assert box.attach().client("echo").echo(b"x") == b"x"
    assert box.ask("status")["reclaims"] > 0


def test_a_plan_takes_parked_stacks_of_others_before_bound_ones() -> None:
    pools = [PoolState("needy", 1, bound=5, free=0), PoolState("rich", 2, bound=3, free=4)]
    assert dict(plan(pools, 1, 3)) == {"rich": 3}
    assert dict(plan(pools, 1, 7)) == {"rich": 4, "needy": 3}
    assert dict(plan(pools, 1, 100)) == {"rich": 7, "needy": 5}


def test_refusals_are_errors_a_program_would_see(shared: Box) -> None:
    with pytest.raises(ServiceError) as caught:
        shared.attach().memmgr.usage(1 << 40)
    assert isinstance(caught.value, OSError)
    assert str(caught.value).startswith("ESRCH")
