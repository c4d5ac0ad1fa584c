"""Notices days with new or changed files within seconds, and days that were left behind, and hands them to the loop.

**What it does.** A blob-created event on the landing queue wakes it; a sweep every few minutes catches
what an event lost. Either way it compares the landing container with what was ingested: a day whose files are new
or different is handed on. Then it looks at what was built (`ops.built_days`): a day whose features were made before
a day up to it was corrected is handed to `<model>_features`, and a day that a failure, a lost event or a
paused Dag left behind to the stage it needs. Nothing to ask for is a skip.

What was asked for and did not come is asked for again after `schedule.ask_again_minutes`, then after twice that,
and so on up to once a day. Triggered by hand it asks at once for everything but what is on its way: was asked for in
the last seconds, or comes from a stage that runs or ended in the last seconds.

**When a day does not start.** `python -m ml days` tells what each day needs. More new days than
`landing.bulk_days` at once are a history: load it with `<model>_load_history`. More than a week's days wait for
the first sweep after half a minute without a file, for they may become one. A day that is held rests until its
files change. Days older than the newest `features.restate_days` are told in the log and left to a backfill.

**When it is paused.** Nothing is lost: the first sweep after unpausing finds everything.
"""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, task

from ml.config import ModelConfig, load_model, load_models
from mlops.scheduling.assets import assets_of
from mlops.scheduling.sweep import ask, brought_by, read_asked
from mlops.tasks.defaults import dag_arguments


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    sweep = CronTriggerTimetable(model.schedule.sweep, timezone="UTC")
    bring = [asset for asset, _ in brought_by(model.model).values()]
    handed_on = [assets.landed, assets.restate, assets.rescore, assets.remeasure]

    with DAG(
        schedule=AssetOrTimeSchedule(timetable=sweep, assets=[assets.noticed]),
        max_active_runs=1,  # what was asked for is read, added to and written back
        **dag_arguments(model, "arrivals", __doc__),
    ):

        @task(inlets=[assets.asked, *bring], outlets=[*handed_on, assets.asked])
        def find_days(name: str, wait: int, **context) -> dict[str, list[str]]:
            from ml.days import pending

            memory = read_asked(context["inlet_events"][assets.asked])
            wanted = pending.pending_work(load_model(name), memory["ingest"].asked(), context["ti"].start_date)
            return ask(context, name, memory, wanted, minutes=wait)

        find_days(model.model, model.schedule.ask_again_minutes)


for each_model in load_models():
    build(each_model)
