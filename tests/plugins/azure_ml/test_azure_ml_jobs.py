"""Azure ML sweeps, AutoML jobs and pipelines as tasks: one job per run key, results, failures, cancellation."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml

from azure_ml.history import RunHistory
from azure_ml.hook import AzureMLHook
from azure_ml.operators.automl import AzureMLAutoMLJobOperator
from azure_ml.operators.base import fill_run_key
from azure_ml.operators.cancel import AzureMLCancelJobOperator
from azure_ml.operators.command import AzureMLCommandJobOperator
from azure_ml.operators.pipeline import AzureMLPipelineJobOperator
from azure_ml.operators.sweep import AzureMLSweepJobOperator
from ml.config import load_models
from ml.train import trial
from mlops.tasks.search import make_search
from remote.run_keys import run_key
from remote.runs import RemoteRunFailed, RemoteRunRefused
from standins.azure_ml.sweep.early_stopping import check_policy
from standins.azure_ml.sweep.search_space import check_sampling, read_space
from tests.support.cloud.automl_data import customers, upload_table
from tests.support.cloud.azure_ml_client import TRIAL
from tests.support.cloud.small_mlflow import small_mlflow
from tests.support.cloud.standins import Account, Standins
from tests.support.components.airflow import triggerer_of, variables_of
from tests.support.components.task_contexts import Ti, context_of
from tests.support.components.triggers import Triggerer, deferred_by, rebuilt

COMMON: dict[str, Any] = {
    "task_id": "t", "environment": "ml@latest", "compute": "cpu-cluster", "experiment": "/Shared/churn", "timeout": 60,
}  # fmt: skip


@pytest.fixture(scope="module")
def own_cloud(tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account]) -> Iterator[Standins]:
    """Stand-ins that know an MLflow to which trials can log."""
    account = new_account()
    account.container("azureml-blobstore")
    with small_mlflow() as (_, url):
        variables = {"STANDINS_WARM": "never", "MLFLOW_TRACKING_URI": url}
        cloud = Standins(tmp_path_factory.mktemp("jobs"), account, variables)
        (cloud.state / "trial.py").write_text(TRIAL)
        cloud.start()
        yield cloud
        cloud.stop()


@pytest.fixture(scope="module")
def own_triggerer(own_cloud: Standins) -> Iterator[Triggerer]:
    with triggerer_of(variables_of(own_cloud)) as process:
        yield process


@pytest.fixture(autouse=True)
def _worker(own_cloud: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as a worker; the environment that jobs name is registered."""
    from azure.ai.ml.entities import Environment

    for name, value in variables_of(own_cloud).items():
        monkeypatch.setenv(name, value)
    image = "mcr.microsoft.com/azureml/base:latest"
    AzureMLHook().get_conn().environments.create_or_update(Environment(name="ml", version="1", image=image))


@pytest.fixture
def context(ti: Ti) -> Any:
    return context_of(ti) | {"outlet_events": defaultdict(SimpleNamespace)}


def sweep_task(cloud: Standins, how: str = "logs", *more: object, **changes: Any) -> AzureMLSweepJobOperator:
    line = f"python {cloud.state}/trial.py ${{{{search_space.rate}}}} {how} {' '.join(map(str, more))}"
    defaults: dict[str, Any] = {
        "command": line,
        "search_space": {"rate": {"type": "choice", "values": [0.2, 0.6, 0.9]}},
        "sampling": "grid",
        "metric": "auc",
        "goal": "maximize",
        "max_trials": 3,
        "max_concurrent": 3,
    }
    return AzureMLSweepJobOperator(**COMMON | defaults | changes)


def pipeline_task(component: str, **more: Any) -> AzureMLPipelineJobOperator:
    defaults = {name: value for name, value in COMMON.items() if name != "environment"}
    return AzureMLPipelineJobOperator(component=component, **defaults | more)


def steps_file(folder: Path, **lines: str) -> str:
    steps = {
        name: {"type": "command", "command": line, "environment": "azureml:ml@latest"} for name, line in lines.items()
    }
    written = {"type": "pipeline", "inputs": {"rows": 3, "other": 4}, "jobs": steps}
    (folder / "pipeline.yml").write_text(yaml.safe_dump(written))
    return str(folder / "pipeline.yml")


def wait_for_end(name: str, seconds: float = 30) -> str:
    deadline = time.monotonic() + seconds
    while not (run := AzureMLHook().get(name)).done:
        assert time.monotonic() < deadline, run.state
        time.sleep(0.1)
    return run.state


