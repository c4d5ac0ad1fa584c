"""Databricks runs through databricks-sdk and plain HTTP: they really execute."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import InvalidParameterValue
from databricks.sdk.service import jobs

from tests.support.cloud.databricks_client import CLUSTER, WHEEL_HELP, ended, gone, results, running, submit
from tests.support.cloud.standins import DATABRICKS_TOKEN, Standins

pytest_plugins = ["tests.support.cloud.databricks_client"]


def test_a_wheel_task_really_runs(client: WorkspaceClient, workspace: Standins) -> None:
    waiter = client.jobs.submit(
        run_name="nightly",
        idempotency_token="key-of-the-wheel",
        tasks=[
            jobs.SubmitTask(
                task_key="help",
                existing_cluster_id=CLUSTER,
                python_wheel_task=jobs.PythonWheelTask("ml", "ml", parameters=["--help"]),
            )
        ],
    )
    run = waiter.result(timeout=timedelta(seconds=60))
    assert run.state.result_state is jobs.RunResultState.SUCCESS
    assert run.status.termination_details.code is jobs.TerminationCodeCode.SUCCESS
    assert 0 < run.start_time <= run.tasks[0].start_time <= run.tasks[0].end_time <= run.end_time
    output = client.jobs.get_run_output(run.tasks[0].run_id)
    assert "Stages of a model's life." in output.logs
    assert (output.error, output.logs_truncated) == (None, False)
    (entry,) = workspace.ledger(run_key="key-of-the-wheel")
    assert (entry["operation"], entry["subject"], entry["outcome"]) == ("runs/submit", "nightly", "SUCCESS")
    assert entry["remote_id"] == str(run.run_id)


def test_a_failing_task_reports_its_error(
    client: WorkspaceClient, workspace: Standins, script: Callable[..., dict[str, Any]]
) -> None:
    run_id = submit(client, {"task_key": "bad", **script("print('begun')\nraise ValueError('row 7: amount is text')")})
    run = ended(client, run_id)
    assert (run.state.life_cycle_state.value, run.state.result_state.value) == ("INTERNAL_ERROR", "FAILED")
    assert run.state.state_message == "Task bad failed with message: Workload failed, see run output for details."
    assert run.status.termination_details.code is jobs.TerminationCodeCode.RUN_EXECUTION_ERROR
    output = client.jobs.get_run_output(run.tasks[0].run_id)
    assert output.error == "ValueError: row 7: amount is text"
    assert "Traceback" in output.error_trace
    assert output.logs.startswith("begun\n")
    (entry,) = [e for e in workspace.ledger(service="databricks") if e["remote_id"] == str(run_id)]
    assert entry["outcome"] == "FAILED"
    assert "row 7: amount is text" in entry["detail"]


def test_tasks_wait_for_their_dependencies_and_are_skipped_after_a_failure(
    client: WorkspaceClient, script: Callable[..., dict[str, Any]]
) -> None:
    def after(*keys: str, **more: str) -> dict[str, Any]:
        return {"depends_on": [{"task_key": key} for key in keys], **more}

    run = ended(
        client,
        submit(
            client,
            {"task_key": "last", **script(""), **after("bad", "good")},
            {"task_key": "bad", **script("raise SystemExit(3)"), **after("good")},
            {"task_key": "good", **script("")},
            {"task_key": "beyond", **script(""), **after("last")},
            {"task_key": "always", **script(""), **after("bad", run_if="ALL_DONE")},
            {"task_key": "rescue", **script(""), **after("bad", run_if="AT_LEAST_ONE_FAILED")},
            {"task_key": "calm", **script(""), **after("good", run_if="AT_LEAST_ONE_FAILED")},
        ),
    )
    assert results(run) == {
        "last": "UPSTREAM_FAILED", "bad": "FAILED", "good": "SUCCESS", "beyond": "UPSTREAM_FAILED",
        "always": "SUCCESS", "rescue": "SUCCESS", "calm": "EXCLUDED",
    }  # fmt: skip
    assert run.state.result_state.value == "FAILED"
    assert run.state.state_message.endswith("This caused all downstream tasks to get skipped.")
    times = {task.task_key: task for task in run.tasks}
    assert times["good"].end_time <= times["bad"].start_time
    with pytest.raises(InvalidParameterValue, match="multiple tasks is not supported"):
        client.jobs.get_run_output(run.run_id)


@pytest.mark.parametrize("level", ["run", "task"])
def test_a_timeout_ends_the_run(client: WorkspaceClient, script: Callable[..., dict[str, Any]], level: str) -> None:
    sleeps = script(
        "import subprocess, time\nprint(subprocess.Popen(['sleep', '300']).pid, flush=True)\ntime.sleep(300)"
    )
    task = {"task_key": "slow", **sleeps} | ({"timeout_seconds": "2"} if level == "task" else {})
    run_id = submit(client, task, **({"timeout_seconds": "2"} if level == "run" else {}))
    run = ended(client, run_id)
    assert (run.state.life_cycle_state.value, run.state.result_state.value) == ("TERMINATED", "TIMEDOUT")
    assert "timed out after 2 seconds" in run.state.state_message
    assert 2000 <= run.end_time - run.start_time < 8000
    assert gone(int(client.jobs.get_run_output(run.tasks[0].run_id).logs.split()[0]))


def test_cancel_ends_grandchildren_and_tasks_that_have_not_started(
    client: WorkspaceClient, script: Callable[..., dict[str, Any]]
) -> None:
    spawns = (
        "import subprocess, sys, time\n"
        'child = \'import subprocess; print(subprocess.Popen(["sleep", "300"], start_new_session=True).pid, flush=True);'
        "import time; time.sleep(300)'\n"
        "print(subprocess.Popen([sys.executable, '-c', child]).pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    run_id = submit(
        client,
        {"task_key": "busy", **script(spawns)},
        {"task_key": "next", **script(""), "depends_on": [{"task_key": "busy"}]},
    )
    busy = running(client, run_id).tasks[0].run_id
    deadline = time.monotonic() + 20
    while len(pids := (client.jobs.get_run_output(busy).logs or "").split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.jobs.cancel_run(run_id)
    run = ended(client, run_id)
    assert (run.state.life_cycle_state.value, run.state.result_state.value) == ("TERMINATED", "CANCELED")
    assert results(run) == {"busy": "CANCELED", "next": "CANCELED"}
    assert all(gone(int(pid)) for pid in pids)
    client.jobs.cancel_run(run_id)  # a second time: no effect


def test_one_token_is_one_run_even_for_concurrent_requests(
    client: WorkspaceClient, workspace: Standins, script: Callable[..., dict[str, Any]]
) -> None:
    task = {"task_key": "once", **script("import time; time.sleep(0.5)", "--run-key", "another-key")}
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: submit(client, task, idempotency_token="raced"), range(16)))
    assert len(ids) == 1
    (run_id,) = ids
    ended(client, run_id)
    assert submit(client, task, idempotency_token="raced") == run_id
    entries = workspace.ledger(run_key="raced")
    assert [e["first"] is None for e in entries].count(True) == 1
    assert len(entries) == 17
    assert "another-key" in entries[0]["subject"]
    client.jobs.delete_run(run_id)
    with pytest.raises(InvalidParameterValue, match="has been deleted"):
        submit(client, task, idempotency_token="raced")


def test_the_run_key_of_a_run_without_token_is_that_of_its_task(
    client: WorkspaceClient, workspace: Standins, script: Callable[..., dict[str, Any]]
) -> None:
    ended(client, submit(client, {"task_key": "a", **script("", "--run-key=of-the-task")}))
    assert len(workspace.ledger(run_key="of-the-task")) == 1


def test_a_task_runs_its_wheel_from_blob_storage(client: WorkspaceClient, workspace: Standins) -> None:
    container = workspace.account.container("wheels")
    uri = f"abfss://wheels@{workspace.account.name}.dfs.core.windows.net/"

    def upload(version: str) -> dict[str, Any]:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as wheel:
            wheel.writestr(
                "shopkit/__init__.py", f"def main():\n    import sys; print('shopkit {version}', sys.argv[1:])\n"
            )
            wheel.writestr(
                f"shopkit-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: shopkit\nVersion: {version}\n"
            )
            wheel.writestr(f"shopkit-{version}.dist-info/entry_points.txt", "[console_scripts]\nshop = shopkit:main\n")
        name = f"shopkit-{version}-py3-none-any.whl"
        container.upload_blob(name, content.getvalue())
        return {"whl": uri + name}

    tasks = [
        {
            "task_key": f"v{version}",
            "libraries": [upload(f"{version}.0")],
            "python_wheel_task": {
                "package_name": "shopkit",
                "entry_point": "shop",
                "named_parameters": {"day": "2020-01-01"},
            },
        }
        for version in (1, 2)
    ]
    run = ended(client, submit(client, *tasks))
    printed = [client.jobs.get_run_output(task.run_id).logs for task in run.tasks]
    assert printed == ["shopkit 1.0 ['--day=2020-01-01']\n", "shopkit 2.0 ['--day=2020-01-01']\n"]


def test_a_missing_wheel_is_an_installation_error(client: WorkspaceClient) -> None:
    run = ended(client, submit(client, {**WHEEL_HELP, "libraries": [{"whl": "dbfs:/mnt/wheels/none.whl"}]}))
    assert run.tasks[0].status.termination_details.code is jobs.TerminationCodeCode.LIBRARY_INSTALLATION_ERROR
    assert "has no blob 'none.whl'" in client.jobs.get_run_output(run.tasks[0].run_id).error


def test_a_script_from_blob_storage_runs(client: WorkspaceClient, workspace: Standins) -> None:
    workspace.account.container("code").upload_blob("jobs/hello.py", "import sys; print('hello', *sys.argv[1:])")
    task = {"spark_python_task": {"python_file": "dbfs:/mnt/code/jobs/hello.py", "parameters": ["there"]}}
    run = ended(client, submit(client, {"task_key": "hello", **task}))
    assert client.jobs.get_run_output(run.tasks[0].run_id).logs == "hello there\n"


def test_a_get_accepts_arguments_in_the_body_and_numbers_as_text(
    client: WorkspaceClient, workspace: Standins, script: Callable[..., dict[str, Any]]
) -> None:
    run_id = submit(client, {"task_key": "a", **script("")})
    headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}"}
    with workspace.http() as http:
        for version in ("2.0", "2.1", "2.2"):
            path = f"/api/{version}/jobs/runs/get"
            in_body = http.request("GET", path, json={"run_id": str(run_id)}, headers=headers).json()
            in_query = http.get(path, params={"run_id": run_id}, headers=headers).json()
            assert in_body["run_id"] == in_query["run_id"] == run_id
    ended(client, run_id)


def test_the_older_form_of_a_submission_is_one_task(
    client: WorkspaceClient, script: Callable[..., dict[str, Any]]
) -> None:
    body = {"run_name": "old", "existing_cluster_id": CLUSTER, **script("print('old form')")}
    run = ended(client, int(client.api_client.do("POST", "/api/2.0/jobs/runs/submit", body=body)["run_id"]))
    assert client.jobs.get_run_output(run.run_id).logs == "old form\n"


def test_a_task_runs_with_the_clusters_environment(
    client: WorkspaceClient, script: Callable[..., dict[str, Any]], workspace: Standins
) -> None:
    run = ended(client, submit(client, {"task_key": "env", **script("import os; print(dict(os.environ))")}))
    logs = client.jobs.get_run_output(run.run_id).logs
    assert "'DATABRICKS_RUNTIME_VERSION': " in logs
    assert f"'AZURE_STORAGE_ACCOUNT_NAME': '{workspace.account.name}'" in logs
    for secret in (DATABRICKS_TOKEN, "STANDINS_", "PROXY"):
        assert secret not in logs


def test_runs_are_listed_newest_first_in_pages(client: WorkspaceClient, script: Callable[..., dict[str, Any]]) -> None:
    ids = [submit(client, {"task_key": "a", **script("")}, run_name=f"listed-{n}") for n in range(3)]
    for run_id in ids:
        ended(client, run_id)
    listed = [run.run_id for run in client.jobs.list_runs(completed_only=True, limit=2) if run.run_id in ids]
    assert listed == ids[::-1]
    assert not [run for run in client.jobs.list_runs(active_only=True) if run.run_id in ids]


def test_the_runs_page_shows_states_and_output_without_a_token(
    client: WorkspaceClient, workspace: Standins, script: Callable[..., dict[str, Any]]
) -> None:
    run = ended(client, submit(client, {"task_key": "shown", **script("print('<b>for people</b>')")}))
    with workspace.http() as http:
        response = http.get(run.run_page_url)
    assert response.status_code == 200
    for part in ("shown", "SUCCESS", "&lt;b&gt;for people&lt;/b&gt;"):
        assert part in response.text
