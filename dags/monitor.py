"""Measures whether the day's data has drifted away from the data that the champion was trained on.

**What it does.** Compares each feature's distribution on the day with the champion's training reference (PSI),
replaces the day's rows in the drift table and writes a page with both histograms.

**When it shows drift.** Open the page named in the task's facts. A feature that jumps on one day is nearly always
an upstream fault. Several features that move slowly mean that the model should be trained again: trigger
`<model>_train`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG

from mlops.partitions import DAY, each_day
from mlops.scheduling.assets import model_assets
from mlops.tasks.defaults import dag_arguments, models_to_build
from mlops.tasks.stages import stage_task

if TYPE_CHECKING:
    from ml.config import ModelConfig


def build(model: ModelConfig) -> None:
    assets = model_assets(model.name)

    with DAG(
        schedule=each_day(assets.scored | assets.remeasure),
        max_active_runs=1,
        **dag_arguments(model, "monitor", __doc__),
    ):
        stage_task("measure_drift", {"monitor": ["--day", DAY]}, model=model.name)


for each_model in models_to_build("monitor"):
    build(each_model)
