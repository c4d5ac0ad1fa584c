"""Refreshes the model's Power BI dataset when there are new scores; it succeeds only when the refresh has completed.

**What it does.** In the evening, and by hand, it checks whether the scores table has changed since the last refresh
that succeeded. If so, it refreshes the dataset that the Connection `report.connection` names, and waits for the end.
Each model has a Connection and a dataset of its own; a model without `report` in its config has no such Dag.

A refresh that began after this task started shows the new scores, whoever requested it: the task attaches to it and
requests no second one.

**When it fails.** Power BI's own error is in the task's log. Clear the failed task: a refresh replaces the dataset's
content, so it can be repeated safely.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow.sdk import DAG, CronTriggerTimetable, task

from mlops.scheduling.assets import model_assets
from mlops.services.power_bi import PowerBIRefreshOperator
from mlops.tasks.defaults import dag_arguments, for_scheduler, models_to_build

if TYPE_CHECKING:
    from ml.config import ModelConfig


def build(model: ModelConfig) -> None:
    if model.report is None:
        return
    reported = model_assets(model.name).reported
    extra = f"conn[{json.dumps(model.report.connection)}].extra_dejson"
    evening = for_scheduler(lambda: CronTriggerTimetable(model.schedule.report, timezone=model.timezone))

    with DAG(schedule=evening, max_active_runs=1, **dag_arguments(model, "report", __doc__)):

        @task(inlets=[reported])
        def find_changes(table: str, *, inlet_events) -> int:
            """The version of the scores to show. Skips when it is shown already."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.storage import tables

            if not tables.exists(table):
                raise AirflowSkipException(f"the table {table} does not exist yet: nothing to show")
            version = tables.table(table).version()
            shown = inlet_events[reported].ascending(False).limit(1)
            if len(shown) and shown[0].extra.get("version") == version:
                raise AirflowSkipException(f"{table} is still at version {version}, which is shown already")
            return version

        refresh_dataset = PowerBIRefreshOperator(
            task_id="refresh_dataset",
            group_id="{{ " + extra + ".group_id }}",
            dataset_id="{{ " + extra + ".dataset_id }}",
            timeout=model.report.timeout_seconds,
            conn_id=model.report.connection,
        )

        @task(outlets=[reported])
        def note_version(version: int, *, outlet_events) -> int:
            outlet_events[reported].extra = {"version": version}
            return version

        version = find_changes(model.score.table)
        version >> refresh_dataset >> note_version(version)


for each_model in models_to_build("report"):
    build(each_model)
