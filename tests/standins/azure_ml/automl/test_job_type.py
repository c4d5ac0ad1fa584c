"""AutoML jobs through azure-ai-ml: they really search, their trials are children, the best model is ONNX."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from azure.ai.ml import Input, MLClient, Output, automl
from azure.ai.ml.automl import ColumnTransformer
from azure.core.exceptions import HttpResponseError

from tests.support.cloud.automl_data import MLTABLE, customers, upload_table
from tests.support.cloud.azure_ml_client import connect, read_log, register_environment, wait_for_end
from tests.support.cloud.standins import Account, Standins
from tests.support.models.small_world import empty_mlflow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account]) -> Iterator[Standins]:
    account = new_account()
    container = account.container("azureml-blobstore")
    upload_table(container, "churn", customers())
    upload_table(container, "twice", customers(), MLTABLE.replace("read_parquet", "read_delimited"))
    folder = tmp_path_factory.mktemp("automl")
    shutil.copy(empty_mlflow(), folder / "mlflow.db")
    variables = {"STANDINS_WARM": "never", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    cloud = Standins(folder / "standins", account, variables)
    cloud.start()
    with pytest.MonkeyPatch.context() as monkeypatch:
        register_environment(connect(cloud, monkeypatch))
    yield cloud
    cloud.stop()


def job(name: str, data: str = "churn", target: str = "churned", limits: Any = None, **training: Any) -> Any:
    where = "azureml://datastores/workspaceblobstore/paths"
    definition = automl.classification(
        training_data=Input(type="mltable", path=f"{where}/{data}/"),
        target_column_name=target,
        primary_metric="AUC_weighted",
        n_cross_validations=5,
        compute="cpu-cluster",
        experiment_name="automl-tests",
        name=name,
        tags={"run_key": name},
        outputs={"best_model": Output(type="mlflow_model", path=f"{where}/best/{name}/")},
    )
    definition.set_limits(**{"timeout_minutes": 10, "max_trials": 3, "max_concurrent_trials": 2, **(limits or {})})
    definition.set_training(enable_onnx_compatible_models=True, **training)
    median = ColumnTransformer(fields=["ratio"], parameters={"strategy": "median"})
    definition.set_featurization(mode="custom", transformer_params={"imputer": [median]})
    return definition


def best_model(cloud: Standins, name: str) -> dict[str, bytes]:
    """The files of the best model, by name."""
    container = cloud.account.container("azureml-blobstore")
    names = [blob.name for blob in container.list_blobs(name_starts_with=f"best/{name}/")]
    return {blob.removeprefix(f"best/{name}/"): container.download_blob(blob).readall() for blob in names}


@pytest.fixture(scope="module")
def searched(workspace: Standins) -> dict[str, Any]:
    """A job of three families that has ended: the job, its trials, its log, its best model."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        client = connect(workspace, monkeypatch)
        families = ["LightGBM", "LogisticRegression", "ExtremeRandomTrees"]
        client.jobs.create_or_update(job("searched", allowed_training_algorithms=families))
        result = wait_for_end(client, "searched", 240)
        log = read_log(workspace, "searched")
        assert result.status == "Completed", log
        trials = list(client.jobs.list(parent_job_name="searched"))
    return {"job": result, "trials": trials, "log": log, "model": best_model(workspace, "searched")}


def test_trials_are_children_with_algorithm_and_score(searched: dict[str, Any]) -> None:
    trials = {trial.name: trial.properties for trial in searched["trials"]}
    assert [trials[f"searched_{n}"]["run_algorithm"] for n in range(5)] == [
        "LightGBM", "ExtremeRandomTrees", "LogisticRegression", "VotingEnsemble", "StackEnsemble",
    ]  # fmt: skip
    assert all(0.7 < float(properties["score"]) < 1 for properties in trials.values())
    assert {trial.status for trial in searched["trials"]} == {"Completed"}
    assert len(json.loads(trials["searched_3"]["ensembled_run_ids"])) == 3


def test_the_job_names_its_best_trial(searched: dict[str, Any]) -> None:
    properties = searched["job"].properties
    scores = {trial.name: float(trial.properties["score"]) for trial in searched["trials"]}
    best = max(scores, key=lambda name: scores[name])
    assert (properties["best_child_run_id"], float(properties["score"])) == (best, scores[best])
    trial = next(trial for trial in searched["trials"] if trial.name == best)
    assert properties["best_algorithm"] == trial.properties["run_algorithm"]
    assert float(properties["onnx_max_difference"]) < 1e-5


