"""The doctor: what this host offers, and what is weaker without it."""

from __future__ import annotations

import os

import pytest

from corekernel import confine, doctor
from tests.forked import as_root, become_nobody, run_forked


def test_weaknesses_without_privilege_name_what_is_lost() -> None:
    def body() -> list[str]:
        become_nobody()
        return confine.weaknesses()

    found = " ".join(run_forked(body))
    for lost in ("user id", "pid namespace", "private view", "network namespace"):
        assert lost in found


def test_without_landlock_it_is_said_what_a_service_with_host_paths_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "landlock_abi", lambda: 0)
    assert any("host_paths can read whatever" in text for text in confine.weaknesses())
    assert "host_paths can read whatever" in doctor.report()


def test_the_doctor_finds_what_is_there_and_says_what_is_lost() -> None:
    found = {check.name: check for check in doctor.checks()}
    assert all(check.ok for check in found.values() if check.required)
    assert all(bool(check.consequence) != check.ok for check in found.values())
    assert found["namespaces (CAP_SYS_ADMIN)"].ok == as_root
    assert found["CPUs"].detail == str(len(os.sched_getaffinity(0)))
    table = doctor.report(list(found.values()))
    assert all(check.name in table and check.consequence in table for check in found.values())


def test_the_doctor_of_an_unprivileged_user_warns_of_each_weakness() -> None:
    def body() -> dict[str, bool]:
        become_nobody()
        return {check.name: check.ok for check in doctor.checks()}

    found = run_forked(body)
    lost = ["own user ids (CAP_SETUID)", "namespaces (CAP_SYS_ADMIN)", "control group: memory"]
    assert [found[name] for name in lost] == [False] * 3
    assert found["pidfd"] and found["seccomp"]
