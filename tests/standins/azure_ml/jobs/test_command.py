"""Command jobs through azure-ai-ml: they really run, and errors have the service's wording."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from azure.ai.ml import Input, MLClient, Output
from azure.ai.ml.entities import CommandJobLimits
from azure.ai.ml.exceptions import JobException
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.identity import ClientSecretCredential

from tests.support.cloud.azure_ml_client import (
    ARM,
    WORKSPACE,
    connect,
    job,
    read_log,
    register_environment,
    wait_for_end,
    wait_until,
)
from tests.support.cloud.standins import CLIENT, GROUP, SUBSCRIPTION, TENANT, Account, Standins


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# --- rejected requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param({"environment": "none@latest"}, "none", id="unknown-environment"),
        pytest.param({"environment": "ml:7"}, "No environment exists", id="unknown-environment-version"),
        pytest.param({"compute": "gpu-cluster"}, "Unknown compute target 'gpu-cluster'", id="unknown-compute"),
    ],
)
def test_a_job_that_cannot_run_is_refused(client: MLClient, more: dict[str, str], message: str) -> None:
    with pytest.raises(Exception, match=message):
        client.jobs.create_or_update(job("echo never", "refused", **more))
    with pytest.raises(ResourceNotFoundError, match="refused not found"):
        client.jobs.get("refused")


def test_a_wrong_secret_and_an_expired_token_are_refused(
    workspace: Standins, client: MLClient, standins_of: Callable[..., Standins], nowhere: Account
) -> None:
    wrong = MLClient(ClientSecretCredential(TENANT, CLIENT, "wrong"), SUBSCRIPTION, GROUP, WORKSPACE)
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        wrong.jobs.get("any")
    expired = standins_of(nowhere, STANDINS_TOKEN_SECONDS="-1")
    with expired.http() as http:
        headers = {"Authorization": f"Bearer {expired.token()}"}
        answer = http.get(f"{ARM}/{WORKSPACE}/jobs/any?api-version=2024-04-01", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")


@pytest.mark.parametrize("job_type", ["Spark", "FineTuning"])
def test_other_job_types_are_not_implemented(workspace: Standins, job_type: str) -> None:
    with workspace.http() as http:
        answer = http.put(
            f"{ARM}/{WORKSPACE}/jobs/other?api-version=2024-04-01",
            json={"properties": {"jobType": job_type}},
            headers={"Authorization": f"Bearer {workspace.token()}"},
        )
    assert answer.status_code == 501
    assert job_type in answer.json()["error"]["message"]


def test_an_unknown_job_is_a_404_that_names_it(client: MLClient) -> None:
    with pytest.raises(ResourceNotFoundError, match="Job nobody not found"):
        client.jobs.get("nobody")
    with pytest.raises(ResourceNotFoundError):
        client.jobs.begin_cancel("nobody")


# --- command jobs ---------------------------------------------------------------------------------------------------


def test_a_command_really_runs_with_the_services_variables(client: MLClient, workspace: Standins) -> None:
    line = "echo $AZUREML_RUN_ID $AZUREML_ARM_WORKSPACE_NAME ${{inputs.rate}} $EXTRA; python -m ml --help"
    definition = job(line, "runs", inputs={"rate": 0.5}, environment_variables={"EXTRA": "more"}, display_name="a run")
    submitted = client.jobs.create_or_update(definition)
    assert submitted.status in ("NotStarted", "Starting", "Queued", "Running")
    result = wait_for_end(client, "runs")
    assert (result.status, result.display_name, result.experiment_name) == ("Completed", "a run", "tests")
    log = read_log(workspace, "runs")
    assert log.startswith(f"runs {WORKSPACE} 0.5 more\n")
    assert "Stages of a model's life." in log
    (entry,) = workspace.ledger(run_key="runs")
    assert (entry["service"], entry["outcome"], entry["subject"]) == ("azure_ml", "Completed", f"{WORKSPACE}/tests")
    with workspace.http() as http:
        page = http.get(result.services["Studio"].endpoint)
    assert page.status_code == 200
    assert "Completed" in page.text


def test_a_failing_job_records_the_reason(client: MLClient, workspace: Standins) -> None:
    client.jobs.create_or_update(job("python -m ml nonsense", "fails"))
    assert wait_for_end(client, "fails").status == "Failed"
    assert "invalid choice: 'nonsense'" in read_log(workspace, "fails")
    (entry,) = workspace.ledger(run_key="fails")
    assert "status code 2" in entry["detail"]


def test_stream_follows_the_log_and_raises_what_went_wrong(
    client: MLClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs.create_or_update(job("for n in 1 2 3; do echo line $n; sleep 0.7; done; exit 9", "streams"))
    with pytest.raises(JobException, match="status code 9"):
        client.jobs.stream("streams")
    printed = capsys.readouterr().out
    assert "Streaming user_logs/std_log.txt" in printed
    assert [line for line in printed.splitlines() if line.startswith("line")] == ["line 1", "line 2", "line 3"]


def test_cancel_ends_every_process_of_a_job(client: MLClient, workspace: Standins) -> None:
    client.jobs.create_or_update(job("sleep 300 & echo $!; setsid sleep 300 & echo $!; wait", "canceled"))
    wait_until(client, "canceled", ("Running",))
    deadline = time.monotonic() + 10
    while len(pids := read_log(workspace, "canceled").split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.jobs.begin_cancel("canceled").result(30)
    assert client.jobs.get("canceled").status == "Canceled"
    assert all(gone(int(pid)) for pid in pids)
    client.jobs.begin_cancel("canceled").result(30)  # a second time has no effect


def test_a_job_that_exceeds_its_limit_is_canceled(client: MLClient, workspace: Standins) -> None:
    slow = job("sleep 300", "slow")
    slow.limits = CommandJobLimits(timeout=1)
    client.jobs.create_or_update(slow)
    assert wait_for_end(client, "slow").status == "Canceled"
    assert "exceeded its limit of 1 seconds" in workspace.ledger(run_key="slow")[0]["detail"]


def test_one_name_is_one_job(client: MLClient, workspace: Standins) -> None:
    def submit(line: str, **more: Any) -> Any:
        return client.jobs.create_or_update(job(line, "once", **more))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: submit("echo one"), range(8)))
    assert wait_for_end(client, "once").status == "Completed"
    entries = workspace.ledger(run_key="once")
    assert [e["first"] is None for e in entries].count(True) == 1
    assert len(entries) == 8
    assert read_log(workspace, "once") == "one\n"
    with pytest.raises(HttpResponseError, match="A job with this name already exists"):
        submit("echo two")


def test_inputs_are_downloaded_from_the_lake_and_outputs_uploaded(client: MLClient, workspace: Standins) -> None:
    lake = workspace.account.container("lake")
    for name in ("a.txt", "deep/b.txt"):
        lake.upload_blob(f"given/{name}", f"content of {name}\n", overwrite=True)
    uri = f"abfss://lake@{workspace.account.name}.dfs.core.windows.net/given"
    definition = job(
        "find ${{inputs.folder}} -type f | wc -l; cat ${{inputs.folder}}/deep/b.txt ${{inputs.one}};"
        " echo ${{inputs.address}}; mkdir -p ${{outputs.made}}; echo made > ${{outputs.made}}/result.txt",
        "moves-files",
        inputs={
            "folder": Input(type="uri_folder", path=uri),
            "one": Input(type="uri_file", path=f"{uri}/a.txt"),
            "address": Input(type="uri_folder", path=uri, mode="direct"),
        },
        outputs={"made": Output(type="uri_folder")},
    )
    client.jobs.create_or_update(definition)
    assert wait_for_end(client, "moves-files").status == "Completed"
    assert read_log(workspace, "moves-files") == f"2\ncontent of deep/b.txt\ncontent of a.txt\n{uri}\n"
    default = workspace.account.container("azureml-blobstore")
    assert default.download_blob("azureml/moves-files/made/result.txt").readall() == b"made\n"


def test_a_missing_input_fails_the_job_and_is_named(client: MLClient, workspace: Standins) -> None:
    uri = f"abfss://lake@{workspace.account.name}.dfs.core.windows.net/none"
    client.jobs.create_or_update(job("ls ${{inputs.x}}", "no-input", inputs={"x": Input(type="uri_folder", path=uri)}))
    assert wait_for_end(client, "no-input").status == "Failed"
    assert "has neither a file nor a folder 'none'" in workspace.ledger(run_key="no-input")[0]["detail"]


def test_local_code_is_uploaded_and_run(client: MLClient, workspace: Standins, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "hello.py").write_text("import helper; print(helper.WORD)")
    (tmp_path / "src" / "helper.py").write_text("WORD = 'from uploaded code'")
    for name in ("code-1", "code-2"):  # the second time the upload is found by its hash
        client.jobs.create_or_update(job("python hello.py", name, code=str(tmp_path / "src")))
        assert wait_for_end(client, name).status == "Completed"
        assert read_log(workspace, name) == "from uploaded code\n"


def test_jobs_are_listed_described_and_deleted(client: MLClient) -> None:
    client.jobs.create_or_update(job("true", "listed"))
    wait_for_end(client, "listed")
    assert "listed" in [result.name for result in client.jobs.list()]
    result = client.jobs.get("listed")
    result.tags = {**result.tags, "checked": "yes"}
    client.jobs.create_or_update(result)
    assert client.jobs.get("listed").tags["checked"] == "yes"
    client.jobs.begin_delete("listed").result(10)
    with pytest.raises(ResourceNotFoundError):
        client.jobs.get("listed")


# --- restarts -------------------------------------------------------------------------------------------------------


def test_a_killed_stand_in_resumes_its_jobs(
    standins_of: Callable[..., Standins], account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cloud = standins_of(account, STANDINS_WARM="never")
    client = connect(cloud, monkeypatch)
    register_environment(client)
    go = tmp_path / "go"
    client.jobs.create_or_update(
        job(f"for n in $(seq 1200); do [ -e {go} ] && break; sleep 0.05; done; echo went", "live")
    )
    client.jobs.create_or_update(job("sleep 300", "lost"))
    for name in ("live", "lost"):
        wait_until(client, name, ("Running",))
    cloud.stop(signal.SIGKILL)
    (claim,) = [
        p for p in (cloud.state / "runs").glob("*/process.json") if "sleep 300" in (p.parent / "work.json").read_text()
    ]
    os.killpg(json.loads(claim.read_text())["pgid"], signal.SIGKILL)
    cloud.start()
    client = connect(cloud, monkeypatch)
    assert wait_for_end(client, "lost").status == "Failed"
    assert "ended without a result" in cloud.ledger(run_key="lost")[0]["detail"]
    assert client.jobs.get("live").status == "Running"
    go.touch()
    assert wait_for_end(client, "live").status == "Completed"
    assert read_log(cloud, "live") == "went\n"
