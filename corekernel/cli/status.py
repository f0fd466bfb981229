"""`status`, and the tree that `up` prints: what the core says of itself, as text.

The core's answer to "status" is data (`corekernel.owner`); this module only lays it out.
"""

from __future__ import annotations

from corekernel.channel import Message
from corekernel.cli.text import amount, duration, label, table, user


def tree(status: Message) -> str:
    """The system's processes: state, isolation class, user, host pid, and the stacks of each service."""
    processes = status["processes"]
    rows: list[tuple[str, ...]] = [("process", "class", "user", "host pid", "state", "stacks", "deaths")]
    for index, process in enumerate(processes):
        branch = "" if process["name"] == "core" else "└─ " if index == len(processes) - 1 else "├─ "
        stem = "   " if branch == "└─ " or len(processes) == 1 else "│  "
        rows.append(_process(process, branch))
        rows += [_service(s, stem) for s in process["services"] if s["name"] != process["name"]]
    head = (
        f"{status['name']}: composition {status['composition']}, booted in {duration(status['boot_s'])}, "
        f"up {duration(status['uptime_s'])}"
    )
    return "\n".join([head, "", *table(rows, right=(3, 6))])


def _process(process: Message, branch: str) -> tuple[str, ...]:
    own = [service for service in process["services"] if service["name"] == process["name"]]
    return (
        branch + process["name"],
        " ".join(dict.fromkeys(_class(service) for service in process["services"])),
        user(process["uid"]),
        str(process["pid"] or "-"),
        process["state"],
        _stacks(own[0]["pool"]) if own else "",
        str(process["deaths"]),
    )


def _service(service: Message, stem: str) -> tuple[str, ...]:
    return (f"{stem}· {service['name']}", _class(service), "", "", "", _stacks(service["pool"]), "")


def _class(service: Message) -> str:
    """Its isolation class, and, of one that needs a poller, what it has got."""
    if service["class"] != "IC1":
        return str(service["class"])
    cpu = service["poll_cpu"]
    return "IC1 as IC2" if cpu is None else f"IC1 on CPU {cpu}"


def _stacks(pool: Message) -> str:
    if not pool:
        return "-"
    return f"{pool['bound']} bound, {pool['free']} free, {pool['reserved']} reserved, limit {pool['limit']}"


def full(status: Message) -> str:
    """The tree, the clients, the kernel objects, and what this host makes weaker."""
    parts = [tree(status), _clients(status), _objects(status["objects"])]
    weak = status["weaknesses"]
    if weak:
        parts.append("\n".join(["weaker than designed (`doctor` says more):", *(f"  {text}" for text in weak)]))
    return "\n\n".join(parts)


def _clients(status: Message) -> str:
    clients = status["clients"]
    if not clients:
        return "no clients"
    rows: list[tuple[str, ...]] = [("client", "name", "user", "host pid", "stacks", "")]
    for client in clients:
        mark = "unconfined" if client["unconfined"] else ""
        name, who = label(client["name"]), user(client["uid"])
        rows.append((str(client["number"]), name, who, str(client["pid"] or "-"), str(client["bound"]), mark))
    more = status["clients_total"] - len(clients)
    return "\n".join([*table(rows, right=(0, 3, 4)), *([f"... and {more} more"] if more > 0 else [])])


def _objects(objects: Message) -> str:
    rows: list[tuple[str, ...]] = [("objects", "count", "mapped size", "resident", "grants")]
    for kind, sums in objects.items():
        size, resident = amount(sums["bytes"]), amount(sums["resident"])
        rows.append((kind, str(sums["count"]), size, resident, str(sums["grants"])))
    return "\n".join(table(rows, right=(1, 2, 3, 4)))
