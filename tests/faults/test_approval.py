"""A promotion waits for approval in a real Airflow: users without the role are refused, and each answer is recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from local import environment
from local.airflow_api import DagRun
from local.postgres import connect
from tests.faults.stage_machine import train, without_airflow
from tests.support.machines.machine import Machine, machine_of, own_settings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

OVERRIDES = {
    "ML_ENVIRONMENT": "production",
    "AIRFLOW_CONN_APPROVERS": json.dumps({"conn_type": "generic", "extra": {"roles": {"ml-approvers": ["alice"]}}}),
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,alice:op,victor:op",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",  # a new machine trains at once, and would request approval of that model
}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine whose environment is named production, with a version that nobody has approved."""
    with own_settings() as settings:
        settings.make_directories()
        overrides = settings.run_dir / "airflow.env"
        overrides.touch(mode=0o600)
        overrides.write_text("".join(f"{name}={value}\n" for name, value in OVERRIDES.items()))
        with without_airflow(settings) as machine:
            train(machine)
        with machine_of(settings) as machine:
            machine.airflow.call("PATCH", "/dags/churn_promote", json={"is_paused": False})
            yield machine


def wait_for_request(machine: Machine, run: DagRun) -> None:
    """Wait until the run requests approval."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        states = {task["task_id"]: task["state"] for task in machine.airflow.tasks(run)}
        if states["ask_approval"] == "awaiting_input":
            return
        assert not {"failed", "skipped"} & {*states.values()}, machine.airflow.explain(run)
        time.sleep(0.5)
    raise AssertionError(f"no approval requested within four minutes: {states}")


def answer(machine: Machine, run: DagRun, user: str, option: str, comment: str) -> requests.Response:
    """Answer as the page of required actions does, as a user who has logged in."""
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
    recorded: list[dict[str, Any]] = machine.ml("registry", "--model", "churn", "history")["events"]
    return recorded


def expire(machine: Machine, run: DagRun) -> None:
    """Set the end of the wait to now, in Airflow's database: 24 hours are too long for a test."""
    with closing(connect(machine.settings, "airflow")) as database, database, database.cursor() as cursor:
        cursor.execute(
            "UPDATE task_instance SET trigger_timeout = now() WHERE state = 'awaiting_input' AND dag_id = %s "
            "AND run_id = %s AND trigger_timeout - now() BETWEEN interval '23 hours' AND interval '24 hours'",
            (run.dag_id, run.run_id),
        )
        assert cursor.rowcount == 1, "the limit in the config is 24 hours"


def test_a_promotion_that_nobody_answers_in_time_is_rejected(machine: Machine) -> None:
    run = machine.airflow.trigger("churn_promote", conf={"version": 1})
    wait_for_request(machine, run)
    expire(machine, run)
    over = machine.airflow.wait(run)
    states = {task["task_id"]: task["state"] for task in machine.airflow.tasks(over)}
    assert states == {"decide": "success", "ask_approval": "success", "promote_version": "skipped"}
    assert machine.ml("registry", "--model", "churn", "production")["version"] is None
    event = events(machine)[-1]
    assert (event["event"], event["approved"], event["approver"]) == ("approval", False, None)
    assert event["reasons"] == ["nobody with the role ml-approvers answered within 24 hours"]
    direct = machine.python(
        "-m", "ml", "promote", "--model", "churn", "--version", "1", "--run-key", "past-them", check=False
    )
    assert "was not approved by a person: nobody with the role ml-approvers answered" in direct.stdout


def test_only_a_person_with_the_role_decides(machine: Machine) -> None:
    before = len([event for event in events(machine) if event["event"] != "gate"])
    rejected = machine.airflow.trigger("churn_promote", conf={"version": 1})
    wait_for_request(machine, rejected)
    path = f"/dags/churn_promote/dagRuns/{rejected.run_id}/taskInstances/ask_approval/-1/hitlDetails"
    request = machine.airflow.call("GET", path)
    assert request["subject"] == "churn: put version 1 into production, instead of none?"
    assert "| roc_auc |" in request["body"]
    for user in ("victor", "admin"):
        refused = answer(machine, rejected, user, "Approve", "I may not")
        assert (refused.status_code, "is not a respondent" in refused.text) == (403, True)
    assert answer(machine, rejected, "alice", "Reject", "not before Christmas").ok
    over = machine.airflow.wait(rejected)
    states = {task["task_id"]: task["state"] for task in machine.airflow.tasks(over)}
    assert states == {"decide": "success", "ask_approval": "success", "promote_version": "skipped"}
    assert machine.ml("registry", "--model", "churn", "production")["version"] is None

    approved = machine.airflow.trigger("churn_promote", conf={"version": 1})
    wait_for_request(machine, approved)
    direct = machine.python(
        "-m", "ml", "promote", "--model", "churn", "--version", "1", "--run-key", "past-them", check=False
    )
    assert "was not approved by a person: alice rejected it: not before Christmas" in direct.stdout
    assert answer(machine, approved, "alice", "Approve", "Christmas is over").ok
    machine.airflow.wait(approved)
    now = machine.ml("registry", "--model", "churn", "production")
    assert (now["version"], now["approver"], now["run"]) == ("1", "alice", f"churn_promote/{approved.run_id}")
    recorded = [event for event in events(machine) if event["event"] != "gate"][before:]
    answers = [(event["event"], event["approved"], event["approver"]) for event in recorded]
    assert answers == [("approval", False, "alice"), ("approval", True, "alice"), ("promotion", True, "alice")]
    assert recorded[1]["told"]["comment"] == "Christmas is over"
