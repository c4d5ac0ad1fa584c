"""Notices days with new or changed files within seconds and hands their keys to the loop.

**What it does.** A blob-created event on the landing queue wakes it; a sweep every few minutes catches
what an event lost. Either way it compares the listing of the landing container with what was ingested
(`ops.ingested_days`) and with what was already asked for: a day whose files are new or different is
handed on, once. Nothing new is a skip.

**When a day does not start.** Look at this Dag's newest run: its log lists each day and why it was
handed on or not. More new days than `landing.bulk_days` at once are a history: load it with
`<model>_load_history`. A day that failed is not asked for again until its files change: clear its run
in `<model>_ingest`, or backfill it with `<model>_calendar`.

**When it is paused.** Nothing is lost: the first sweep after unpausing finds everything.
"""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, task

from ml import config
from mlops.assets import assets_of, read_asked
from mlops.defaults import dag_arguments


def build(model: config.Model) -> None:
    assets = assets_of(model.model)
    sweep = CronTriggerTimetable(model.schedule.sweep, timezone="UTC")

    with DAG(
        schedule=AssetOrTimeSchedule(timetable=sweep, assets=[assets.noticed]),
        max_active_runs=1,  # what was asked for is read, added to and written back
        **dag_arguments(model, "arrivals", __doc__),
    ):

        @task(inlets=[assets.asked], outlets=[assets.landed, assets.asked])
        def find_days(table: str, bulk_days: int, *, inlet_events, outlet_events) -> list[str]:
            """Keys and the note of what was asked for are stored with this task's success, together or not at all."""
            from airflow.sdk.exceptions import AirflowSkipException

            from ml import land

            found = land.listing(table)
            for stray in found.strays:
                print(f"left where it is: {stray.name}: {stray.why}")
            due = land.due(found.days, land.ingested_fingerprints(), read_asked(inlet_events[assets.asked]), bulk_days)
            if not due.days:
                raise AirflowSkipException(due.why or f"nothing new; {len(due.waiting)} days are being ingested")
            days = [landed.day.isoformat() for landed in due.days]
            outlet_events[assets.landed].add_partitions(days)
            outlet_events[assets.asked].extra = {
                landed.day.isoformat(): landed.fingerprint for landed in (*due.waiting, *due.days)
            }
            return days

        find_days(model.landing.table, model.landing.bulk_days)


for each_model in config.load_all():
    build(each_model)
