from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.cloud.faults import Faults
from tests.support.cloud.standins import DATABRICKS_TOKEN, Standins


@pytest.fixture
def faults(bare_cloud: Standins) -> Iterator[Faults]:
    faults = Faults(bare_cloud.url, bare_cloud.ca)
    yield faults
    faults.clear()


@pytest.fixture
def submit_run(bare_cloud: Standins) -> Iterator[Callable[..., httpx.Response]]:
    """Submits a Databricks run that ends at once; each request has its own connection."""
    headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}", "Connection": "close"}
    run_ids: list[int] = []

    def submit(token: str, **more: Any) -> httpx.Response:
        task = {
            "task_key": "main",
            "existing_cluster_id": "churn-jobs",
            "spark_python_task": {"python_file": "none.py"},
        }
        body = {"run_name": token, "idempotency_token": token, "tasks": [task], **more}
        response = http.post("/api/2.2/jobs/runs/submit", json=body, headers=headers)
        if response.status_code == 200:
            run_ids.append(response.json()["run_id"])
        return response

    with bare_cloud.http() as http:
        yield submit
        for run_id in run_ids:
            http.post("/api/2.2/jobs/runs/cancel", json={"run_id": run_id}, headers=headers)