class TestASweep:
    def test_returns_the_best_trial_and_all_outcomes(
        self, own_triggerer: Triggerer, own_cloud: Standins, context: Any, ti: Ti
    ) -> None:
        result = own_triggerer.run(lambda: sweep_task(own_cloud), context)
        key = run_key(context)
        assert result == {
            "job": key,
            "best_trial": f"{key}_2",
            "parameters": {"rate": 0.9},
            "metric": {"name": "auc", "goal": "maximize", "value": 0.9},
            "trials": {"Completed": 3},
            "facts": {"rate": 0.9},
        }
        assert sweep_task(own_cloud).execute(context_of(ti.retried())) == result, "a completed one is accepted as it is"
        assert [entry["first"] for entry in own_cloud.ledger(run_key=key)] == [None]

    def test_that_fails_reports_the_log_of_the_failed_trial(
        self, own_triggerer: Triggerer, own_cloud: Standins, context: Any, ti: Ti
    ) -> None:
        with pytest.raises(RemoteRunFailed, match="None of 3 trials completed") as caught:
            own_triggerer.run(lambda: sweep_task(own_cloud, "fails"), context)
        assert 'The end of its log:\n{"rate": ' in str(caught.value)
        later = context_of(ti.retried())
        assert own_triggerer.run(lambda: sweep_task(own_cloud), later)["job"] == run_key(later, 2), "submitted again"

    def test_that_is_killed_is_cancelled_with_its_trials(
        self, own_triggerer: Triggerer, own_cloud: Standins, context: Any, tmp_path: Path
    ) -> None:
        deferred = deferred_by(sweep_task(own_cloud, "waits", tmp_path / "never"), context)
        own_triggerer.kill(deferred.trigger)
        assert wait_for_end(run_key(context)) == "Canceled"
        assert {job.status for job in AzureMLHook().children(run_key(context))} <= {"Canceled"}

    def test_has_the_settings_of_its_task(self, own_cloud: Standins, context: Any, tmp_path: Path) -> None:
        operator = sweep_task(
            own_cloud, "waits", tmp_path / "never",
            search_space={"rate": {"type": "uniform", "min_value": 0.1, "max_value": 0.2}},
            sampling={"type": "random", "seed": 7},
            early_termination={"type": "median_stopping", "evaluation_interval": 2},
            trial_timeout=120,
        )  # fmt: skip
        deferred_by(operator, context)
        job: Any = AzureMLHook().get_conn().jobs.get(run_key(context))
        assert (job.type, job.experiment_name, job.tags) == ("sweep", "Shared-churn", {"run_key": run_key(context)})
        assert (job.search_space["rate"].min_value, job.sampling_algorithm.seed) == (0.1, 7)
        assert (job.limits.max_total_trials, job.limits.timeout, job.limits.trial_timeout) == (3, 60, 120)
        assert job.early_termination.evaluation_interval == 2
        operator.on_kill()
        assert wait_for_end(run_key(context)) == "Canceled"


