"""Databricks: invalid requests are refused with the service's own messages; jobs, clusters and restarts."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError, InvalidParameterValue, PermissionDenied
from databricks.sdk.errors import NotImplemented as NotImplementedThere
from databricks.sdk.service import compute, jobs

from tests.support.cloud.databricks_client import CLUSTER, WHEEL_HELP, connect, ended, results, running, submit
from tests.support.cloud.standins import DATABRICKS_TOKEN, Account, Standins

pytest_plugins = ["tests.support.cloud.databricks_client"]


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        pytest.param({}, 401, "Credential was not sent", id="no-token"),
        pytest.param({"Authorization": "Basic dXNlcjpwdw=="}, 401, "Credential was not sent", id="password"),
        pytest.param({"Authorization": "Bearer dapi-wrong"}, 403, "Invalid access token.", id="wrong-token"),
    ],
)
def test_a_request_without_a_valid_token_is_refused(
    workspace: Standins, headers: dict[str, str], status: int, message: str
) -> None:
    with workspace.http() as http:
        response = http.get("/api/2.2/jobs/list", headers=headers)
    assert (response.status_code, response.json()["error_code"]) == (status, status)
    assert response.json()["message"].startswith(message)


def test_the_sdk_understands_the_refusal(workspace: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionDenied, match=r"Invalid access token\."):
        list(connect(workspace, monkeypatch, "dapi-wrong").jobs.list())


def test_an_entra_token_for_databricks_is_accepted_and_others_are_not(workspace: Standins) -> None:
    with workspace.http() as http:
        codes = {
            resource: http.get(
                "/api/2.2/jobs/list", headers={"Authorization": f"Bearer {workspace.token(resource)}"}
            ).status_code
            for resource in ("2ff814a6-3304-4ab8-85cb-cd0e6f879c1d", "https://management.azure.com")
        }
    assert list(codes.values()) == [200, 403]


def test_an_expired_entra_token_is_refused(standins_of: Callable[..., Standins], nowhere: Account) -> None:
    cloud = standins_of(nowhere, STANDINS_TOKEN_SECONDS="-1")
    with cloud.http() as http:
        token = cloud.token("2ff814a6-3304-4ab8-85cb-cd0e6f879c1d")
        response = http.get("/api/2.2/jobs/list", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 403
    assert "expired" in response.json()["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param({"tasks": []}, "At least one task", id="no-task"),
        pytest.param({"tasks": [WHEEL_HELP]}, "Task 'help': one of existing_cluster_id", id="no-cluster"),
        pytest.param({"tasks": [{**WHEEL_HELP, "existing_cluster_id": "gone"}]}, "Cluster gone does not exist", id="unknown-cluster"),
        pytest.param({"tasks": [{"task_key": "a b", "existing_cluster_id": CLUSTER}]}, "task_key 'a b'", id="bad-task-key"),
        pytest.param({"tasks": [{"task_key": "a", "existing_cluster_id": CLUSTER}]}, "exactly one task type", id="task-without-work"),
        pytest.param({"tasks": [{**WHEEL_HELP, "existing_cluster_id": CLUSTER}] * 2}, "used 2 times", id="task-key-twice"),
        pytest.param(
            {"tasks": [{**WHEEL_HELP, "existing_cluster_id": CLUSTER, "depends_on": [{"task_key": "x"}]}]},
            "depends on 'x'", id="unknown-dependency",
        ),
        pytest.param(
            {"tasks": [{**WHEEL_HELP, "existing_cluster_id": CLUSTER, "depends_on": [{"task_key": "help"}]}]},
            "form a circle", id="circle",
        ),
        pytest.param(
            {"tasks": [{**WHEEL_HELP, "existing_cluster_id": CLUSTER}], "timeout_seconds": "soon"},
            "timeout_seconds must be a number; found 'soon'", id="timeout-not-a-number",
        ),
        pytest.param(
            {"tasks": [{**WHEEL_HELP, "existing_cluster_id": CLUSTER}], "idempotency_token": "x" * 65},
            "at most 64 characters", id="token-too-long",
        ),
        pytest.param(
            {"tasks": [{"task_key": "a", "existing_cluster_id": CLUSTER, "python_wheel_task": {"package_name": "ml"}}]},
            "needs entry_point", id="wheel-without-entry-point",
        ),
    ],
)  # fmt: skip
def test_a_bad_submission_is_refused_and_starts_nothing(
    client: WorkspaceClient, workspace: Standins, body: dict[str, Any], message: str
) -> None:
    before = len(workspace.ledger(service="databricks"))
    with pytest.raises(InvalidParameterValue, match=message):
        client.api_client.do("POST", "/api/2.2/jobs/runs/submit", body=body)
    assert len(workspace.ledger(service="databricks")) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "what"),
    [
        pytest.param(
            "POST", "/api/2.2/jobs/runs/submit",
            {"tasks": [{"task_key": "n", "existing_cluster_id": CLUSTER, "notebook_task": {"notebook_path": "/x"}}]},
            "notebook_task", id="notebook",
        ),
        pytest.param(
            "POST", "/api/2.2/jobs/runs/submit",
            {"tasks": [{**WHEEL_HELP, "existing_cluster_id": CLUSTER, "libraries": [{"pypi": {"package": "x"}}]}]},
            "pypi", id="library-from-pypi",
        ),
        pytest.param("POST", "/api/2.2/jobs/runs/repair", {"run_id": 1}, "POST /api/2.2/jobs/runs/repair", id="repair"),
        pytest.param("GET", "/api/2.2/jobs/runs/export", None, "GET /api/2.2/jobs/runs/export", id="export"),
        pytest.param("GET", "/api/2.0/sql/warehouses", None, "GET /api/2.0/sql/warehouses", id="sql-warehouses"),
    ],
)  # fmt: skip
def test_an_unimplemented_feature_returns_501_with_its_name(
    client: WorkspaceClient, method: str, path: str, body: dict[str, Any] | None, what: str
) -> None:
    with pytest.raises(NotImplementedThere, match=what):
        client.api_client.do(method, path, body=body)


@pytest.mark.parametrize("call", ["get_run", "get_run_output", "cancel_run", "delete_run"])
def test_an_unknown_run_is_named(client: WorkspaceClient, call: str) -> None:
    with pytest.raises(DatabricksError, match="Run 12345 does not exist") as raised:
        getattr(client.jobs, call)(12345)
    assert isinstance(raised.value, InvalidParameterValue) or type(raised.value).__name__ == "ResourceDoesNotExist"


def test_a_body_that_is_not_json_is_refused(workspace: Standins) -> None:
    headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}"}
    with workspace.http() as http:
        response = http.post("/api/2.2/jobs/runs/submit", content=b"{", headers=headers)
    assert (response.status_code, response.json()["error_code"]) == (400, "MALFORMED_REQUEST")


def test_a_job_is_stored_changed_run_and_removed(
    client: WorkspaceClient, script: Callable[..., dict[str, Any]]
) -> None:
    settings = {
        "name": "nightly-job",
        "parameters": [{"name": "day", "default": "2020-01-01"}],
        "tasks": [
            {"task_key": "a", "existing_cluster_id": CLUSTER, "max_retries": "1",
             **script("import sys; print(sys.argv[1:]); sys.exit(sys.argv[1] == 'fail')", "{{job.parameters.day}}")}
        ],
    }  # fmt: skip
    job_id = int(client.api_client.do("POST", "/api/2.2/jobs/create", body=settings)["job_id"])
    assert [job.settings.name for job in client.jobs.list(name="nightly-job")] == ["nightly-job"]
    first = client.jobs.run_now(job_id).result(timeout=timedelta(seconds=30))
    assert client.jobs.get_run_output(first.tasks[0].run_id).logs == "['2020-01-01']\n"
    second = client.jobs.run_now(job_id, job_parameters={"day": "fail"})
    run = ended(client, second.run_id)
    assert [(task.attempt_number, task.state.result_state.value) for task in run.tasks] == [
        (0, "FAILED"),
        (1, "FAILED"),
    ]
    client.jobs.reset(job_id, jobs.JobSettings(name="renamed"))
    assert client.jobs.get(job_id).settings.name == "renamed"
    client.jobs.delete(job_id)
    with pytest.raises(DatabricksError, match=f"Job {job_id} does not exist"):
        client.jobs.get(job_id)


def test_existing_clusters_are_listed(client: WorkspaceClient) -> None:
    assert CLUSTER in [cluster.cluster_id for cluster in client.clusters.list()]
    assert client.clusters.get(CLUSTER).state is compute.State.RUNNING
    with pytest.raises(DatabricksError, match="Cluster gone does not exist"):
        client.clusters.get("gone")
    assert client.current_user.me().user_name


def test_a_restarted_server_finds_its_runs_again(
    standins_of: Callable[..., Standins], account: Account, monkeypatch: pytest.MonkeyPatch,
    script: Callable[..., dict[str, Any]], tmp_path: Path,
) -> None:  # fmt: skip
    cloud = standins_of(account, STANDINS_WARM="never")
    client = connect(cloud, monkeypatch)
    go = tmp_path / "go"
    waits = f"import time, pathlib\nfor _ in range(1200):\n  if pathlib.Path({str(go)!r}).exists(): break\n  time.sleep(0.05)\nprint('went')"
    live = submit(
        client,
        {"task_key": "waits", **script(waits)},
        {"task_key": "then", **script("print('after the restart')"), "depends_on": [{"task_key": "waits"}]},
    )
    finishes = submit(client, {"task_key": "a", **script("import time; time.sleep(1); print('done meanwhile')")})
    lost = submit(client, {"task_key": "a", **script("import time; time.sleep(300)")})
    running_before = {run_id: running(client, run_id) for run_id in (live, finishes, lost)}
    cloud.stop(signal.SIGKILL)
    task_run = running_before[lost].tasks[0].run_id
    claim = json.loads((cloud.state / "runs" / f"databricks-{task_run}" / "process.json").read_text())
    os.killpg(claim["pgid"], signal.SIGKILL)
    time.sleep(1.2)
    cloud.start()
    client = connect(cloud, monkeypatch)
    assert results(ended(client, finishes)) == {"a": "SUCCESS"}
    lost_run = ended(client, lost)
    assert results(lost_run) == {"a": "FAILED"}
    assert lost_run.tasks[0].status.termination_details.code is jobs.TerminationCodeCode.DRIVER_ERROR
    go.touch()
    run = ended(client, live)
    assert results(run) == {"waits": "SUCCESS", "then": "SUCCESS"}
    assert client.jobs.get_run_output(run.tasks[0].run_id).logs == "went\n"
    assert {e["outcome"] for e in cloud.ledger(service="databricks")} == {"SUCCESS", "FAILED"}
