"""A person changes a task that waits: its remote run is no longer needed, and is cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from local.demo import Demo
from tests.faults.remote_tasks import KINDS, Task, newest, paused
from tests.support.cloud.faults import Faults
from tests.support.machines.machine import Machine

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

SERVICES = ("data-factory", "databricks", "azure-ml")  # Power BI cancels enhanced refreshes only


@pytest.fixture(scope="module")
def _alone(machine: Machine, demo: Demo) -> Iterator[None]:
    with paused(machine, "churn_promote", "arrivals"):
        yield


@pytest.fixture
def waiting(machine: Machine, demo: Demo, _alone: None, faults: Faults) -> dict[str, Task]:
    """One task per service, each waiting for a run that never ends."""
    tasks = {name: newest(machine, name) for name in SERVICES}
    for task in tasks.values():
        faults.add({"run": {"how": "never ends"}}, method=task.kind.submit.method, path=task.kind.submit.path)
        task.again()
    for task in tasks.values():
        task.wait_in_triggerer(faults)
        assert [entry["outcome"] for entry in task.effects()] == [None]
    return tasks


def cancelled(task: Task) -> bool:
    return str(task.ended()[0]["outcome"]).lower().startswith("cancel")


@pytest.mark.parametrize(
    ("act", "state", "effects"),
    [
        pytest.param(lambda task: task.mark("failed"), "failed", 1, id="marked-failed"),
        pytest.param(lambda task: task.mark("success"), "success", 1, id="marked-success"),
        pytest.param(lambda task: task.clear(), "success", 2, id="cleared"),
    ],
)
def test_the_run_is_cancelled(waiting: dict[str, Task], act: Callable[[Task], None], state: str, effects: int) -> None:
    for task in waiting.values():
        act(task)
    for name, task in waiting.items():
        assert cancelled(task), name
    for name, task in waiting.items():
        task.wait(state)
        assert len(task.effects()) == effects, name
        if state == "failed":
            task.again()
    for task in waiting.values():
        task.wait("success")


@pytest.mark.usefixtures("_alone")
def test_the_run_is_cancelled_when_its_dag_run_is_marked_failed(machine: Machine, demo: Demo, faults: Faults) -> None:
    kind = KINDS["databricks"]
    day = machine.airflow.runs(kind.dag_id)[0].partition_key
    faults.add({"run": {"how": "never ends"}}, method=kind.submit.method, path=kind.submit.path)
    known = {entry["id"] for entry in machine.ledger()}
    task = Task(machine, kind, machine.airflow.trigger(kind.dag_id, partition_key=day).run_id, known)
    task.wait_in_triggerer(faults)
    path = f"/dags/{kind.dag_id}/dagRuns/{task.run_id}"
    machine.airflow.call("PATCH", path, json={"state": "failed"})  # Airflow does not delete a running run
    assert cancelled(task)
    machine.airflow.call("DELETE", path)
