"""Refreshes the Power BI dataset when there are new scores; green only when the refresh has finished.

**What it does.** In the evening, and by hand, it looks whether the scores table has changed since the last
refresh that succeeded. If so it refreshes the dataset named in the Connection `powerbi_default` and waits for its end.

A refresh that began after this task did shows what is to be shown, whoever asked for it, so none is asked for twice.

**When it fails.** Power BI's own error is in the task's log. Clear the failed task: a refresh replaces the dataset's
content, so doing it again is safe.
"""

from airflow.sdk import DAG, Asset, CronTriggerTimetable, task

from ml.config import ModelConfig, load_models
from mlops.services.power_bi import PowerBIRefreshOperator
from mlops.tasks.defaults import dag_arguments


def build(model: ModelConfig) -> None:
    reported = Asset(f"{model.model}.reported")  # its last event says which version of the scores was shown
    evening = CronTriggerTimetable(model.schedule.report, timezone=model.timezone)

    with DAG(schedule=evening, max_active_runs=1, **dag_arguments(model, "report", __doc__)):

        @task(inlets=[reported])
        def find_changes(table: str, *, inlet_events) -> int:
            """The version of the scores to show; skips when it is the one that was shown last."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.storage import tables

            if not tables.exists(table):
                raise AirflowSkipException(f"{table} is not there yet: nothing to show")
            version = tables.table(table).version()
            shown = inlet_events[reported].ascending(False).limit(1)
            if len(shown) and shown[0].extra.get("version") == version:
                raise AirflowSkipException(f"{table} is still at version {version}, which was shown last")
            return version

        refresh_dataset = PowerBIRefreshOperator(
            task_id="refresh_dataset",
            group_id="{{ conn.powerbi_default.extra_dejson.group_id }}",
            dataset_id="{{ conn.powerbi_default.extra_dejson.dataset_id }}",
            timeout=model.report.timeout_seconds,
        )

        @task(outlets=[reported])
        def note_version(version: int, *, outlet_events) -> int:
            outlet_events[reported].extra = {"version": version}
            return version

        found = find_changes(model.score.table)
        found >> refresh_dataset >> note_version(found)


for each_model in load_models():
    build(each_model)
