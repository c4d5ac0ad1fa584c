"""Loads a history of landed days in bulk: one run for many days, started by hand.

**What it does.** Copies every landed day to bronze, cleans the days from `first` to `last` in one pass, and hands the
last one on, so that features and scores of that day follow once all their sources have it. The days in between get no
scores of their own; backfill those that need some with `<source>_calendar`.

**When to use it.** When a system is filled for the first time, or when `arrivals` says that more days are new than
`landing.bulk_days`. Load reference tables before the facts that are joined with them.

**When it fails.** As for `<source>_ingest`: the error names file, row and remedy. Correct the cause and clear the task;
every write replaces exactly the requested days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, Param, task

from mlops.scheduling.assets import source_assets, table_assets
from mlops.scheduling.starts import emit_days
from mlops.services.data_factory import DataFactoryPipelineOperator
from mlops.tasks.defaults import dag_arguments, project_to_build, sources_to_build, usable_project
from mlops.tasks.stages import ingest_task

if TYPE_CHECKING:
    from ml.config import Project, SourceConfig

COPY_TIMEOUT = 6 * 3600  # seconds; years of files


def build(source: SourceConfig, project: Project | None) -> None:
    ingested = source_assets(source.name).ingested
    tables = project.tables_completed_by(source.name) if project else ()
    params = {
        "first": Param(type="string", format="date", description="first day to load"),
        "last": Param(type="string", format="date", description="last day to load; it is handed on"),
    }

    with DAG(schedule=None, max_active_runs=1, params=params, **dag_arguments(source, "load_history", __doc__)):

        @task
        def note_files(name: str, **context) -> str:
            """Record the landed files now: a day that changes during the copy is left to a run of its own."""
            from ml.landing.listing import save_listing
            from remote.run_keys import run_key

            return save_listing(name, None, run_key(context))

        copy_files = DataFactoryPipelineOperator(
            task_id="copy_files",
            pipeline="ingest",
            parameters={
                "table": source.name,
                "folder": "*",
                "copy_log": "bronze/_log/{run_key}",
                "listing": "{{ ti.xcom_pull(task_ids='note_files') }}",
            },
            timeout=COPY_TIMEOUT,
        )
        clean_days = ingest_task(
            source.name,
            "clean_days",
            days="{{ params.first }}..{{ params.last }}",
            listing="{{ ti.xcom_pull(task_ids='note_files') }}",
            follow="{{ params.last }}",
            per_day=False,
            trigger_rule="none_skipped",  # a file that cannot be copied holds its own day, not all the others
        )

        @task(outlets=[ingested, *(table_assets(table).ready for table in tables)])
        def hand_on(name: str, last: str, **context) -> str:
            """Emit the last day as ingested, and for each feature table whose inputs it completes."""
            from datetime import date

            from ml.days.completeness import ready_tables
            from remote.run_keys import run_key

            now, days = context["ti"].start_date, [date.fromisoformat(last)]
            ready = ready_tables(usable_project(), name, days, now, run_key(context))
            emit_days(context, {ingested: days, **{table_assets(t).ready: days for t, days in ready.items()}}, "")
            return last

        note_files(source.name) >> copy_files >> clean_days >> hand_on(source.name, "{{ params.last }}")


whole_project = project_to_build()
for each_source in sources_to_build("load_history"):
    build(each_source, whole_project)
