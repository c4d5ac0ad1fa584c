"""A new champion scores the newest days again.

**What it does.** Hands the newest days that have features (`score.rescore_days` of them) to `<model>_score`. Older
scores stay as they were read; to score them again, backfill their days with `<model>_calendar`.

**When it fails.** It only reads which days have features: look whether Blob Storage can be reached, then clear the task.
"""

from airflow.sdk import DAG, task

from ml import config
from mlops.assets import assets_of
from mlops.defaults import dag_arguments


def build(model: config.Model) -> None:
    assets = assets_of(model.model)

    with DAG(schedule=[assets.champion], max_active_runs=1, **dag_arguments(model, "on_champion", __doc__)):

        @task(outlets=[assets.rescore])
        def choose_days(table: str, rescore_days: int, *, outlet_events) -> list[str]:
            from airflow.sdk.exceptions import AirflowSkipException

            from ml import lake

            newest = lake.partition_days(table, "as_of")[-rescore_days:] if rescore_days else []
            if not newest:
                raise AirflowSkipException("score.rescore_days is 0: no day is scored again")
            days = [day.isoformat() for day in newest]
            outlet_events[assets.rescore].add_partitions(days)
            return days

        choose_days(model.features.table, model.score.rescore_days)


for each_model in config.load_all():
    build(each_model)
