"""A promotion waits for a person, in a real Airflow: who may not answer is refused, and what is answered is recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from local import environment
from local.airflow_api import DagRun
from tests.machine import Machine, machine_of, own_settings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

TOLD = {
    "ML_ENVIRONMENT": "production",
    "AIRFLOW_CONN_APPROVERS": json.dumps({"conn_type": "generic", "extra": {"roles": {"ml-approvers": ["alice"]}}}),
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,alice:op,victor:op",
}
TRAIN = """
from ml import lake
from tests.unit.small_world import training_set
print(lake.replace("features.training_set", training_set(), "as_of IS NOT NULL", partition_by=["as_of"]))
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine whose environment is called production, with an approved version that nobody has agreed to."""
    with own_settings() as settings:
        settings.make_directories()
        told = settings.run_dir / "airflow.env"
        told.touch(mode=0o600)
        told.write_text("".join(f"{name}={value}\n" for name, value in TOLD.items()))
        with machine_of(settings) as made:
            table = made.python("-c", TRAIN).stdout.split()[-1]
            made.ml("train", "--training-set-version", table, "--run-key", "train-1")
            yield made


def waiting(machine: Machine, run: DagRun) -> None:
    """Until the run's question is asked."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        states = {task["task_id"]: task["state"] for task in machine.airflow.tasks(run)}
        if states["ask_approval"] == "awaiting_input":
            return
        assert "failed" not in states.values(), machine.airflow.explain(run)
        time.sleep(0.5)
    raise AssertionError(f"not asked within four minutes: {states}")


def answer(machine: Machine, run: DagRun, user: str, option: str, comment: str) -> requests.Response:
    """As the page of required actions does it, by a person who has logged in."""
    session = requests.Session()
    session.trust_env = False
    base = machine.airflow.base
    file = Path(environment.airflow(machine.settings)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    login = {"username": user, "password": json.loads(file.read_text())[user]}
    token = session.post(f"{base}/auth/token", json=login, timeout=60).json()["access_token"]
    return session.patch(
        f"{base}/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/ask_approval/-1/hitlDetails",
        json={"chosen_options": [option], "params_input": {"comment": comment}},
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )


def events(machine: Machine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.ml("registry", "history")["events"]
    return found


def test_a_person_with_the_role_decides_and_nobody_else(machine: Machine) -> None:
    rejected = machine.airflow.trigger("churn_promote", conf={"version": 1})
    waiting(machine, rejected)
    path = f"/dags/churn_promote/dagRuns/{rejected.run_id}/taskInstances/ask_approval/-1/hitlDetails"
    asked = machine.airflow.call("GET", path)
    assert asked["subject"] == "churn: version 1 into production, instead of none?"
    assert "| roc_auc |" in asked["body"]
    for user in ("victor", "admin"):
        refused = answer(machine, rejected, user, "Approve", "I may not")
        assert (refused.status_code, "is not a respondent" in refused.text) == (403, True)
    assert answer(machine, rejected, "alice", "Reject", "not before Christmas").ok
    over = machine.airflow.wait(rejected)
    states = {task["task_id"]: task["state"] for task in machine.airflow.tasks(over)}
    assert states == {"decide": "success", "ask_approval": "success", "promote_version": "skipped"}
    assert machine.ml("registry", "production")["version"] is None

    approved = machine.airflow.trigger("churn_promote", conf={"version": 1})
    waiting(machine, approved)
    by_hand = machine.python("-m", "ml", "promote", "--version", "1", "--run-key", "past-them", check=False)
    assert "was not approved by a person: alice rejected it: not before Christmas" in by_hand.stdout
    assert answer(machine, approved, "alice", "Approve", "Christmas is over").ok
    machine.airflow.wait(approved)
    now = machine.ml("registry", "production")
    assert (now["version"], now["approver"], now["run"]) == ("1", "alice", f"churn_promote/{approved.run_id}")
    told = [(one["event"], one["approved"], one["approver"]) for one in events(machine)]
    assert told == [
        ("gate", True, None), ("approval", False, "alice"), ("approval", True, "alice"), ("promotion", True, "alice"),
    ]  # fmt: skip
    assert events(machine)[2]["told"]["comment"] == "Christmas is over"
