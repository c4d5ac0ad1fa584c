"""Loads a history of landed days in bulk: one run for many days, started by hand.

**What it does.** Copies every landed day to bronze, cleans the days from `first` to `last` in one pass, and hands the
last one on, so that its features and scores follow. The days in between get no scores of their own; backfill those
that need some with `<model>_calendar`.

**When to use it.** When a system is filled for the first time, or when `<model>_arrivals` says that more
days are new than `landing.bulk_days`.

**When it fails.** As for `<model>_ingest`: the error names file, row and remedy. Correct the cause and clear the task;
every write replaces exactly the requested days.
"""

from airflow.sdk import DAG, Param, task

from ml.config import ModelConfig
from mlops.scheduling.assets import assets_of
from mlops.services.data_factory import DataFactoryPipelineOperator
from mlops.tasks.defaults import dag_arguments, models_to_build
from mlops.tasks.stages import ingest_task

COPY_TIMEOUT = 6 * 3600  # seconds; years of files


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    params = {
        "first": Param(type="string", format="date", description="first day to load"),
        "last": Param(type="string", format="date", description="last day to load; it is handed on"),
    }

    with DAG(schedule=None, max_active_runs=1, params=params, **dag_arguments(model, "load_history", __doc__)):

        @task
        def note_files(table: str, **context) -> str:
            """Record the landed files now: a day that changes during the copy is left to a run of its own."""
            from ml.landing.listing import save_listing
            from remote.run_keys import run_key

            return save_listing(table, None, run_key(context))

        copy_files = DataFactoryPipelineOperator(
            task_id="copy_files",
            pipeline="ingest",
            parameters={
                "table": model.landing.table,
                "folder": "*",
                "copy_log": "bronze/_log/{run_key}",
                "listing": "{{ ti.xcom_pull(task_ids='note_files') }}",
            },
            timeout=COPY_TIMEOUT,
        )
        clean_days = ingest_task(
            model,
            "clean_days",
            days="{{ params.first }}..{{ params.last }}",
            listing="{{ ti.xcom_pull(task_ids='note_files') }}",
            follow="{{ params.last }}",
            per_day=False,
            trigger_rule="none_skipped",  # a file that cannot be copied holds its own day, not all the others
        )

        @task(outlets=[assets.ingested])
        def hand_on(last: str, *, outlet_events) -> str:
            outlet_events[assets.ingested].add_partitions(last)
            return last

        note_files(model.landing.table) >> copy_files >> clean_days >> hand_on("{{ params.last }}")


for each_model in models_to_build("load_history"):
    build(each_model)
