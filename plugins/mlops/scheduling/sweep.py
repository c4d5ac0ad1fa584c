"""The sweep: compares the pending work that the tables show with what Airflow has requested, and requests the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from mlops.partitions import run_type
from mlops.scheduling.assets import assets_of
from mlops.scheduling.requests import IN_TRANSIT, Activity, Request, RequestLog, select_days

if TYPE_CHECKING:
    from airflow.sdk import Context

STAGES = ("ingest", "features", "score", "monitor")


@dataclass(frozen=True)
class Upstream:
    """What triggers a stage without the sweep: an asset, and the Dags that emit its events."""

    asset: Asset
    dag_ids: tuple[str, ...]


def read_request_logs(events: Any) -> dict[str, RequestLog]:
    """The request log of each stage, from the newest event on the asset `asked`."""
    newest: Sequence[Any] = events.ascending(False).limit(1)
    stored = newest[0].extra if len(newest) else {}
    return {stage: RequestLog.from_json(stored.get(stage, {})) for stage in STAGES}


def upstream_of(model: str) -> dict[str, Upstream]:
    """The upstream of each stage that follows another one."""
    assets = assets_of(model)
    return {
        "features": Upstream(assets.ingested, (f"{model}_ingest", f"{model}_load_history")),
        "score": Upstream(assets.featured, (f"{model}_features",)),
        "monitor": Upstream(assets.scored, (f"{model}_score",)),
    }


def _is_busy(context: Context, model: str, stage: str) -> bool:
    """Whether a stage has runs that are not over, or an event is about to start one.

    While a run goes on, the tables already show its work: its event comes at its end.
    The later stage is checked first, so that a day that moves on between the checks is not missed.
    """
    ti = context["ti"]
    if ti.get_dr_count(f"{model}_{stage}", states=["queued", "running"]):
        return True
    upstream = upstream_of(model).get(stage)
    if upstream is None:
        return False
    if any(ti.get_dr_count(dag_id, states=["running"]) for dag_id in upstream.dag_ids):
        return True
    recently = (ti.start_date - IN_TRANSIT).isoformat()
    return len(context["inlet_events"][upstream.asset].after(recently)) > 0


def request_days(
    context: Context,
    model: str,
    logs: Mapping[str, RequestLog],
    pending: Mapping[str, Iterable[Request]],
    minutes: int,
) -> dict[str, list[str]]:
    """Emit the days whose request is due, and record that; both with the task's success, or neither.

    `pending`: the pending work per stage (`ml.days.pending.pending_work`). `minutes`: until the same request is
    repeated. Returns the requested days by stage. Skips the task when there is nothing to request and nothing new to
    record.
    """
    assets, ti, events = assets_of(model), context["ti"], context["outlet_events"]
    outlets = {
        "ingest": assets.landed,
        "features": assets.restate,
        "score": assets.rescore,
        "monitor": assets.remeasure,
    }
    wait = timedelta(minutes=minutes)
    manual = run_type(context) == "manual"
    requested, updated = {}, {}
    for stage in STAGES:
        activity = Activity(ti.get_dr_count(f"{model}_{stage}"), _is_busy(context, model, stage))
        days, updated[stage] = select_days(pending[stage], logs[stage], activity, ti.start_date, wait, manual=manual)
        if days:
            requested[stage] = [day.isoformat() for day in days]
            events[outlets[stage]].add_partitions(requested[stage])
    if not requested and all(updated[stage].days.items() <= logs[stage].days.items() for stage in updated):
        waiting = sum(len(log.days) for log in updated.values())
        raise AirflowSkipException(f"nothing to request; {waiting} days are on their way or will be requested again")
    events[assets.asked].extra = {stage: log.to_json() for stage, log in updated.items()}
    # Airflow emits an event for every outlet of the task; for an asset without days it would carry no day.
    context["task"].outlets = [assets.asked, *(outlets[stage] for stage in requested)]
    return requested
