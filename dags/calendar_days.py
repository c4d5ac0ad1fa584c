"""The day is due: hands yesterday's key to the loop, and is where days are backfilled.

**What it does.** Once a day it looks whether yesterday's files are there. A day that was already
ingested as it stands is left alone; new or changed files start the loop for that day; no files at all
is a skip that says so (upstream is late: the arrival will start the day).

**Rebuild days.** A backfill always hands the day on, ingested or not; every later stage follows:

    airflow backfill create --dag-id churn_calendar --from-date 2026-11-01 --to-date 2026-11-04 \\
        --reprocess-behavior completed

rebuilds 1, 2 and 3 November (the end is not included). In the UI: this Dag → Trigger → Backfill.

**When it fails.** It only reads the landing listing and `ops.ingested_days`: look whether Blob Storage
can be reached, then clear the task.
"""

from airflow.sdk import DAG, CronPartitionTimetable, task

from ml.config import ModelConfig, load_models
from mlops.partitions import DAY_FORMAT, day_of, started
from mlops.scheduling.assets import assets_of
from mlops.scheduling.sweep import read_asked
from mlops.tasks.defaults import dag_arguments


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    due_daily = CronPartitionTimetable(
        model.schedule.calendar, timezone=model.timezone, run_offset=-1, key_format=DAY_FORMAT
    )

    with DAG(schedule=due_daily, **dag_arguments(model, "calendar", __doc__)):

        @task(inlets=[assets.asked], outlets=[assets.landed])
        def emit_day(table: str, bulk_days: int, *, inlet_events, **context) -> str:
            """The event on `landed` carries this run's own key."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.days import due
            from ml.landing import listing
            from ml.ops import held_days, ingested_days

            day = day_of(context)
            landed = [found for found in listing.list_landing(table).days if found.day == day]
            if not landed:
                raise AirflowSkipException(f"nothing has landed for {table} on {day}: upstream is late")
            if started(context) == "scheduled":
                asked = {day: of for day, (of, _) in read_asked(inlet_events[assets.asked])["ingest"].asked().items()}
                held = {day: row["fingerprint"] for day, row in held_days.read().items()}
                if not due.due_days(landed, ingested_days.ingested_fingerprints(), asked, bulk_days, held).days:
                    raise AirflowSkipException(f"{day} is ingested, being ingested, or held, as it has landed")
            return day.isoformat()

        emit_day(model.landing.table, model.landing.bulk_days)


for each_model in load_models():
    build(each_model)
