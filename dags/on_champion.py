"""A new champion scores the newest days again.

**What it does.** Hands the newest days that have features (`score.rescore_days` of them) to `<model>_score`. Older
scores stay as they were; to score those days again, backfill them with `<model>_calendar`.

**By hand.** Trigger it with `first` and `last`: the current champion then scores all days from `first` to `last` again.
This is needed after a rollback (`<model>_rollback`).

**When it fails.** It only reads which days have features: check that Blob Storage is reachable, then clear the task.
"""

from airflow.sdk import DAG, Param, task

from ml.config import ModelConfig
from mlops.scheduling.assets import assets_of
from mlops.tasks.defaults import dag_arguments, models_to_build


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)

    day = {"type": ["null", "string"], "format": "date"}
    params = {
        "first": Param(None, description="first day to score again; default: the newest days", **day),
        "last": Param(None, description="last day to score again; default: the newest with features", **day),
    }

    with DAG(
        schedule=[assets.champion], max_active_runs=1, params=params, **dag_arguments(model, "on_champion", __doc__)
    ):

        @task(outlets=[assets.rescore])
        def choose_days(table: str, rescore_days: int, *, params, outlet_events) -> list[str]:
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.storage import tables

            featured = [day.isoformat() for day in tables.partition_days(table, "as_of")]
            if params["first"]:
                days = [day for day in featured if params["first"] <= day <= (params["last"] or featured[-1])]
            else:
                days = featured[-rescore_days:] if rescore_days else []
            if not days:
                raise AirflowSkipException(
                    f"no day is scored again: {table} has none of the days, or score.rescore_days is 0"
                )
            outlet_events[assets.rescore].add_partitions(days)
            return days

        choose_days(model.features.table, model.score.rescore_days)


for each_model in models_to_build("on_champion"):
    build(each_model)
