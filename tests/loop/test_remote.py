"""What happens to every remote service on a bad day, in short; `tests/faults` has the long of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.demo import Demo
from tests.faults.faults import Faults, kill_holder
from tests.faults.remote_tasks import KINDS, newest, paused
from tests.machine import Machine

pytestmark = [pytest.mark.loop, pytest.mark.timeout(900)]


@pytest.fixture
def faults(machine: Machine) -> Iterator[Faults]:
    switches = Faults(machine.settings.url("standins", "https"), machine.settings.ca_file)
    yield switches
    switches.clear()


def test_workers_die_and_replies_are_lost_and_each_service_does_its_work_once(
    machine: Machine, demo: Demo, faults: Faults
) -> None:
    with paused(machine, "churn_promote"):  # the job trains again, and nobody is to follow
        tasks = {name: newest(machine, name) for name in KINDS}
        held = {}
        for name, task in tasks.items():
            killed = name in ("data-factory", "azure-ml")
            route = task.kind.submit
            fault = {"hold": 300} if killed else {"reset": True}
            rule = faults.add(fault, method=route.method, path=route.path, when="after")
            if killed:
                held[name] = rule
            task.again()
        for rule in held.values():
            kill_holder(faults.wait_for_hit(rule, state="held"))
        for name, task in tasks.items():
            task.wait("success")
            assert [entry["outcome"] for entry in task.ended()] == [task.kind.done], name
