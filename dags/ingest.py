"""A landed day into silver and quarantine: copied by Data Factory, cleaned and validated on Databricks.

**What it does.** `list_files` records the day's files and their fingerprint. `copy_files` runs the Data Factory
pipeline `ingest` (landing → bronze). `clean_day` validates the arrival, cleans bronze into silver and quarantine with
every row accounted for, and validates silver. Every write replaces exactly this day's partition, so a day can be run
again at any time. Where a feature table waits for other sources too, `hand_on` starts its day if this source was the
last to come; it is skipped if another one is missing still.

**When it fails.** The task's error names file, row and remedy. Its link opens the remote run, and the log names the
validation report. Only what is built on this source waits.
- *An empty, truncated or wrongly typed file*: ask upstream to send it again. The new file starts the day
  by itself. To accept the day without that file, delete it from landing.
- *"landing changed while it was ingested"*: do nothing, the change has started the day again.
- *Too many rows in quarantine*: look at `quarantine.<source>`; correct the data upstream or raise the limit in config.
- *`hand_on`*: clear it. If nobody does, `arrivals` starts the day within minutes.

**Run a day again.** Clear the run of that partition, or backfill it with `<source>_calendar`. A run that is started by
hand needs a partition key; without one it fails and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, task

from mlops.partitions import DAY, day_of, each_day
from mlops.scheduling.assets import source_assets, table_assets
from mlops.scheduling.starts import emit_days
from mlops.services.data_factory import DataFactoryPipelineOperator
from mlops.tasks.defaults import dag_arguments, project_to_build, sources_to_build, usable_project
from mlops.tasks.stages import ingest_task

if TYPE_CHECKING:
    from ml.config import Project, SourceConfig

COPY_TIMEOUT = 3600  # seconds; a day's files are copied in seconds


def build(source: SourceConfig, project: Project | None) -> None:
    assets = source_assets(source.name)

    with DAG(schedule=each_day(assets.landed), max_active_runs=1, **dag_arguments(source, "ingest", __doc__)):

        @task(multiple_outputs=True)
        def list_files(name: str, **context) -> dict[str, str | int]:
            """Record the day's files now: the copy takes these and no file that lands later."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.landing.listing import list_landing, save_listing
            from remote.run_keys import run_key

            day = day_of(context)
            for landed in list_landing(name, [day]).days:
                listing = save_listing(name, [day], run_key(context))
                return {"fingerprint": landed.fingerprint, "files": len(landed.files), "listing": listing}
            raise AirflowSkipException(f"no file has landed for {name} on {day}")

        copy_files = DataFactoryPipelineOperator(
            task_id="copy_files",
            pipeline="ingest",
            parameters={
                "table": source.name,
                "folder": DAY,
                "copy_log": "bronze/_log/{run_key}",
                "listing": "{{ ti.xcom_pull(task_ids='list_files')['listing'] }}",
            },
            timeout=COPY_TIMEOUT,
        )

        clean_day = ingest_task(
            source.name,
            "clean_day",
            days=DAY,
            fingerprint="{{ ti.xcom_pull(task_ids='list_files')['fingerprint'] }}",
            outlets=[assets.ingested],
            trigger_rule="none_skipped",  # when a file cannot be copied, this task names the file and holds the day
        )
        list_files(source.name) >> copy_files >> clean_day

        tables = project.tables_completed_by(source.name) if project else ()
        if project and not tables:
            return  # each table that is built on it starts on `ingested`

        @task(outlets=[table_assets(table).ready for table in tables])
        def hand_on(name: str, **context) -> None:
            """Emit this day for each feature table whose inputs it completes."""
            from ml.days.completeness import ready_tables
            from remote.run_keys import run_key

            now, days = context["ti"].start_date, [day_of(context)]
            ready = ready_tables(usable_project(), name, days, now, run_key(context))
            emit_days(
                context,
                {table_assets(table).ready: days for table, days in ready.items()},
                "no feature table's day is complete with it: another source is missing still, or has started it",
            )

        clean_day >> hand_on(source.name)


whole_project = project_to_build()
for each_source in sources_to_build("ingest"):
    build(each_source, whole_project)
