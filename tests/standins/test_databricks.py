"""Databricks as databricks-sdk and plain HTTP see it: runs that really execute, and errors as the service words them."""

from __future__ import annotations

import io
import json
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from databricks.sdk.errors import DatabricksError, InvalidParameterValue, PermissionDenied
from databricks.sdk.errors import NotImplemented as NotImplementedThere
from databricks.sdk.service import compute, jobs

from tests.standins.conftest import DATABRICKS_TOKEN, Account, Standins

CLUSTER = "churn-jobs"


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
    """A task that runs a Python file with this content."""

    def make(content: str, *parameters: str) -> dict[str, Any]:
        path = tmp_path / f"{len(list(tmp_path.glob('*.py')))}.py"
        path.write_text(content)
        return {"spark_python_task": {"python_file": f"file:{path}", "parameters": list(parameters)}}

    return make


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


# --- what is asked wrongly ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        pytest.param({}, 401, "Credential was not sent", id="no-token"),
        pytest.param({"Authorization": "Basic dXNlcjpwdw=="}, 401, "Credential was not sent", id="password"),
        pytest.param({"Authorization": "Bearer dapi-wrong"}, 403, "Invalid access token.", id="wrong-token"),
    ],
)
def test_who_has_no_token_is_refused(workspace: Standins, headers: dict[str, str], status: int, message: str) -> None:
    with workspace.http() as http:
        answer = http.get("/api/2.2/jobs/list", headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (status, status)
    assert answer.json()["message"].startswith(message)


def test_the_sdk_understands_the_refusal(workspace: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionDenied, match=r"Invalid access token\."):
        list(connect(workspace, monkeypatch, "dapi-wrong").jobs.list())


def test_an_entra_token_for_databricks_is_good_and_others_are_not(workspace: Standins) -> None:
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
        answer = http.get("/api/2.2/jobs/list", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
    assert "expired" in answer.json()["message"]


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
            "timeout_seconds must be a number; found 'soon'", id="timeout-no-number",
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
def test_what_is_not_implemented_says_so(
    client: WorkspaceClient, method: str, path: str, body: dict[str, Any] | None, what: str
) -> None:
    with pytest.raises(NotImplementedThere, match=what):
        client.api_client.do(method, path, body=body)


@pytest.mark.parametrize("call", ["get_run", "get_run_output", "cancel_run", "delete_run"])
def test_an_unknown_run_is_named(client: WorkspaceClient, call: str) -> None:
    with pytest.raises(DatabricksError, match="Run 12345 does not exist") as raised:
        getattr(client.jobs, call)(12345)
    assert isinstance(raised.value, InvalidParameterValue) or type(raised.value).__name__ == "ResourceDoesNotExist"


def test_a_body_that_is_no_json_is_refused(workspace: Standins) -> None:
    headers = {"Authorization": f"Bearer {DATABRICKS_TOKEN}"}
    with workspace.http() as http:
        answer = http.post("/api/2.2/jobs/runs/submit", content=b"{", headers=headers)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "MALFORMED_REQUEST")


# --- runs -----------------------------------------------------------------------------------------------------------


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


def test_a_failing_task_tells_its_error(
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


def test_cancel_ends_grandchildren_and_what_has_not_begun(
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
    client.jobs.cancel_run(run_id)  # again: nothing happens


def test_one_token_is_one_run_even_when_asked_at_once(
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


def test_the_run_key_of_a_run_without_token_is_its_tasks(
    client: WorkspaceClient, workspace: Standins, script: Callable[..., dict[str, Any]]
) -> None:
    ended(client, submit(client, {"task_key": "a", **script("", "--run-key=of-the-task")}))
    assert len(workspace.ledger(run_key="of-the-task")) == 1


def test_a_wheel_from_blob_storage_is_what_the_task_runs(client: WorkspaceClient, workspace: Standins) -> None:
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


def test_a_wheel_that_is_not_there_is_an_installation_error(client: WorkspaceClient) -> None:
    run = ended(client, submit(client, {**WHEEL_HELP, "libraries": [{"whl": "dbfs:/mnt/wheels/none.whl"}]}))
    assert run.tasks[0].status.termination_details.code is jobs.TerminationCodeCode.LIBRARY_INSTALLATION_ERROR
    assert "no blob 'none.whl'" in client.jobs.get_run_output(run.tasks[0].run_id).error


def test_a_script_from_blob_storage_runs(client: WorkspaceClient, workspace: Standins) -> None:
    workspace.account.container("code").upload_blob("jobs/hello.py", "import sys; print('hello', *sys.argv[1:])")
    task = {"spark_python_task": {"python_file": "dbfs:/mnt/code/jobs/hello.py", "parameters": ["there"]}}
    run = ended(client, submit(client, {"task_key": "hello", **task}))
    assert client.jobs.get_run_output(run.tasks[0].run_id).logs == "hello there\n"


def test_a_get_takes_its_arguments_from_the_body_and_numbers_as_text(
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
    found = [run for run in client.jobs.list_runs(completed_only=True, limit=2) if run.run_id in ids]
    assert [run.run_id for run in found] == ids[::-1]
    assert not [run for run in client.jobs.list_runs(active_only=True) if run.run_id in ids]


def test_the_runs_page_shows_states_and_output_without_a_token(
    client: WorkspaceClient, workspace: Standins, script: Callable[..., dict[str, Any]]
) -> None:
    run = ended(client, submit(client, {"task_key": "shown", **script("print('<b>for people</b>')")}))
    with workspace.http() as http:
        answer = http.get(run.run_page_url)
    assert answer.status_code == 200
    for part in ("shown", "SUCCESS", "&lt;b&gt;for people&lt;/b&gt;"):
        assert part in answer.text


# --- jobs and clusters ----------------------------------------------------------------------------------------------


def test_a_job_is_stored_changed_run_and_removed(
    client: WorkspaceClient, script: Callable[..., dict[str, Any]]
) -> None:
    asked = {
        "name": "nightly-job",
        "parameters": [{"name": "day", "default": "2020-01-01"}],
        "tasks": [
            {"task_key": "a", "existing_cluster_id": CLUSTER, "max_retries": "1",
             **script("import sys; print(sys.argv[1:]); sys.exit(sys.argv[1] == 'fail')", "{{job.parameters.day}}")}
        ],
    }  # fmt: skip
    job_id = int(client.api_client.do("POST", "/api/2.2/jobs/create", body=asked)["job_id"])
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


def test_clusters_that_exist_are_told(client: WorkspaceClient) -> None:
    assert CLUSTER in [cluster.cluster_id for cluster in client.clusters.list()]
    assert client.clusters.get(CLUSTER).state is compute.State.RUNNING
    with pytest.raises(DatabricksError, match="Cluster gone does not exist"):
        client.clusters.get("gone")
    assert client.current_user.me().user_name


# --- restarts -------------------------------------------------------------------------------------------------------


def test_a_killed_stand_in_finds_its_runs_again(
    standins_of: Callable[..., Standins], account: Account, monkeypatch: pytest.MonkeyPatch,
    script: Callable[..., dict[str, Any]], tmp_path: Path,
) -> None:  # fmt: skip
    cloud = standins_of(account, STANDINS_WARM="never")
    client = connect(cloud, monkeypatch)
    go = tmp_path / "go"
    waits = f"import time, pathlib\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)\nprint('went')"
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
    vanished = ended(client, lost)
    assert results(vanished) == {"a": "FAILED"}
    assert vanished.tasks[0].status.termination_details.code is jobs.TerminationCodeCode.DRIVER_ERROR
    go.touch()
    run = ended(client, live)
    assert results(run) == {"waits": "SUCCESS", "then": "SUCCESS"}
    assert client.jobs.get_run_output(run.tasks[0].run_id).logs == "went\n"
    assert {e["outcome"] for e in cloud.ledger(service="databricks")} == {"SUCCESS", "FAILED"}
