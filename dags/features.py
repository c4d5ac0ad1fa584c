"""The day's features: customers as they were known at the day's end.

**What it does.** Runs `include/sql/features.sql` on Databricks over `silver.customer_days` up to the day, and
replaces the day's partition of `features.customers`. A day before it that was corrected makes it run again
(`<model>_arrivals` sees to that); the journal says because of which days.

**When it fails.** The error says what is missing. Clear the run; nothing else is touched.
"""

from airflow.sdk import DAG

from ml.config import ModelConfig, load_models
from mlops.partitions import DAY, each_day
from mlops.scheduling.assets import assets_of
from mlops.tasks.defaults import dag_arguments
from mlops.tasks.stages import stage_task


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)

    with DAG(
        schedule=each_day(assets.ingested | assets.restate),
        max_active_runs=1,
        **dag_arguments(model, "features", __doc__),
    ):
        stage_task(model, "compute_features", {"features": ["--as-of", DAY]}, outlets=[assets.featured])


for each_model in load_models():
    build(each_model)