class TestAPipeline:
    def test_returns_steps_outputs_and_facts(
        self, own_triggerer: Triggerer, own_cloud: Standins, context: Any, tmp_path: Path
    ) -> None:
        """By the id of its component, as one that was published; its default where no input is given."""
        from azure.ai.ml import load_component

        step = {
            "type": "command",
            "command": """echo '{"n": ${{inputs.n}}}' | tee ${{outputs.made}}/facts""",
            "environment": "azureml:ml@latest",
            "inputs": {"n": "${{parent.inputs.n}}"},
            "outputs": {"made": "${{parent.outputs.last}}"},
        }
        written = {
            "type": "pipeline", "name": "published", "version": "1",
            "inputs": {"n": {"type": "integer", "default": 2}}, "outputs": {"last": {"type": "uri_folder"}},
            "jobs": {"count": step},
        }  # fmt: skip
        (tmp_path / "component.yml").write_text(yaml.safe_dump(written))
        published = AzureMLHook().get_conn().components.create_or_update(load_component(tmp_path / "component.yml"))
        outputs = {"last": {"type": "uri_folder", "path": "azureml://datastores/workspaceblobstore/paths/p/{run_key}"}}
        result = own_triggerer.run(lambda: pipeline_task(str(published.id), outputs=outputs), context)
        key = run_key(context)
        assert result == {
            "job": key,
            "steps": {f"{key}_count": "Completed"},
            "outputs": {"last": f"azureml://datastores/workspaceblobstore/paths/p/{key}"},
            "facts": {f"{key}_count": {"n": 2}},
        }
        blob = own_cloud.account.container("azureml-blobstore").download_blob(f"p/{key}/facts")
        assert json.loads(blob.readall()) == {"n": 2}

    def test_from_a_file_names_the_step_that_fails(
        self, own_triggerer: Triggerer, context: Any, tmp_path: Path
    ) -> None:
        file = steps_file(tmp_path, good="true", bad="echo this is why; exit 6")
        with pytest.raises(RemoteRunFailed, match=r"Step 'bad' ended Failed: .*status code 6") as caught:
            own_triggerer.run(lambda: pipeline_task(file, inputs={"rows": 9}), context)
        assert "The end of its log:\nthis is why" in str(caught.value)
        job: Any = AzureMLHook().get_conn().jobs.get(run_key(context))
        inputs = {name: value._data for name, value in job.inputs.items()}
        assert inputs == {"rows": "9", "other": "4"}, "the file's own inputs remain"

    def test_whose_step_refuses_is_not_retried(self, own_triggerer: Triggerer, context: Any, tmp_path: Path) -> None:
        file = steps_file(tmp_path, strict="""echo '{"refused": "9 rows; 1000 are needed"}'; exit 1""")
        with pytest.raises(RemoteRunRefused, match="9 rows; 1000 are needed"):
            own_triggerer.run(lambda: pipeline_task(file), context)


@pytest.mark.parametrize(
    ("folds", "split"),
    [
        pytest.param(5, {"nCrossValidations": {"mode": "Custom", "value": 5}}, id="drawn-by-automl"),
        pytest.param(("a", "b"), {"cvSplitColumnNames": ["a", "b"]}, id="columns"),
    ],
)
def test_an_automl_job_has_the_settings_of_its_task(folds: Any, split: dict[str, Any]) -> None:
    """What becomes of such a job is tested with the stand-in that runs it."""
    operator = AzureMLAutoMLJobOperator(
        **{name: value for name, value in COMMON.items() if name != "environment"},
        training_data="azureml://datastores/workspaceblobstore/paths/rows",
        target="churned",
        metric="auc_weighted",
        cross_validations=folds,
        best_model="azureml://datastores/workspaceblobstore/paths/models/{run_key}",
        limits={"max_trials": 4, "max_concurrent_trials": 2, "trial_timeout_minutes": 1, "exit_score": 0.9},
        training={"allowed_training_algorithms": ["light_gbm"], "enable_stack_ensemble": False},
    )
    job: Any = operator.load(
        fill_run_key({"name": "k1", "compute": "azureml:cpu-cluster", **operator.definition()}, "k1")
    )
    properties = json.loads(json.dumps(job._to_rest_object().as_dict()))["properties"]
    assert properties["outputs"]["best_model"] == {
        "uri": "azureml://datastores/workspaceblobstore/paths/models/k1",
        "jobOutputType": "mlflow_model",
    }
    details = properties["taskDetails"]
    assert details["primaryMetric"] == "AUCWeighted"
    names = ("nCrossValidations", "cvSplitColumnNames")
    assert {name: details[name] for name in names if details.get(name)} == split
    assert details["limitSettings"]["timeout"] == "PT1M"
    assert details["limitSettings"]["maxTrials"] == 4
    assert details["trainingSettings"]["allowedTrainingAlgorithms"] == ["LightGBM"]


def test_azure_ml_accepts_the_sweep_of_each_model() -> None:
    """As the Dag defines it; the stand-in refuses what the service refuses."""
    for model in load_models():
        sweeping = model.model_copy(update={"train": model.train.model_copy(update={"method": "sweep"})})
        (task,) = make_search(sweeping).tasks
        assert isinstance(task, AzureMLSweepJobOperator)
        job = task.load({"name": "k", "compute": "azureml:cpu-cluster", **fill_run_key(task.definition(), "k")})
        properties = json.loads(json.dumps(job._to_rest_object().as_dict()))["properties"]
        policy = properties.get("earlyTermination")
        check_sampling(properties["samplingAlgorithm"], read_space(properties["searchSpace"]), ends_early=bool(policy))
        if policy:
            check_policy(policy)
        assert properties["objective"] == {"goal": "maximize", "primaryMetric": trial.METRIC}, (
            "the metric that the stage logs"
        )


