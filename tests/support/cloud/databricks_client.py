"""Shared by the Databricks tests: a workspace, a client, tasks, and functions that wait for runs.

A test module sets `pytest_plugins = ["tests.support.cloud.databricks_client"]` to have the fixtures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from databricks.sdk.service import jobs

from tests.support.cloud.standins import DATABRICKS_TOKEN, Account, Standins

CLUSTER = "churn-jobs"
SUBMIT = r"/api/2\.\d/jobs/runs/submit"  # a pattern for the path of a fault rule


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account]) -> Iterator[Standins]:
    cloud = Standins(tmp_path_factory.mktemp("databricks"), new_account(), {"STANDINS_WARM": "never"})
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def client(workspace: Standins, monkeypatch: pytest.MonkeyPatch) -> WorkspaceClient:
    return connect(workspace, monkeypatch)


def connect(cloud: Standins, monkeypatch: pytest.MonkeyPatch, token: str = DATABRICKS_TOKEN) -> WorkspaceClient:
    for name, value in cloud.client_variables().items():
        monkeypatch.setenv(name, value)
    return WorkspaceClient(config=Config(host=cloud.url, token=token, auth_type="pat", retry_timeout_seconds=5))


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Creates a task that runs a Python file with the given content."""

    def create(content: str, *parameters: str) -> dict[str, Any]:
        path = tmp_path / f"{len(list(tmp_path.glob('*.py')))}.py"
        path.write_text(content)
        return {"spark_python_task": {"python_file": f"file:{path}", "parameters": list(parameters)}}

    return create


def submit(client: WorkspaceClient, *tasks: dict[str, Any], **more: Any) -> int:
    body = {"tasks": [{"existing_cluster_id": CLUSTER, **task} for task in tasks], "run_name": "test", **more}
    return int(client.api_client.do("POST", "/api/2.2/jobs/runs/submit", body=body)["run_id"])


def ended(client: WorkspaceClient, run_id: int, seconds: float = 30) -> jobs.Run:
    return wait_until(client, run_id, lambda run: run.status.state is jobs.RunLifecycleStateV2State.TERMINATED, seconds)


def running(client: WorkspaceClient, run_id: int) -> jobs.Run:
    return wait_until(client, run_id, lambda run: run.tasks[0].state.life_cycle_state.value == "RUNNING")


def wait_until(
    client: WorkspaceClient, run_id: int, condition: Callable[[jobs.Run], bool], seconds: float = 30
) -> jobs.Run:
    deadline = time.monotonic() + seconds
    while not condition(run := client.jobs.get_run(run_id)):
        assert time.monotonic() < deadline, run.as_dict()
        time.sleep(0.05)
    return run


def results(run: jobs.Run) -> dict[str, str]:
    return {task.task_key: task.state.result_state.value for task in run.tasks}


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


WHEEL_HELP = {
    "task_key": "help",
    "python_wheel_task": {"package_name": "ml", "entry_point": "ml", "parameters": ["--help"]},
}
