"""What can be seen of a running system: operations, wait paths, the trace ring; nothing is recorded by default."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from corekernel import dispatcher
from corekernel.shared import HISTOGRAM
from services.stubs.bench_echo import BenchEchoClient
from tests.processes import Facts, until
from tests.systems import Boots, Box

ECHO, WORK, FAIL = 2, 4, 8
RING = 8192
FAULT = -9


@pytest.fixture
def box(system: Boots) -> Box:
    """A system to look at."""
    return system()


def statistics(box: Box, service: str) -> dict[int, list[object]]:
    """Per operation: calls, ticks in handlers, histogram."""
    operations: Facts = box.ask("statistics", service=service)["operations"]
    return {int(number): record for number, record in operations.items()}


def trace(box: Box, service: str, after: int = 0) -> list[dict[str, int]]:
    events: list[dict[str, int]] = box.ask("trace", service=service, after=after)["events"]
    return events


def calls(box: Box, count: int, service: str = "echo") -> None:
    client = box.attach().client(service)
    for _ in range(count):
        client.echo(b"seen")


@pytest.mark.parametrize("service", ["echo", "cecho"])
def test_nothing_is_recorded_unless_asked_for(box: Box, service: str) -> None:
    calls(box, 10, service)
    assert statistics(box, service) == {}
    assert trace(box, service) == []
    assert box.service(service)["totals"]["calls"] == 10


@pytest.mark.parametrize("service", ["echo", "cecho"])
def test_each_operation_is_counted_with_its_time(box: Box, service: str) -> None:
    box.ask("observe", operations=True)
    client = box.attach().client(service)
    for _ in range(7):
        client.echo(b"seen")
    client.work(5_000_000)
    found = statistics(box, service)
    assert {number: record[0] for number, record in found.items()} == {ECHO: 7, WORK: 1}
    tick_khz = box.status()["tick_khz"]
    assert found[WORK][1] >= 5 * tick_khz
    assert trace(box, service) == []


def test_a_histogram_holds_each_call_by_its_duration(box: Box) -> None:
    box.ask("observe", operations=True)
    client = box.attach().client("cecho")
    for _ in range(5):
        client.work(10_000_000)
    _, _, histogram = statistics(box, "cecho")[WORK]
    assert isinstance(histogram, list) and len(histogram) == HISTOGRAM and sum(histogram) == 5
    units = 10 * box.status()["tick_khz"] >> 6
    assert sum(histogram[: units.bit_length()]) == 0, "no call took less than its work"


def test_observation_stops_when_asked_to_and_keeps_what_it_has(box: Box) -> None:
    box.ask("observe", operations=True, trace=True)
    calls(box, 5)
    box.ask("observe", operations=False, trace=False)
    calls(box, 5)
    assert statistics(box, "echo")[ECHO][0] == 5
    assert len(trace(box, "echo")) == 5


def test_a_trace_tells_who_called_what_when_and_how_it_ended(box: Box) -> None:
    box.ask("observe", trace=True)
    attached = box.attach()
    client: BenchEchoClient = attached.client("echo")
    client.echo(b"x")
    with pytest.raises(Exception, match="on purpose"):
        client.fail()
    first, second = trace(box, "echo")
    assert [first["operation"], second["operation"]] == [ECHO, FAIL]
    assert [first["status"], second["status"]] == [0, FAULT]
    assert first["client"] == second["client"] == attached.pid
    assert first["at"] + first["duration"] <= second["at"] <= dispatcher.now()
    assert second["waited"] < second["at"] - first["at"]
    assert statistics(box, "echo") == {}


def test_a_trace_tells_the_callers_threads_apart(box: Box) -> None:
    box.ask("observe", trace=True)
    client = box.attach().client("echo")
    threads = [threading.Thread(target=client.echo, args=(b"x",)) for _ in range(2)]
    client.echo(b"x")
    for thread in threads:
        thread.start()
        client.echo(b"x")
    for thread in threads:
        thread.join()
    assert len({event["slot"] for event in trace(box, "echo")}) >= 2


def test_a_trace_is_read_in_pieces_and_forgets_the_oldest(box: Box) -> None:
    box.ask("observe", trace=True)
    calls(box, RING + 500, "cecho")
    seen: list[int] = []
    while events := trace(box, "cecho", seen[-1] if seen else 0):
        assert len(events) <= 200
        seen += [event["at"] for event in events]
    assert len(seen) == RING and seen == sorted(seen)


def test_a_service_that_restarts_is_observed_on(box: Box) -> None:
    box.ask("observe", operations=True)
    box.recovered("echo", box.kill("echo"))
    calls(box, 3)
    assert statistics(box, "echo")[ECHO][0] == 3


def test_wait_paths_of_carriers_and_of_callers_are_counted(box: Box) -> None:
    attached = box.attach()
    client = attached.client("cecho")
    for _ in range(200):
        client.echo(b"x")
    held = attached.attachment.held("cecho")
    assert sum(sum(link.waits()) for link in held.links) >= 200
    totals = until(lambda: paths(box), "the carrier has waited for each request")
    assert totals["calls"] == 200 and totals["handler"] > 0


def paths(box: Box) -> Facts:
    totals: Facts = box.service("cecho")["totals"]
    return totals if totals["spun"] + totals["yielded"] + totals["slept"] >= 200 else {}


def test_an_idle_carrier_sleeps(box: Box) -> None:
    calls(box, 3)
    pid = box.pid("echo")
    before = cpu_ticks(pid)
    box.attach().sleep(0.5)
    assert cpu_ticks(pid) - before <= 2


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_handler_time_is_charged_to_the_calling_thread(box: Box) -> None:
    attached = box.attach()
    attached.client("cecho").work(20_000_000)
    (link,) = attached.attachment.held("cecho").links
    assert link.c.slot.leg[0].charged >= 20 * box.status()["tick_khz"]


def test_a_status_is_json_and_complete(box: Box) -> None:
    status = json.loads(json.dumps(box.status()))
    services = {s["name"]: s for p in status["processes"] for s in p["services"]}
    assert set(services) == {"core", *(s.name for s in box.composition.services)}
    for found in services.values():
        assert {"bound", "free", "reserved", "created", "reclaimed", "peak", "limit"} <= set(found["pool"])
        assert {"calls", "handler", "spun", "yielded", "slept", "forged"} <= set(found["totals"])
