"""One effect per run key on every service, on the real Airflow, with real processes, by the stand-ins' ledger.

Each test clears one task per service and waits for all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from local.demo import Demo
from tests.faults.remote_tasks import KINDS, Route, Task, newest, paused
from tests.support.cloud.faults import Faults, kill_holder
from tests.support.machines.machine import Machine

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def _alone(machine: Machine, demo: Demo) -> Iterator[None]:
    """A training job that runs again registers a challenger, which must not be promoted here."""
    with paused(machine, "churn_promote", "arrivals"):
        yield


@pytest.fixture
def tasks(machine: Machine, demo: Demo, _alone: None) -> dict[str, Task]:
    return {name: newest(machine, name) for name in KINDS}


def add(faults: Faults, route: Route, do: dict[str, Any], **options: Any) -> int:
    return faults.add(do, method=route.method, path=route.path, **options)


def assert_one_effect_each(tasks: dict[str, Task]) -> None:
    for name, task in tasks.items():
        effects = [(entry["run_key"], entry["outcome"]) for entry in task.ended()]
        assert [outcome for _, outcome in effects] == [task.kind.done], f"{name}: {effects}"


def test_a_worker_killed_after_the_service_accepted_and_before_the_id_was_saved(
    tasks: dict[str, Task], faults: Faults
) -> None:
    rules = {name: add(faults, task.kind.submit, {"hold": 300}, when="after") for name, task in tasks.items()}
    for task in tasks.values():
        task.again()
    for rule in rules.values():
        kill_holder(faults.wait_for_hit(rule, state="held"))
    faults.clear()
    for task in tasks.values():
        task.wait("success")
    assert_one_effect_each(tasks)


def test_a_worker_killed_before_the_service_received_the_request(tasks: dict[str, Task], faults: Faults) -> None:
    rules = {name: add(faults, task.kind.submit, {"hold": 300}) for name, task in tasks.items()}
    for task in tasks.values():
        task.again()
    for rule in rules.values():
        kill_holder(faults.wait_for_hit(rule, state="held"))
    faults.clear()
    for task in tasks.values():
        task.wait("success")
    assert_one_effect_each(tasks)


def test_a_worker_killed_after_the_work_is_done_and_before_the_task_has_succeeded(
    tasks: dict[str, Task], faults: Faults
) -> None:
    """A deferred task is resumed twice: the resumed part starts, is lost, and starts again."""
    resuming = {name: task for name, task in tasks.items() if name != "power-bi"}  # it requests nothing after its wait
    rules = {name: add(faults, task.kind.last, {"hold": 300}) for name, task in resuming.items()}
    for task in resuming.values():
        task.again()
    for rule in rules.values():
        kill_holder(faults.wait_for_hit(rule, state="held", timeout=240))
    faults.clear()
    for task in resuming.values():
        task.wait("success")
    assert_one_effect_each(resuming)


def test_responses_lost_after_acceptance_and_repeated_errors_of_polls(tasks: dict[str, Task], faults: Faults) -> None:
    for task in tasks.values():
        add(faults, task.kind.submit, {"reset": True}, when="after")
        for do in ({"reset": True}, {"answer": {"status": 503}}, {"answer": {"status": 500}}, {"wait": 3}):
            add(faults, task.kind.look, do, times=2)
        task.again()
    for task in tasks.values():
        task.wait("success")
    assert_one_effect_each(tasks)


def test_a_service_that_responds_with_retry_after_receives_no_earlier_request(
    tasks: dict[str, Task], faults: Faults
) -> None:
    throttled = {"answer": {"status": 429, "headers": {"Retry-After": "12"}}}  # long enough to wait without a worker
    rules = {name: add(faults, task.kind.submit, throttled) for name, task in tasks.items()}
    for task in tasks.values():
        task.again()
    for task in tasks.values():
        task.wait("success")
    for name, rule in rules.items():
        first, second = (datetime.fromisoformat(hit["time"]) for hit in faults.matches(rule))
        assert second - first >= timedelta(seconds=12), name
    assert_one_effect_each(tasks)


def test_a_missing_role_fails_at_once_without_retries(tasks: dict[str, Task], faults: Faults) -> None:
    body = {"error": {"code": "AuthorizationFailed", "message": "no authorization to perform this action"}}
    denied = {"answer": {"status": 403, "json": body}}
    rules = {name: add(faults, task.kind.submit, denied, times=None) for name, task in tasks.items()}
    before = {name: task.look()["try_number"] for name, task in tasks.items()}
    for task in tasks.values():
        task.again()
    for name, task in tasks.items():
        ended = task.wait("failed")
        assert ended["try_number"] == before[name] + 1, f"{name} was retried"
        assert task.kind.role in task.log(ended["try_number"])
        assert len(faults.matches(rules[name])) == 1
        assert task.effects() == []
    faults.clear()
    for task in tasks.values():
        task.again()
    for task in tasks.values():
        task.wait("success")


def test_a_run_that_vanished_or_failed_is_requested_as_the_next_generation(
    tasks: dict[str, Task], faults: Faults
) -> None:
    for name, task in tasks.items():
        how = "fails" if name in ("data-factory", "power-bi") else "vanishes"
        add(faults, task.kind.submit, {"run": {"how": how, "seconds": 3}})
        task.again()
    for name, task in tasks.items():
        task.wait("success")
        first, second = task.ended()
        assert second["outcome"] == task.kind.done, name
        if first["run_key"]:
            assert (first["run_key"][-3:], second["run_key"][-3:]) == ("-g1", "-g2")
