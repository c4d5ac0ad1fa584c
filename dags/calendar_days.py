"""Hands on yesterday when it is due, and is the Dag to backfill days with.

**What it does.** Once a day (`due` in the source's config) it checks whether yesterday's files have landed. New or
changed files start the day's stages. A day whose files are ingested already is skipped. A day without files is skipped
too, and the log says that upstream is late: the files will start the day when they land.

**Rebuild days.** A backfill always hands the day on, ingested or not; everything that is built on the source follows:

    airflow backfill create --dag-id <source>_calendar --from-date 2026-11-01 --to-date 2026-11-04 \\
        --reprocess-behavior completed

rebuilds 1, 2 and 3 November (the end is not included). In the UI: this Dag → Trigger → Backfill.

**When it fails.** It only reads the landing container's listing and `ops.ingested_days`: check that Blob Storage is
reachable, then clear the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, CronPartitionTimetable, task

from mlops.partitions import DAY_FORMAT, day_of, run_type
from mlops.scheduling.assets import ASKED, source_assets
from mlops.scheduling.requests import RequestLog
from mlops.scheduling.sweep import read_request_logs
from mlops.tasks.defaults import dag_arguments, for_scheduler, sources_to_build

if TYPE_CHECKING:
    from ml.config import SourceConfig


def build(source: SourceConfig) -> None:
    due_daily = for_scheduler(
        lambda: CronPartitionTimetable(source.due, timezone=source.timezone, run_offset=-1, key_format=DAY_FORMAT)
    )

    with DAG(schedule=due_daily, **dag_arguments(source, "calendar", __doc__)):

        @task(inlets=[ASKED], outlets=[source_assets(source.name).landed])
        def emit_day(name: str, *, inlet_events, **context) -> str:
            """Emit this run's own partition key on `landed`."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml.config import load_source
            from ml.days.due import due_days
            from ml.landing.listing import list_landing
            from ml.ops import held_days, ingested_days

            day = day_of(context)
            landed = list(list_landing(name, [day]).days)
            if not landed:
                raise AirflowSkipException(f"no file has landed for {name} on {day}: upstream is late")
            if run_type(context) == "scheduled":
                log = read_request_logs(inlet_events[ASKED]).get(f"{name}_ingest", RequestLog())
                requested = {day: fingerprint for day, (fingerprint, _) in log.requested().items()}
                held = {day: row["fingerprint"] for day, row in held_days.read(name).items()}
                ingested = ingested_days.ingested_fingerprints(name)
                bulk_days = load_source(name).landing.bulk_days
                if not due_days(landed, ingested, requested, bulk_days, held).days:
                    raise AirflowSkipException(f"{day} is ingested, being ingested or held, with the files that landed")
            return day.isoformat()

        emit_day(source.name)


for each_source in sources_to_build("calendar"):
    build(each_source)
