"""A challenger on Azure ML: weekly, when something asks for it, or by hand.

**What it does.** Builds the training set (features as known at past cut-offs, labels only where their
horizon is over, the newest cut-offs kept for the test) and validates it on Databricks: a leak fails it here. Then
`train.method` in the model's config decides. `job` trains with the config's parameters. `sweep` looks for better ones
first, on the training part. `automl` has Azure ML's AutoML look through algorithm families, also on the training part,
and takes its best model as ONNX. In each case `train_model` evaluates challenger and champion on the same later rows,
logs to MLflow and registers a version. `<model>_promote` decides what becomes of it.

**By hand.** Trigger it; `through` is the last day it may know (default: the newest ingested day).

**When it fails.** The job's link leads to its page and log; the error shows the end of the log. Clear the
failed task: a finished job is taken as it is, a failed one is asked for again.
"""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param, chain, task

from azure_ml.operators.command import AzureMLCommandJobOperator
from ml.config import ModelConfig, load_models
from mlops.scheduling.assets import assets_of
from mlops.tasks.defaults import dag_arguments
from mlops.tasks.search import VERSION, search, words
from mlops.tasks.stages import stage_task


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    weekly = CronTriggerTimetable(model.schedule.train, timezone=model.timezone)
    params = {"through": Param(None, type=["null", "string"], format="date", description="last day it may know")}

    with DAG(
        schedule=AssetOrTimeSchedule(timetable=weekly, assets=[assets.retrain]),
        max_active_runs=1,
        params=params,
        **dag_arguments(model, "train", __doc__),
    ):

        @task
        def choose_day(name: str, *, params) -> str:
            """The last day that may be known: as asked, else the newest that is ingested."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.config import load_model
            from ml.features import source

            if params["through"]:
                return params["through"]
            days = source.ingested_days_of(load_model(name))
            if not days:
                raise AirflowSkipException("no day is ingested yet: there is nothing to train on")
            return days[-1].isoformat()

        build_training_set = stage_task(
            model,
            "build_training_set",
            {"training_set": ["--through", "{{ ti.xcom_pull(task_ids='choose_day') }}"]},
            per_day=False,
        )
        validate_training_set = stage_task(
            model,
            "validate_training_set",
            {"validate.training": ["--suite", "training", "--version", VERSION]},
            per_day=False,
        )
        found = search(model)
        azure_ml = model.compute.azure_ml
        train_model = AzureMLCommandJobOperator(
            task_id="train_model",
            command=words(model, "train", "--run-key", "{run_key}", *found.arguments),
            inputs=found.inputs,
            environment=azure_ml.environment,
            compute=azure_ml.compute,
            experiment=model.experiment,
            timeout=azure_ml.timeout_seconds,
            outlets=[assets.challenger],
        )

        chain(choose_day(model.model), build_training_set, validate_training_set, *found.tasks, train_model)


for each_model in load_models():
    build(each_model)
