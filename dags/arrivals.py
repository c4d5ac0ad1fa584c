"""Finds days with new or changed files within seconds, and days that were left behind, and triggers their next stage.

**What it does.** One Dag for all sources, feature tables and models. A blob-created event on the landing queue starts
it, and so does a sweep every few minutes, which finds what an event missed. It compares the landing container with what
was ingested, source by source, and hands on each day whose files are new or changed. Then it compares what every node
was built from (`ops.built_days`) with what the tables hold now. A day that was built before its inputs changed, or that
was left behind by a failure, a lost event or a paused Dag, is handed to the Dag of its node: `<source>_ingest`,
`<table>_features`, `<model>_score` or `<model>_monitor`. When there is nothing to request, the task is skipped.

A request that had no effect is repeated after `arrivals.ask_again_minutes` (config/platform.yaml), then after twice that,
and so on up to once a day. A run that is triggered by hand requests everything at once, except what is on its way: a day
that was requested in the last seconds, or that comes from a stage that runs or has ended in the last seconds.

**When a day does not start.** `python -m ml days` prints what each day needs. More new days of a source than its
`landing.bulk_days` at once are a history: load it with `<source>_load_history`. More than seven new days wait for the
first sweep after half a minute without a new file, because they may become a history. A held day waits until its files
change. Days older than the newest `rebuild.restate_days` of a feature table are logged, and a person backfills them.

**When a config file is broken.** Its node, and what is built on it, is left out until the file is corrected, and the log
says what is wrong; Airflow's import error of `config_errors.py` says it too. All other nodes go on.

**When it was paused.** Nothing is lost: the first sweep after unpausing finds everything.
"""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, task

from ml.config import load_platform
from mlops.scheduling.assets import ASKED, noticed
from mlops.scheduling.sweep import node_dags, read_request_logs, request_assets, request_days, start_assets
from mlops.tasks.defaults import NodeNames, dag_arguments, for_scheduler, names_to_build, usable_project


def build(names: NodeNames) -> None:
    nodes = (names.sources, names.tables, names.models)
    arrivals = load_platform().arrivals
    events_and_sweep = for_scheduler(
        lambda: AssetOrTimeSchedule(timetable=CronTriggerTimetable(arrivals.sweep, timezone="UTC"), assets=[noticed()])
    )

    with DAG(
        schedule=events_and_sweep,
        max_active_runs=1,  # the request log is read, changed and written back
        **dag_arguments(None, "arrivals", __doc__),
    ):

        @task(multiple_outputs=True, inlets=[ASKED, *start_assets(*nodes)], outlets=[ASKED, *request_assets(*nodes)])
        def find_days(minutes: int, **context) -> dict[str, list[str]]:
            from ml.days.pending import pending_work

            project = usable_project()
            dags, logs = node_dags(project), read_request_logs(context["inlet_events"][ASKED])
            requested = {node: logs[dag.dag_id].requested() for node, dag in dags.items() if dag.dag_id in logs}
            pending = pending_work(project, requested, context["ti"].start_date)
            return request_days(context, dags, logs, pending, minutes)

        find_days(arrivals.ask_again_minutes)


if names_of_all := names_to_build("arrivals"):
    build(names_of_all)
