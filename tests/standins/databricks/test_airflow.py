"""Airflow's own Databricks operator, hook and trigger, unmodified, against the stand-in."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.databricks.exceptions import DatabricksApiError
from airflow.providers.databricks.hooks.databricks import DatabricksHook, RunState
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger
from airflow.sdk.exceptions import AirflowException, TaskDeferred

from tests.support.cloud.standins import DATABRICKS_TOKEN, Account, Standins

CONN = "databricks_default"


@pytest.fixture(scope="module")
def databricks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standins]:
    nowhere = Account("nobody", "http://127.0.0.1:1/nobody", "http://127.0.0.1:1/nobody")
    cloud = Standins(tmp_path_factory.mktemp("databricks"), nowhere, {"STANDINS_WARM": "never"})
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture(autouse=True)
def connection(databricks: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in databricks.client_variables().items():
        monkeypatch.setenv(name, value)
    # aiohttp reads SSL_CERT_FILE at import: a triggerer sets it before the import, this test after it.
    context = ssl.create_default_context(cafile=str(databricks.ca))
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
    settings = {
        "conn_type": "databricks", "host": "127.0.0.1", "schema": "https", "port": databricks.port,
        "password": DATABRICKS_TOKEN,
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(settings))
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_WRONG", json.dumps(settings | {"password": "wrong"}))


class TaskInstance:
    """The only part of a task instance that the operator uses: the values it pushes."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.values[key] = value


def operator(*parameters: str, **more: Any) -> DatabricksSubmitRunOperator:
    return DatabricksSubmitRunOperator(
        task_id="submit",
        tasks=[
            {
                "task_key": "main",
                "existing_cluster_id": "churn-jobs",
                "timeout_seconds": 60,
                "python_wheel_task": {"package_name": "ml", "entry_point": "ml", "parameters": list(parameters)},
            }
        ],
        timeout_seconds=120,
        polling_period_seconds=1,
        deferrable=True,
        **more,
    )


def defer(task: DatabricksSubmitRunOperator) -> tuple[DatabricksExecutionTrigger, dict[str, Any]]:
    """Run the operator until it defers; returns its trigger, rebuilt from its stored form, and the pushed values."""
    task_instance = TaskInstance()
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({"ti": task_instance})
    _, stored = deferred.value.trigger.serialize()
    return DatabricksExecutionTrigger(**json.loads(json.dumps(stored))), task_instance.values


async def first_event(trigger: DatabricksExecutionTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("the trigger ended without an event")


def test_the_deferrable_operator_succeeds_with_the_run(databricks: Standins) -> None:
    task = operator("--help", idempotency_token="airflow-succeeds")
    trigger, pushed = defer(task)
    event = asyncio.run(first_event(trigger))
    task.execute_complete({}, event)
    assert RunState.from_json(event["run_state"]).is_successful
    assert pushed["run_page_url"].startswith(databricks.url)
    (entry,) = databricks.ledger(run_key="airflow-succeeds")
    assert (entry["remote_id"], entry["outcome"]) == (str(pushed["run_id"]), "SUCCESS")
    assert entry["request"]["timeout_seconds"] == "120"  # the operator sends every number as a string


def test_the_deferrable_operator_raises_the_error_of_the_task() -> None:
    task = operator("nonsense")
    trigger, _ = defer(task)
    event = asyncio.run(first_event(trigger))
    assert [(error["task_key"], error["error"]) for error in event["errors"]] == [("main", "SystemExit: 2")]
    with pytest.raises(AirflowException, match="SystemExit: 2"):
        task.execute_complete({}, event)


def test_a_second_submission_with_the_token_attaches_to_the_same_run(databricks: Standins) -> None:
    runs = [defer(operator("--help", idempotency_token="airflow-again"))[1]["run_id"]]
    hook = DatabricksHook(CONN)
    while not hook.get_run_state(runs[0]).is_terminal:
        time.sleep(0.1)
    again = TaskInstance()
    operator("--help", idempotency_token="airflow-again").execute({"ti": again})  # ended already: no deferral
    assert again.values["run_id"] == runs[0]
    assert [e["outcome"] for e in databricks.ledger(run_key="airflow-again")] == ["SUCCESS", "already asked"]


def test_killing_the_trigger_cancels_the_run(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text("import time; time.sleep(300)")
    hook = DatabricksHook(CONN)
    task = {
        "task_key": "a",
        "existing_cluster_id": "churn-jobs",
        "spark_python_task": {"python_file": f"file:{script}"},
    }
    run_id = hook.submit_run({"tasks": [task], "run_name": "killed"})
    asyncio.run(DatabricksExecutionTrigger(run_id, CONN, 1).on_kill())
    deadline = time.monotonic() + 20
    while not (state := hook.get_run_state(run_id)).is_terminal:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert state.result_state == "CANCELED"


@pytest.mark.parametrize(
    "get_run",
    [
        pytest.param(lambda hook: hook.get_run(1), id="sync"),
        pytest.param(lambda hook: asyncio.run(get_run_async(hook)), id="async"),
    ],
)
def test_errors_reach_the_hook_with_their_status(get_run: Callable[[DatabricksHook], Any]) -> None:
    with pytest.raises(DatabricksApiError) as raised:
        get_run(DatabricksHook(CONN))
    assert raised.value.http_status_code == 400
    with pytest.raises(DatabricksApiError) as raised:
        get_run(DatabricksHook("databricks_wrong"))
    assert raised.value.http_status_code == 403


async def get_run_async(hook: DatabricksHook) -> Any:
    async with hook:
        return await hook.a_get_run(1)
