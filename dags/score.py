"""The scores of a day.

**What it does.** Scores the rows of the day that belong to the model's population, and replaces the day's partition of
the scores table. A day that was never scored is scored by the champion; a day that is scored again, by the version that
scored it first, or the one that took its place. Each row names the model version, the versions of the feature tables and
the run key that produced it. While there is no champion, it skips. While versions of a feature table are built side by
side, it skips a day that the other version has started.

**Score a day again.** Trigger it with the day as partition key: a run that is started by hand scores with the champion of
now. A new champion scores the newest days again by itself (`score.rescore_days`); `<model>_on_champion` takes any days.
Clearing a run repeats it as it was. `python -m ml history <scores table> --day D` prints which version scored the day
when, and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG

from mlops.partitions import DAY, MANUAL, each_day
from mlops.scheduling.assets import model_assets
from mlops.scheduling.starts import starts_of_model
from mlops.tasks.defaults import dag_arguments, models_to_build, project_to_build
from mlops.tasks.stages import stage_task

if TYPE_CHECKING:
    from ml.config import ModelConfig, Project


def build(model: ModelConfig, project: Project | None) -> None:
    assets = model_assets(model.name)
    starts = starts_of_model(project, model) if project else ()

    with DAG(schedule=each_day(*starts, assets.rescore), max_active_runs=1, **dag_arguments(model, "score", __doc__)):
        champion = "{{ '--champion' if " + MANUAL + " else '' }}"
        stage_task("score_day", {"score": ["--day", DAY, champion]}, model=model.name, outlets=[assets.scored])


whole_project = project_to_build()
for each_model in models_to_build("score"):
    build(each_model, whole_project)
