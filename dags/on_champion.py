"""A new champion scores the newest days again.

**What it does.** Requests the newest days that have features (`score.rescore_days` of them) to be scored by the champion
of now (`ops.score_requests`), and hands them to `<model>_score`. Older scores stay as people have read them.

**By hand.** Trigger it with `first` and `last`: the current champion then scores all days from `first` to `last` again.
This is needed after a rollback (`<model>_rollback`), for days older than the newest ones.

**When it fails.** It only reads which days have features: check that Blob Storage is reachable, then clear the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, Param, task

from mlops.scheduling.assets import model_assets
from mlops.scheduling.starts import emit_days
from mlops.tasks.defaults import dag_arguments, models_to_build

if TYPE_CHECKING:
    from ml.config import ModelConfig


def build(model: ModelConfig) -> None:
    assets = model_assets(model.name)

    day = {"type": ["null", "string"], "format": "date"}
    params = {
        "first": Param(None, description="first day to score again; default: the newest days", **day),
        "last": Param(None, description="last day to score again; default: the newest with features", **day),
    }

    with DAG(
        schedule=[assets.champion], max_active_runs=1, params=params, **dag_arguments(model, "on_champion", __doc__)
    ):

        @task(outlets=[assets.rescore])
        def choose_days(name: str, *, params, **context) -> list[str]:
            from ml.score import requests
            from remote.run_keys import run_key

            days = requests.choose_days(name, first=params["first"], last=params["last"], run_key=run_key(context))
            emit_days(
                context,
                {assets.rescore: days},
                "no day is scored again: there are no features of these days, or score.rescore_days is 0",
            )
            return days

        choose_days(model.name)


for each_model in models_to_build("on_champion"):
    build(each_model)
