"""Data Factory through Airflow's own hook, operator and trigger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SUBSCRIPTION = "72f988bf-0000-4000-8000-000000000003"
FACTORY = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.DataFactory/factories/adf"


@pytest.fixture
def pipeline(bare_cloud: Any, table: str) -> Callable[..., str]:
    """Deploys a pipeline of Wait activities with the given seconds; returns its name."""

    def deploy(*seconds: Any) -> str:
        activities = [
            {
                "name": f"hold_{n}",
                "type": "Wait",
                "typeProperties": {"waitTimeInSeconds": duration},
                "dependsOn": [{"activity": f"hold_{n - 1}", "dependencyConditions": ["Succeeded"]}] if n else [],
            }
            for n, duration in enumerate(seconds)
        ]
        parameters = {"run_key": {"type": "String", "defaultValue": ""}}
        body = {"properties": {"activities": activities, "parameters": parameters}}
        with bare_cloud.http() as http:
            headers = {"Authorization": f"Bearer {bare_cloud.token()}"}
            for path, definition in (("", {"location": "westeurope"}), (f"/pipelines/{table}", body)):
                url = f"{FACTORY}{path}?api-version=2018-06-01"
                http.put(url, json=definition, headers=headers).raise_for_status()
        return table

    return deploy


@pytest.mark.parametrize(
    ("seconds", "status", "message"),
    [
        pytest.param([2], "success", "has Succeeded", id="success"),
        pytest.param([2, "@pipeline().parameters.run_key"], "error", "has Failed", id="failure"),
    ],
)
def test_the_operator_defers_and_its_trigger_reports(
    bare_cloud: Any,
    airflow_probe: Callable[..., Any],
    pipeline: Callable[..., str],
    seconds: list[Any],
    status: str,
    message: str,
) -> None:
    (event,) = airflow_probe(bare_cloud, "data_factory_run", pipeline(*seconds))
    assert event["status"] == status
    assert message in event["message"]
    (entry,) = [e for e in bare_cloud.ledger(run_key="k") if e["remote_id"] == event["run_id"]]
    assert entry["outcome"] == message.removeprefix("has ")


def test_the_hook_cancels(bare_cloud: Any, airflow_probe: Callable[..., Any], pipeline: Callable[..., str]) -> None:
    first, last = airflow_probe(bare_cloud, "data_factory_cancel", pipeline(60))
    assert first in ("Queued", "InProgress")
    assert last == "Cancelled"
