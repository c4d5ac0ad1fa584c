"""Sweep jobs through azure-ai-ml: trials really run and log to MLflow, and poor ones are stopped early."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.ai.ml import MLClient, command
from azure.ai.ml.sweep import (
    BanditPolicy,
    BayesianSamplingAlgorithm,
    Choice,
    GridSamplingAlgorithm,
    MedianStoppingPolicy,
    Objective,
    RandomSamplingAlgorithm,
    SweepJob,
    SweepJobLimits,
    Uniform,
)

from ml.storage import tables
from tests.support.cloud.azure_ml_client import TRIAL, connect, read_log, register_environment, wait_for_end, wait_until
from tests.support.cloud.mlflow_server import mlflow_server
from tests.support.cloud.small_mlflow import SmallMlflow, small_mlflow
from tests.support.cloud.standins import Account, Standins
from tests.support.models.small_world import TRAINING_SET, training_set


@pytest.fixture(scope="module")
def mlflow() -> Iterator[tuple[SmallMlflow, str]]:
    with small_mlflow() as server:
        yield server


def standins_with(mlflow: str, folder: Path, account: Account) -> Standins:
    account.container("azureml-blobstore")
    return Standins(folder, account, {"STANDINS_WARM": "never", "MLFLOW_TRACKING_URI": mlflow})


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account], mlflow: tuple[SmallMlflow, str]
) -> Iterator[Standins]:
    cloud = standins_with(mlflow[1], tmp_path_factory.mktemp("sweeps"), new_account())
    (cloud.state / "trial.py").write_text(TRIAL)
    cloud.start()
    with pytest.MonkeyPatch.context() as monkeypatch:
        register_environment(connect(cloud, monkeypatch))
    yield cloud
    cloud.stop()


def sweep(cloud: Standins, name: str, mode: str = "logs", *more: object, **changes: Any) -> SweepJob:
    line = f"python {cloud.state}/trial.py ${{{{search_space.rate}}}} {mode} {' '.join(map(str, more))}"
    defaults: dict[str, Any] = {
        "sampling_algorithm": RandomSamplingAlgorithm(),
        "search_space": {"rate": Uniform(0.1, 0.9)},
        "objective": Objective(goal="maximize", primary_metric="auc"),
        "limits": SweepJobLimits(max_total_trials=3, max_concurrent_trials=2, timeout=120),
    }
    trial = command(command=line, environment="ml@latest")
    tags = {"run_key": name}
    return SweepJob(
        name=name, trial=trial, compute="cpu-cluster", experiment_name="tests", tags=tags, **defaults | changes
    )


def trials_of(client: MLClient, name: str) -> list[Any]:
    return list(client.jobs.list(parent_job_name=name))


def runs_of(mlflow: SmallMlflow, name: str) -> list[dict[str, Any]]:
    """The MLflow runs of a sweep's trials."""
    return [run for run in mlflow.runs.values() if run["info"]["run_name"].startswith(f"{name}_")]


