"""Bodies that run in a forked process, as who they please: what confines a process cannot be undone in it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from corekernel import namespaces

UID = 61001
NOBODY = 65534
as_root = os.geteuid() == 0


def run_forked(body: Callable[[], Any]) -> Any:
    """Run `body` in a forked child; return its JSON result; a failure there fails the test with its text."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            answer: dict[str, Any] = {"result": body()}
        except BaseException:
            answer = {"failure": traceback.format_exc()}
        with contextlib.suppress(OSError):
            os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    assert data, "the child died without an answer"
    answer = json.loads(data)
    assert "failure" not in answer, answer.get("failure")
    return answer["result"]


def become_nobody() -> None:
    """Drop to a user id without any privilege, with the interpreter still reachable."""
    if as_root:
        namespaces.private_mounts()
        namespaces.private_view(namespaces.interpreter_paths())
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def outcome(attempt: Callable[[], Any]) -> str:
    """`allowed`, or the name of the errno that refused the attempt."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "allowed"
