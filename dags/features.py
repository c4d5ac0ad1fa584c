"""The day's features: each customer as known at the end of the day.

**What it does.** Runs `include/sql/features.sql` on Databricks over `silver.customer_days` up to the day, and
replaces the day's partition of `features.customers`. When an earlier day is corrected, `<model>_arrivals` starts it
again; the journal (`ops.built_days`) records which days were the reason.

**When it fails.** The error says what is missing. Clear the run; nothing else is affected.
"""

from airflow.sdk import DAG

from ml.config import ModelConfig
from mlops.partitions import DAY, each_day
from mlops.scheduling.assets import assets_of
from mlops.tasks.defaults import dag_arguments, models_to_build
from mlops.tasks.stages import stage_task


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)

    with DAG(
        schedule=each_day(assets.ingested | assets.restate),
        max_active_runs=1,
        **dag_arguments(model, "features", __doc__),
    ):
        stage_task(model, "compute_features", {"features": ["--as-of", DAY]}, outlets=[assets.featured])


for each_model in models_to_build("features"):
    build(each_model)