def parameters(trial: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(trial.tags["hyperparameters"])
    return values


def test_trials_run_and_the_best_one_is_named(client: MLClient, workspace: Standins) -> None:
    submitted = sweep(workspace, "best")
    client.jobs.create_or_update(submitted)
    result = wait_for_end(client, "best")
    assert result.status == "Completed"
    trials = trials_of(client, "best")
    assert [trial.name for trial in trials] == ["best_0", "best_1", "best_2"]
    rates = {trial.name: parameters(trial)["rate"] for trial in trials}
    best = max(rates, key=rates.__getitem__)
    assert result.properties["best_child_run_id"] == best
    assert float(result.properties["score"]) == pytest.approx(rates[best])
    assert read_log(workspace, best) == json.dumps({"rate": rates[best]}) + "\n"
    with workspace.http() as http:
        page = http.get(result.services["Studio"].endpoint).raise_for_status().text
        assert [name in page for name in rates] == [True] * 3, "its page leads to its trials"
        child = re.search(r'href="(/azureml/runs/best_1[^"]*)"', page)
        assert child
        assert "best_1" in http.get(child[1].replace("&amp;", "&")).raise_for_status().text
    client.jobs.create_or_update(sweep(workspace, "best"))  # resubmitted: the same job
    entries = workspace.ledger(run_key="best")
    assert [entry["outcome"] for entry in entries] == ["Completed", "already asked"]
    assert [job.name for job in client.jobs.list()].count("best") == 1
    assert not [job.name for job in client.jobs.list() if job.name.startswith("best_")]


def test_the_log_reports_every_trial(client: MLClient, workspace: Standins, capsys: pytest.CaptureFixture[str]) -> None:
    client.jobs.create_or_update(
        sweep(workspace, "logged", limits=SweepJobLimits(max_total_trials=1, max_concurrent_trials=1, timeout=60))
    )
    client.jobs.stream("logged")
    printed = capsys.readouterr().out
    assert 'trial logged_0 starts with {"rate": ' in printed
    assert "trial logged_0 ended Completed: auc " in printed
    assert "the best of 1 trials is logged_0" in printed


@pytest.mark.parametrize(
    ("sampling", "count"),
    [
        pytest.param(GridSamplingAlgorithm(), 4, id="grid-ends-with-its-last-point"),
        pytest.param(BayesianSamplingAlgorithm(), 5, id="bayesian"),
    ],
)
def test_other_samplings(client: MLClient, workspace: Standins, sampling: Any, count: int) -> None:
    name = f"sampled-{count}"
    space = {"rate": Choice([0.2, 0.4, 0.6, 0.8])}
    limits = SweepJobLimits(max_total_trials=5, max_concurrent_trials=4, timeout=120)
    client.jobs.create_or_update(sweep(workspace, name, sampling_algorithm=sampling, search_space=space, limits=limits))
    assert wait_for_end(client, name).status == "Completed"
    rates = [parameters(trial)["rate"] for trial in trials_of(client, name)]
    assert len(rates) == count
    assert set(rates) <= {0.2, 0.4, 0.6, 0.8}
    if count == 4:
        assert sorted(rates) == [0.2, 0.4, 0.6, 0.8]


def test_a_trial_far_behind_the_best_is_stopped_early(
    client: MLClient, workspace: Standins, mlflow: tuple[SmallMlflow, str]
) -> None:
    submitted = sweep(
        workspace, "early", "slow",
        sampling_algorithm=GridSamplingAlgorithm(),
        search_space={"rate": Choice([0.2, 0.8])},
        early_termination=BanditPolicy(slack_factor=0.5, evaluation_interval=1),
    )  # fmt: skip
    client.jobs.create_or_update(submitted)
    assert wait_for_end(client, "early").status == "Completed"
    bad, good = trials_of(client, "early")
    assert (bad.status, good.status) == ("Canceled", "Completed")
    assert "worse than the best trial's value with slack" in read_log(workspace, "early")
    assert [run["info"]["status"] for run in runs_of(mlflow[0], "early")] == ["KILLED", "FINISHED"]


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        pytest.param("fails", "Trial {name}_0 ended Failed: .*status code 4", id="all-trials-failed"),
        pytest.param("silent", "Trial {name}_2 logged no metric", id="nobody-logged-the-metric"),
    ],
)
def test_without_a_best_trial_it_fails_with_the_reason(
    client: MLClient, workspace: Standins, mode: str, why: str
) -> None:
    name = f"none-{mode}"
    client.jobs.create_or_update(sweep(workspace, name, mode))
    assert wait_for_end(client, name).status == "Failed"
    (entry,) = workspace.ledger(run_key=name)
    assert entry["detail"].startswith("None of 3 trials completed with a value of the metric 'auc'.")
    assert re.search(why.format(name=name), entry["detail"])


def test_cancel_ends_the_trials(
    client: MLClient, workspace: Standins, mlflow: tuple[SmallMlflow, str], tmp_path: Path
) -> None:
    client.jobs.create_or_update(sweep(workspace, "canceled", "waits", tmp_path / "never"))
    wait_for_trials(client, "canceled", 2)
    client.jobs.begin_cancel("canceled").result(30)
    assert client.jobs.get("canceled").status == "Canceled"
    assert {trial.status for trial in trials_of(client, "canceled")} == {"Canceled"}
    assert {run["info"]["status"] for run in runs_of(mlflow[0], "canceled")} == {"KILLED"}


