"""`trace`: single calls as they happened, in the JSON that Perfetto and chrome://tracing open.

Carriers write one event per call into a ring of their service. We switch the rings on, wait, switch them off, and
then drain them: a ring holds the last 8,192 calls, so a busy service's trace covers the end of the time only (and we
say so). One track per service; within it one line per client thread, whose calls cannot overlap.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import shim
from corekernel import dispatcher
from corekernel.errors import CallError
from services import stubs

RING = 8192
CHUNK = 200

Event = dict[str, Any]


def trace(name: str, seconds: float, path: Path) -> int:
    """Record a system's calls for so many seconds and write them to a file; exit status."""
    with shim.attach(name) as system:
        status = system.ask("status")
        services = {s["name"]: s for process in status["processes"] for s in process["services"]}
        began = dispatcher.now()
        system.ask("observe", trace=True)
        try:
            time.sleep(seconds)
        finally:
            system.ask("observe", trace=False)
        drained = {service: _drain(system, service, began) for service in services}
    interfaces = {service: str(about["interface"]) for service, about in services.items()}
    events = chrome(drained, interfaces, began, int(status["tick_khz"]))
    path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}), encoding="utf-8")
    for service, calls in drained.items():
        cut = " (the ring's last)" if len(calls) >= RING else ""
        if calls:
            print(f"{service}: {len(calls)} calls{cut}")
    print(f"{path}: open it at https://ui.perfetto.dev or chrome://tracing")
    return 0


def _drain(system: shim.System, service: str, began: int) -> list[Event]:
    """Events of a service's ring that started after a time stamp; the ring is at rest."""
    events: list[Event] = []
    while True:
        try:
            reply = system.ask("trace", service=service, after=began, skip=len(events), limit=CHUNK)
        except CallError:  # not ours to look at
            return events
        events += reply["events"]
        if len(reply["events"]) < CHUNK:
            return events


def chrome(drained: dict[str, list[Event]], interfaces: dict[str, str], began: int, tick_khz: int) -> list[Event]:
    """Events of each service in Chrome's format; times in microseconds since `began` (ticks)."""
    made: list[Event] = []
    for track, (service, calls) in enumerate(drained.items(), 1):
        made.append(_meta(track, 0, "process_name", service))
        known = stubs.INTERFACES.get(interfaces.get(service, ""))
        for call in calls:
            info = known.operations.get(call["operation"]) if known else None
            made.append(
                {
                    "name": f"{service}.{info.name if info else call['operation']}",
                    "ph": "X",
                    "pid": track,
                    "tid": call["client"] << 12 | call["slot"],
                    "ts": (call["at"] - began) * 1000 / tick_khz,
                    "dur": call["duration"] * 1000 / tick_khz,
                    "args": {
                        "client": call["client"],
                        "status": call["status"],
                        "cpu": call["cpu"],
                        "waited_us": call["waited"] * 1000 / tick_khz,
                    },
                }
            )
        threads = {(call["client"], call["slot"]) for call in calls}
        made += [_meta(track, c << 12 | s, "thread_name", f"client {c}, slot {s}") for c, s in sorted(threads)]
    return made


def _meta(track: int, line: int, kind: str, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": track, "tid": line, "args": {"name": name}}
