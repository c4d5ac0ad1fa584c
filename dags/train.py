"""Trains a challenger on Azure ML: weekly, when an event requests it, or by hand.

**What it does.** Builds the training set (features as known at past cut-offs, labels only where their horizon is over,
the newest cut-offs kept for the test) and validates it on Databricks: a leak fails it here. The rest depends on
`train.method` in the model's config. `job` trains with the config's parameters. `sweep` first searches for better
parameters, on the training part only. `automl` has Azure ML's AutoML search through algorithm families, also on the
training part only, and takes its best model as ONNX. In each case `train_model` evaluates challenger and champion on
the same later rows, logs to MLflow and registers a version. `<model>_promote` then decides about that version.

**By hand.** Trigger it; `through` is the last day whose data it may use (default: the newest day that
all its facts have).

**When it fails.** The job's link opens its page and log; the error shows the end of the log. Clear the failed task: a
job that has completed is not repeated, a failed one is submitted again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param, chain, task

from azure_ml.operators.command import AzureMLCommandJobOperator
from ml.config import load_platform
from mlops.scheduling.assets import model_assets
from mlops.tasks.defaults import dag_arguments, for_scheduler, models_to_build, usable_project
from mlops.tasks.search import VERSION, make_search, training_command
from mlops.tasks.stages import stage_task

if TYPE_CHECKING:
    from ml.config import ModelConfig


def build(model: ModelConfig) -> None:
    assets = model_assets(model.name)
    weekly_or_requested = for_scheduler(
        lambda: AssetOrTimeSchedule(
            timetable=CronTriggerTimetable(model.schedule.train, timezone=model.timezone), assets=[assets.retrain]
        )
    )
    params = {
        "through": Param(None, type=["null", "string"], format="date", description="last day whose data it may use")
    }

    with DAG(
        schedule=weekly_or_requested,
        max_active_runs=1,
        params=params,
        **dag_arguments(model, "train", __doc__),
    ):

        @task
        def choose_day(name: str, *, params) -> str:
            """The last day whose data may be used: the requested one, else the newest that all facts have."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.train import cutoffs

            if params["through"]:
                return params["through"]
            project = usable_project()
            day = cutoffs.newest_complete_day(project.models[name], project)
            if day is None:
                raise AirflowSkipException("no day has all facts of the model yet: nothing to train on")
            return day.isoformat()

        build_training_set = stage_task(
            "build_training_set",
            {"training_set": ["--through", "{{ ti.xcom_pull(task_ids='choose_day') }}"]},
            model=model.name,
            per_day=False,
        )
        validate_training_set = stage_task(
            "validate_training_set",
            {"validate.training": ["--suite", "training", "--version", VERSION]},
            model=model.name,
            per_day=False,
        )
        search = make_search(model)
        azure_ml = load_platform().compute.azure_ml
        train_model = AzureMLCommandJobOperator(
            task_id="train_model",
            command=training_command(model, "train", "--run-key", "{run_key}", *search.arguments),
            inputs=search.inputs,
            environment=azure_ml.environment,
            compute=azure_ml.compute,
            experiment=model.experiment,
            timeout=azure_ml.timeout_seconds,
            outlets=[assets.challenger],
        )

        chain(choose_day(model.name), build_training_set, validate_training_set, *search.tasks, train_model)


for each_model in models_to_build("train"):
    build(each_model)
