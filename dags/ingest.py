"""A landed day into silver and quarantine: copied by Data Factory, cleaned and validated on Databricks.

**What it does.** `list_files` records the day's files and their fingerprint. `copy_files` runs the Data Factory
pipeline `ingest` (landing → bronze). `clean_day` validates the arrival, cleans bronze into silver and quarantine with
every row accounted for, and validates silver. Every write replaces exactly this day's partition, so a day can be run
again at any time.

**When it fails.** The task's error names file, row and remedy. Its link opens the remote run, and the log names the
validation report.
- *An empty, truncated or wrongly typed file*: ask upstream to send it again. The new file starts the day
  by itself. To accept the day without that file, delete it from landing.
- *"landing changed while it was ingested"*: do nothing, the change has started the day again.
- *Too many rows in quarantine*: look at `quarantine.<table>`; correct the data upstream or raise the limit in config.

**Run a day again.** Clear the run of that partition, or backfill it with `<model>_calendar`. A run that is started by
hand needs a partition key; without one it fails and says so.
"""

from airflow.sdk import DAG, task

from ml.config import ModelConfig
from mlops.partitions import DAY, day_of, each_day
from mlops.scheduling.assets import assets_of
from mlops.services.data_factory import DataFactoryPipelineOperator
from mlops.tasks.defaults import dag_arguments, models_to_build
from mlops.tasks.stages import ingest_task

COPY_TIMEOUT = 3600  # seconds; a day's files are copied in seconds


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)

    with DAG(schedule=each_day(assets.landed), max_active_runs=1, **dag_arguments(model, "ingest", __doc__)):

        @task(multiple_outputs=True)
        def list_files(table: str, **context) -> dict[str, str | int]:
            """Record the day's files now: the copy takes these and no file that lands later."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.landing.listing import list_landing, save_listing
            from remote.run_keys import run_key

            day = day_of(context)
            for landed in list_landing(table).days:
                if landed.day == day:
                    listing = save_listing(table, [day], run_key(context))
                    return {"fingerprint": landed.fingerprint, "files": len(landed.files), "listing": listing}
            raise AirflowSkipException(f"no file has landed for {table} on {day}")

        copy_files = DataFactoryPipelineOperator(
            task_id="copy_files",
            pipeline="ingest",
            parameters={
                "table": model.landing.table,
                "folder": DAY,
                "copy_log": "bronze/_log/{run_key}",
                "listing": "{{ ti.xcom_pull(task_ids='list_files')['listing'] }}",
            },
            timeout=COPY_TIMEOUT,
        )

        clean_day = ingest_task(
            model,
            "clean_day",
            days=DAY,
            fingerprint="{{ ti.xcom_pull(task_ids='list_files')['fingerprint'] }}",
            outlets=[assets.ingested],
            trigger_rule="none_skipped",  # when a file cannot be copied, this task names the file and holds the day
        )

        list_files(model.landing.table) >> copy_files >> clean_day


for each_model in models_to_build("ingest"):
    build(each_model)
