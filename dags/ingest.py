"""A landed day into silver and quarantine: copied by Data Factory, cleaned and validated on Databricks.

**What it does.** `list_files` takes the fingerprint of the day's files; `copy_files` runs the Data
Factory pipeline `ingest` (landing → bronze); `clean_day` validates the arrival, cleans bronze into
silver and quarantine with every row accounted for, and validates silver. Every write replaces exactly
this day, so a day can be run again at any time.

**When it fails.** The task's error names file, row and remedy; its link leads to the remote run, and the
validation report is named in the log.
- *An empty, truncated or wrongly typed file*: ask upstream to send it again. The new file starts the day
  by itself. To accept the day without that file, delete it from landing.
- *"landing changed while it was ingested"*: nothing to do, the change has started the day again.
- *Too many rows in quarantine*: look at `quarantine.<table>`; mend upstream or raise the limit in config.

**Run a day again.** Clear the run of that partition, or backfill it with `<model>_calendar`. Started by
hand it needs a partition key; without one it fails and says so.
"""

from airflow.sdk import DAG, task

from ml.config import ModelConfig, load_models
from mlops.partitions import DAY, day_of, each_day
from mlops.scheduling.assets import assets_of
from mlops.services.data_factory import DataFactoryPipelineOperator
from mlops.tasks.defaults import dag_arguments
from mlops.tasks.stages import ingest_task

COPY_TIMEOUT = 3600  # seconds; a day's files are copied in seconds


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)

    with DAG(schedule=each_day(assets.landed), max_active_runs=1, **dag_arguments(model, "ingest", __doc__)):

        @task
        def list_files(table: str, **context) -> dict[str, str | int]:
            """What is there now, written down: what is copied from here on belongs to it, or is not taken."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.landing.listing import list_landing, save_listing
            from remote.run_keys import run_key

            day = day_of(context)
            for landed in list_landing(table).days:
                if landed.day == day:
                    listing = save_listing(table, [day], run_key(context))
                    return {"fingerprint": landed.fingerprint, "files": len(landed.files), "listing": listing}
            raise AirflowSkipException(f"nothing has landed for {table} on {day}")

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
            trigger_rule="none_skipped",  # a file that cannot be copied is told by name, and its day is held for it
        )

        list_files(model.landing.table) >> copy_files >> clean_day


for each_model in load_models():
    build(each_model)
