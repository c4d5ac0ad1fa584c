"""Has the day drifted away from what the champion was trained on?

**What it does.** Compares each feature's distribution of the day with the champion's training reference (PSI),
replaces the day's rows in the drift table and keeps a page with both histograms.

**When it shows drift.** Open the page named in the task's facts. A feature that jumps on one day is nearly always
an upstream fault; several that creep mean the model should be trained again: trigger `<model>_train`.
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
        schedule=each_day(assets.scored | assets.remeasure),
        max_active_runs=1,
        **dag_arguments(model, "monitor", __doc__),
    ):
        stage_task(model, "measure_drift", {"monitor": ["--day", DAY]})


for each_model in load_models():
    build(each_model)