@pytest.mark.faults  # not for its faults: a search takes a minute
def test_automl_returns_the_best_trial_and_where_its_model_is(
    new_account: Callable[[], Account], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Any, ti: Ti
) -> None:
    account = new_account()
    rows = customers()
    for number in range(3):
        rows = rows.append_column(
            f"fit_in_{number}", pa.array([int(row % 3 != number) for row in range(rows.num_rows)])
        )
    upload_table(account.container("azureml-blobstore"), "churn", rows)
    cloud = Standins(tmp_path / "standins", account, {"STANDINS_WARM": "never"})
    cloud.start()
    try:
        for name, value in variables_of(cloud).items():
            monkeypatch.setenv(name, value)
        where = "azureml://datastores/workspaceblobstore/paths"
        operator = AzureMLAutoMLJobOperator(
            **{name: value for name, value in COMMON.items() if name != "environment"} | {"timeout": 300},
            training_data=f"{where}/churn/",
            target="churned",
            metric="auc_weighted",
            cross_validations=["fit_in_0", "fit_in_1", "fit_in_2"],
            best_model=f"{where}/models/{{run_key}}/",
            limits={"max_trials": 2, "max_concurrent_trials": 1},
            training={"allowed_training_algorithms": ["logistic_regression"], "enable_onnx_compatible_models": True},
        )
        deferred_by(operator, context)
        key = run_key(context)
        assert wait_for_end(key, 240) == "Completed"
        result = operator.execute(context_of(ti.retried()))
        assert result["job"] == key
        assert result["best_trial"] in {f"{key}_{number}" for number in range(4)}
        assert result["metric"]["name"] == "auc_weighted"
        assert 0.6 < result["metric"]["value"] < 1
        assert sum(result["trials"].values()) >= 2
        assert result["best_model"] == f"{where}/models/{key}/"
        container = account.container("azureml-blobstore")
        assert [blob.name for blob in container.list_blobs(name_starts_with=f"models/{key}/")]
    finally:
        cloud.stop()


class TestCancelling:
    def test_ends_a_live_job(self, own_triggerer: Triggerer, ti: Ti, context: Any) -> None:
        deferred_by(AzureMLCommandJobOperator(command="sleep 60", **COMMON), context)
        name = run_key(context)
        other = context_of(Ti(dag_id=ti.dag_id, task_id="cancel"))
        result = own_triggerer.run(lambda: AzureMLCancelJobOperator(task_id="c", job_name=name), other)
        assert result == {"job": name, "state": "Canceled"}

    def test_leaves_one_that_is_over_as_it_is(self, own_triggerer: Triggerer, ti: Ti, context: Any) -> None:
        own_triggerer.run(lambda: AzureMLCommandJobOperator(command="true", **COMMON), context)
        name = run_key(context)
        other = context_of(Ti(dag_id=ti.dag_id, task_id="cancel"))
        assert AzureMLCancelJobOperator(task_id="c", job_name=name).execute(other)["state"] == "Completed"


class TestFollowingTheLog:
    def test_gives_each_whole_line_once(self, context: Any, tmp_path: Path) -> None:
        command = f"printf 'one\\ntw'; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; printf 'o\\nthree\\n'"
        deferred_by(AzureMLCommandJobOperator(command=command, **COMMON), context)
        name, history = run_key(context), RunHistory(AzureMLHook().get_conn())
        lines: list[str] = []
        deadline = time.monotonic() + 30
        while not lines:
            assert time.monotonic() < deadline
            lines += history.new_lines(name)
        assert lines == ["one"], "half a line waits for its end"
        assert history.new_lines(name) == []
        (tmp_path / "go").touch()
        wait_for_end(name)
        assert history.new_lines(name) == ["two", "three"]
        assert history.read(name) == ("", "one\ntwo\nthree\n")

    def test_is_a_matter_of_the_trigger_which_keeps_it(self, context: Any) -> None:
        deferred = deferred_by(AzureMLCommandJobOperator(command="true", follow_log=False, **COMMON), context)
        assert rebuilt(deferred.trigger).follow_log is False

    def test_that_cannot_be_read_is_no_news_of_the_job(
        self, context: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        import asyncio

        deferred = deferred_by(AzureMLCommandJobOperator(command="true", **COMMON), context)
        trigger = rebuilt(deferred.trigger)
        monkeypatch.setattr(RunHistory, "new_lines", lambda *_: 1 / 0)
        assert asyncio.run(trigger.poll(AzureMLHook().get_conn())).run_id == run_key(context)
