"""Finds days with new or changed files within seconds, and days that were left behind, and triggers their next stage.

**What it does.** A blob-created event on the landing queue starts it. A sweep every few minutes finds what an event
missed. In both cases it compares the landing container with what was ingested, and hands on each day whose files are
new or changed. Then it checks what was built (`ops.built_days`). A day whose features were computed before an earlier
day was corrected is handed to `<model>_features`. A day that was left behind by a failure, a lost event or a paused Dag
is handed to the stage it needs. When there is nothing to request, the task is skipped.

A request that had no effect is repeated after `schedule.ask_again_minutes`, then after twice that, and so on up to once
a day. A run that is triggered by hand requests everything at once, except what is on its way: a day that was requested
in the last seconds, or that comes from a stage that runs or has ended in the last seconds.

**When a day does not start.** `python -m ml days` prints what each day needs. More new days than `landing.bulk_days`
at once are a history: load it with `<model>_load_history`. More than seven new days wait for the first sweep after half
a minute without a new file, because they may become a history. A held day waits until its files change. Days older
than the newest `features.restate_days` are logged, and a person backfills them.

**When it was paused.** Nothing is lost: the first sweep after unpausing finds everything.
"""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, task

from ml.config import ModelConfig, load_model
from mlops.scheduling.assets import assets_of
from mlops.scheduling.sweep import read_request_logs, request_days, upstream_of
from mlops.tasks.defaults import dag_arguments, models_to_build


def build(model: ModelConfig) -> None:
    assets = assets_of(model.model)
    sweep = CronTriggerTimetable(model.schedule.sweep, timezone="UTC")
    upstream = [upstream.asset for upstream in upstream_of(model.model).values()]
    downstream = [assets.landed, assets.restate, assets.rescore, assets.remeasure]

    with DAG(
        schedule=AssetOrTimeSchedule(timetable=sweep, assets=[assets.noticed]),
        max_active_runs=1,  # the request log is read, changed and written back
        **dag_arguments(model, "arrivals", __doc__),
    ):

        @task(multiple_outputs=True, inlets=[assets.asked, *upstream], outlets=[*downstream, assets.asked])
        def find_days(name: str, wait: int, **context) -> dict[str, list[str]]:
            from ml.days.pending import pending_work

            logs = read_request_logs(context["inlet_events"][assets.asked])
            pending = pending_work(load_model(name), logs["ingest"].requested(), context["ti"].start_date)
            return request_days(context, name, logs, pending, minutes=wait)

        find_days(model.model, model.schedule.ask_again_minutes)


for each_model in models_to_build("arrivals"):
    build(each_model)
