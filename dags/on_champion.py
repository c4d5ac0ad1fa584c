"""A new champion scores the newest days again.

**What it does.** Hands the newest days that have features (`score.rescore_days` of them) to `<model>_score`. Older
scores stay as they were read; to score them again, backfill their days with `<model>_calendar`.

**By hand.** Trigger it with `first` and `last` to have all days from one to the other scored again by the champion of
now: after a champion that was wrong was taken back (`<model>_promote`).

**When it fails.** It only reads which days have features: look whether Blob Storage can be reached, then clear the task.
"""

from airflow.sdk import DAG, Param, task

from ml.config import ModelConfig, load_models
from mlops.scheduling.assets import assets_of
from mlops.tasks.defaults import dag_arguments


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

            known = [day.isoformat() for day in tables.partition_days(table, "as_of")]
            if params["first"]:
                days = [day for day in known if params["first"] <= day <= (params["last"] or known[-1])]
            else:
                days = known[-rescore_days:] if rescore_days else []
            if not days:
                raise AirflowSkipException("no such day has features, or score.rescore_days is 0: none is scored again")
            outlet_events[assets.rescore].add_partitions(days)
            return days

        choose_days(model.features.table, model.score.rescore_days)


for each_model in load_models():
    build(each_model)