def test_the_best_model_is_onnx_in_an_mlflow_folder_without_a_pickle(searched: dict[str, Any]) -> None:
    files = searched["model"]
    assert {"MLmodel", "model.onnx"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib"))]
    mlmodel = yaml.safe_load(files["MLmodel"])
    assert mlmodel["flavors"]["onnx"]["data"] == "model.onnx"
    assert mlmodel["metadata"]["algorithm"] == searched["job"].properties["best_algorithm"]
    session = onnxruntime.InferenceSession(files["model.onnx"])
    assert {tensor.name for tensor in session.get_inputs()} == {"recency", "orders", "ratio", "country"}
    rows = customers(50, seed=1)
    inputs = {name: rows[name].to_numpy().astype(np.float32).reshape(-1, 1) for name in ("recency", "orders", "ratio")}
    inputs["country"] = np.array([["??"]] * 50, dtype=object)
    (probabilities,) = session.run(["probabilities"], inputs)
    assert np.corrcoef(probabilities[:, 1], rows["recency"].to_numpy())[0, 1] > 0.5


def test_trials_are_runs_in_mlflow(searched: dict[str, Any], workspace: Standins) -> None:
    file = workspace.variables["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("select name, status from runs").fetchall()
        scores = dict(
            database.execute(
                "select r.name, m.value from metrics m join runs r using (run_uuid) where key = 'AUCWeighted'"
            )
        )
    assert dict(rows) == dict.fromkeys(("searched", *(f"searched_{n}" for n in range(5))), "FINISHED")
    assert scores["searched_0"] == pytest.approx(float(searched["trials"][0].properties["score"]))


@pytest.mark.faults  # runs a second whole job
def test_the_same_job_under_another_name_gives_the_same_search(client: MLClient, searched: dict[str, Any]) -> None:
    families = ["LightGBM", "LogisticRegression", "ExtremeRandomTrees"]
    again = job("again", allowed_training_algorithms=families, enable_vote_ensemble=False, enable_stack_ensemble=False)
    client.jobs.create_or_update(again)
    result = wait_for_end(client, "again", 240)
    trials = [trial.properties["score"] for trial in client.jobs.list(parent_job_name="again")]
    assert result.status == "Completed"
    assert trials == [trial.properties["score"] for trial in searched["trials"][:3]]


def test_one_name_is_one_job(client: MLClient, searched: dict[str, Any]) -> None:
    families = ["LightGBM", "LogisticRegression", "ExtremeRandomTrees"]
    same = client.jobs.create_or_update(job("searched", allowed_training_algorithms=families))
    assert same.status == "Completed"
    with pytest.raises(HttpResponseError, match="A job with this name already exists"):
        client.jobs.create_or_update(job("searched", limits={"max_trials": 4}, allowed_training_algorithms=families))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"data": "nowhere"}, "trainingData: there is no file MLTable in", id="no-data"),
        pytest.param({"data": "twice"}, "An MLTable with other transformations than read_parquet", id="transformation"),
        pytest.param({"allowed_training_algorithms": ["SVM"]}, "AutoML with SVM", id="unmapped-family"),
    ],
)
def test_a_job_that_cannot_run_is_refused(client: MLClient, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Exception, match=why):
        client.jobs.create_or_update(job("refused", **changes))


def test_unusable_data_fails_the_job_with_the_reason(client: MLClient, workspace: Standins) -> None:
    client.jobs.create_or_update(job("no-target", target="left"))
    assert wait_for_end(client, "no-target", 120).status == "Failed"
    (entry,) = workspace.ledger(run_key="no-target")
    assert "the target column 'left' is not in the data; its columns are recency, orders" in entry["detail"]


def test_cancel_ends_every_process_and_keeps_the_ended_trials(client: MLClient, workspace: Standins) -> None:
    client.jobs.create_or_update(job("stopped", limits={"max_trials": 500, "enable_early_termination": False}))
    deadline = time.monotonic() + 120
    while not list(client.jobs.list(parent_job_name="stopped")):
        assert time.monotonic() < deadline, read_log(workspace, "stopped")
        time.sleep(0.2)
    client.jobs.begin_cancel("stopped").result(60)
    assert client.jobs.get("stopped").status == "Canceled"
    assert list(client.jobs.list(parent_job_name="stopped"))
    assert best_model(workspace, "stopped") == {}
    runs = [path.parent for path in (workspace.state / "runs").glob("*/spec.json")]
    assert not any(str(run) in _command_lines() for run in runs)


def _command_lines() -> str:
    return "\n".join(
        path.read_bytes().replace(b"\0", b" ").decode(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline")
    )