def test_a_sweep_that_exceeds_its_limit_is_canceled(client: MLClient, workspace: Standins, tmp_path: Path) -> None:
    submitted = sweep(workspace, "late", "waits", tmp_path / "never")
    with workspace.http() as http:  # the SDK rounds seconds up to minutes
        properties = submitted._to_rest_object().as_dict()["properties"]
        properties["limits"]["timeout"] = "PT2S"
        path = f"{client.workspaces.get(client.workspace_name).id}/jobs/late?api-version=2024-04-01"
        headers = {"Authorization": f"Bearer {workspace.token()}"}
        http.put(path, json={"properties": properties}, headers=headers).raise_for_status()
    assert wait_for_end(client, "late").status == "Canceled"
    assert "exceeded its limit of 2 seconds" in workspace.ledger(run_key="late")[0]["detail"]


def wait_for_trials(client: MLClient, name: str, count: int) -> None:
    deadline = time.monotonic() + 30
    while [trial.status for trial in trials_of(client, name)].count("Running") < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_killed_stand_in_continues_with_the_next_trial(
    client: MLClient,
    new_account: Callable[[], Account],
    mlflow: tuple[SmallMlflow, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    cloud = standins_with(mlflow[1], tmp_path / "state", new_account())
    cloud.state.mkdir()
    (cloud.state / "trial.py").write_text(TRIAL)
    cloud.start()
    client = connect(cloud, monkeypatch)
    register_environment(client)
    go = tmp_path / "go"
    client.jobs.create_or_update(sweep(cloud, "again", "waits", go))
    deadline = time.monotonic() + 60
    while sum(len(run["logged"]) for run in runs_of(mlflow[0], "again")) < 4:  # both have logged everything
        assert time.monotonic() < deadline
        time.sleep(0.1)
    cloud.stop(signal.SIGKILL)
    mlflow[0].down = True
    cloud.start()
    client = connect(cloud, monkeypatch)
    go.touch()
    wait_until(client, "again", ("Running",))
    mlflow[0].down = False  # it came back later than the stand-in
    assert wait_for_end(client, "again").status == "Completed"
    trials = trials_of(client, "again")
    assert [trial.status for trial in trials] == ["Completed"] * 3
    assert len({parameters(trial)["rate"] for trial in trials}) == 3
    assert [run["info"]["run_name"] for run in runs_of(mlflow[0], "again")] == ["again_0", "again_1", "again_2"]
    cloud.stop()


@pytest.mark.faults
def test_the_stage_and_a_real_mlflow(
    new_account: Callable[[], Account], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`ml trial` in a sweep with early termination, over a training set, logging to a real server."""
    monkeypatch.setenv("LAKE_URI", f"file://{tmp_path}/lake")
    (tmp_path / "lake").mkdir()
    (tmp_path / "mlflow").mkdir()
    version = tables.replace(TRAINING_SET, training_set(), "as_of IS NOT NULL", partition_by=["as_of"])
    with mlflow_server(tmp_path / "mlflow") as url:
        cloud = standins_with(url, tmp_path / "state", new_account())
        cloud.variables |= {"LAKE_URI": f"file://{tmp_path}/lake", "STANDINS_WARM": "start"}
        cloud.state.mkdir()
        (cloud.state / "trial.py").write_text(TRIAL)
        cloud.start()
        try:
            client = connect(cloud, monkeypatch)
            register_environment(client)
            line = f"python -m ml trial --training-set-version {version} --set num_leaves=${{{{search_space.leaves}}}}"
            submitted = sweep(
                cloud, "stage",
                search_space={"leaves": Choice([3, 7, 15])},
                objective=Objective(goal="maximize", primary_metric="validation_roc_auc"),
                early_termination=MedianStoppingPolicy(evaluation_interval=1, delay_evaluation=2),
            )  # fmt: skip
            submitted.trial = command(command=line, environment="ml@latest")
            client.jobs.create_or_update(submitted)
            result = wait_for_end(client, "stage", 180)
            assert result.status == "Completed"
            facts = json.loads(read_log(cloud, result.properties["best_child_run_id"]).splitlines()[-1])
            best = max(facts["curve"].values())
            assert float(result.properties["score"]) == pytest.approx(best, abs=1e-5)
            client.jobs.create_or_update(sweep(cloud, "silent", "silent"))
            assert wait_for_end(client, "silent", 90).status == "Failed"
            assert "logged no metric" in cloud.ledger(run_key="silent")[0]["detail"]
        finally:
            cloud.stop()
