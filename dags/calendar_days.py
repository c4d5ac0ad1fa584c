"""Hands on yesterday when it is due, and is the Dag to backfill days with.

**What it does.** Once a day it checks whether yesterday's files have landed. New or changed files start the day's
stages. A day whose files are ingested already is skipped. A day without files is skipped too, and the log says that
upstream is late: the files will start the day when they land.

**Rebuild days.** A backfill always hands the day on, ingested or not; every later stage follows:

    airflow backfill create --dag-id churn_calendar --from-date 2026-11-01 --to-date 2026-11-04 \\
        --reprocess-behavior completed

rebuilds 1, 2 and 3 November (the end is not included). In the UI: this Dag → Trigger → Backfill.

**When it fails.** It only reads the landing container's listing and `ops.ingested_days`: check that Blob Storage is
reachable, then clear the task.
"""

from airflow.sdk import DAG, CronPartitionTimetable, task

from ml.config import ModelConfig
from mlops.partitions import DAY_FORMAT, day_of, run_type
from mlops.scheduling.assets import assets_of
from mlops.scheduling.sweep import read_request_logs
from mlops.tasks.defaults import dag_arguments, models_to_build


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    due_daily = CronPartitionTimetable(
        model.schedule.calendar, timezone=model.timezone, run_offset=-1, key_format=DAY_FORMAT
    )

    with DAG(schedule=due_daily, **dag_arguments(model, "calendar", __doc__)):

        @task(inlets=[assets.asked], outlets=[assets.landed])
        def emit_day(table: str, bulk_days: int, *, inlet_events, **context) -> str:
            """Emit this run's own partition key on `landed`."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.days.due import due_days
            from ml.landing.listing import list_landing
            from ml.ops import held_days, ingested_days

            day = day_of(context)
            landed = [landed for landed in list_landing(table).days if landed.day == day]
            if not landed:
                raise AirflowSkipException(f"no file has landed for {table} on {day}: upstream is late")
            if run_type(context) == "scheduled":
                log = read_request_logs(inlet_events[assets.asked])["ingest"]
                requested = {day: fingerprint for day, (fingerprint, _) in log.requested().items()}
                held = {day: row["fingerprint"] for day, row in held_days.read().items()}
                if not due_days(landed, ingested_days.ingested_fingerprints(), requested, bulk_days, held).days:
                    raise AirflowSkipException(f"{day} is ingested, being ingested or held, with the files that landed")
            return day.isoformat()

        emit_day(model.landing.table, model.landing.bulk_days)


for each_model in models_to_build("calendar"):
    build(each_model)
