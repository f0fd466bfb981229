"""Devices of a composition, as the services that list them see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import shim
from tests.systems import Boots

AGENTS = """
[device.disk]
kind = "ram"
size_mib = 64
[device.other]
kind = "ram"
size_mib = 1

[service.agent]
module = "tests.agent"
interface = "bench_echo"
class = "CLASS"
devices = ["null", "disk"]

[service.second]
module = "tests.agent"
interface = "bench_echo"
class = "CLASS"
"""


def tell(system: shim.System, service: str, **wanted: Any) -> Any:
    """Have the test service do something; what came of it."""
    return json.loads(bytes(system.client(service).echo(json.dumps(wanted).encode())))


@pytest.mark.parametrize("isolation", ["IC2", "IC0"])
def test_a_service_has_the_devices_it_lists_and_no_other(system: Boots, isolation: str) -> None:
    base = "default" if isolation == "IC2" else "monolith"
    client = system(base, AGENTS.replace("CLASS", isolation)).attach()
    assert tell(client, "agent", do="devices") == {"null": ["memory", 0], "disk": ["ram", 64 << 20]}
    assert tell(client, "second", do="devices") == {}
    last = (64 << 20) - 4
    tell(client, "agent", do="put", device="disk", at=last, text="last")
    assert tell(client, "agent", do="get", device="disk", at=last, size=10) == "last"
    for service, name in (("agent", "null"), ("agent", "other"), ("agent", "nothing"), ("second", "disk")):
        assert tell(client, service, do="get", device=name, at=0, size=1)["error"] == "NoSuchService"


def test_the_memory_of_a_device_outlives_its_service(system: Boots) -> None:
    box = system("default", AGENTS.replace("CLASS", "IC2"))
    client = box.attach()
    tell(client, "agent", do="put", device="disk", at=5 << 20, text="kept")
    box.recovered("agent", box.kill("agent"))
    assert tell(client, "agent", do="get", device="disk", at=5 << 20, size=4) == "kept"


def test_a_device_takes_memory_only_where_it_was_written(system: Boots) -> None:
    box = system("default", AGENTS.replace("CLASS", "IC2"))
    before = box.status()["objects"]["state"]
    assert before["bytes"] >= 65 << 20
    tell(box.attach(), "agent", do="put", device="disk", at=1 << 20, text="x")
    assert box.status()["objects"]["state"]["resident"] - before["resident"] == 4096
