"""The sweep: compares the pending work that the tables show with what Airflow has requested, and requests the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from mlops.partitions import run_type
from mlops.scheduling.assets import ASKED, model_assets, source_assets, table_assets
from mlops.scheduling.requests import IN_TRANSIT, Activity, Request, RequestLog, select_days
from mlops.scheduling.starts import (
    emit_days,
    starts_of_model,
    starts_of_table,
)

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from ml.config import Project


@dataclass(frozen=True)
class NodeDag:
    """The Dag that builds the days of a node, and how a day comes to it."""

    dag_id: str
    request: Asset  # requests a day
    starts: tuple[Asset, ...] = ()  # start a day without a request
    upstream: tuple[str, ...] = ()  # the Dags that emit those


def node_dags(project: Project) -> dict[str, NodeDag]:
    """The Dag of each node of the graph, by node id."""
    dags = {
        source.table: NodeDag(f"{source.name}_ingest", source_assets(source.name).landed)
        for source in project.sources.values()
    }
    for table in project.feature_tables.values():
        dags[table.table_name] = NodeDag(
            f"{table.name}_features",
            table_assets(table.name).restate,
            tuple(starts_of_table(project, table)),
            tuple(_ingestions(project.sources_that_start(table))),
        )
    for model in project.models.values():
        name, assets = model.name, model_assets(model.name)
        if model.examples is not None:
            upstream = tuple(_ingestions([project.source_of(model.examples.table).name]))
        else:
            upstream = tuple(f"{table}_features" for table in project.tables_that_start(model))
        dags[f"{name}.score"] = NodeDag(
            f"{name}_score", assets.rescore, tuple(starts_of_model(project, model)), upstream
        )
        dags[f"{name}.monitor"] = NodeDag(f"{name}_monitor", assets.remeasure, (assets.scored,), (f"{name}_score",))
    return dags


def _ingestions(sources: Iterable[str]) -> Iterator[str]:
    for source in sources:
        yield from (f"{source}_ingest", f"{source}_load_history")


def start_assets(sources: Iterable[str], tables: Iterable[str], models: Iterable[str]) -> list[Asset]:
    """Every asset that may start a day of these nodes without a request. No config file is needed for it."""
    by_table = [table_assets(name) for name in tables]
    by_model = [model_assets(name) for name in models]
    return [
        *(source_assets(name).ingested for name in sources),
        *(asset for assets in by_table for asset in (assets.ready, assets.featured)),
        *(asset for assets in by_model for asset in (assets.ready, assets.scored)),
    ]


def request_assets(sources: Iterable[str], tables: Iterable[str], models: Iterable[str]) -> list[Asset]:
    """Every asset that requests a day of these nodes. No config file is needed for it."""
    return [
        *(source_assets(name).landed for name in sources),
        *(table_assets(name).restate for name in tables),
        *(asset for name in models for asset in (model_assets(name).rescore, model_assets(name).remeasure)),
    ]


def read_request_logs(events: Any) -> dict[str, RequestLog]:
    """The request log of each Dag that has one, from the newest event on the asset `asked`."""
    newest: Sequence[Any] = events.ascending(False).limit(1)
    stored = newest[0].extra if len(newest) else {}
    return {dag_id: RequestLog.from_json(log) for dag_id, log in stored.items()}


def _is_busy(context: Context, dag: NodeDag) -> bool:
    """Whether a Dag has runs that are not over, or an event is about to start one.

    While a run goes on, the tables already show its work: its event comes at its end.
    The later Dag is checked first, so that a day that moves on between the checks is not missed.
    """
    ti = context["ti"]
    if ti.get_dr_count(dag.dag_id, states=["queued", "running"]):
        return True
    if any(ti.get_dr_count(dag_id, states=["running"]) for dag_id in dag.upstream):
        return True
    recently = (ti.start_date - IN_TRANSIT).isoformat()
    return any(len(context["inlet_events"][asset].after(recently)) for asset in dag.starts)


def request_days(
    context: Context,
    dags: Mapping[str, NodeDag],
    logs: Mapping[str, RequestLog],
    pending: Mapping[str, Iterable[Request]],
    minutes: int,
) -> dict[str, list[str]]:
    """Emit the days whose request is due, and record that; both with the task's success, or neither.

    `dags` (`node_dags`) and `pending` (`ml.days.pending.pending_work`) are by node id, `logs` by Dag id. `minutes`: until
    the same request is repeated. Returns the requested days by Dag id. Skips the task when there is nothing to request
    and nothing new to record. Only a node with pending work costs requests to Airflow's API.
    """
    ti = context["ti"]
    wait = timedelta(minutes=minutes)
    manual = run_type(context) == "manual"
    requested: dict[Asset, list[str]] = {}
    result: dict[str, list[str]] = {}
    updated: dict[str, RequestLog] = {}
    for node, requests in ((node, list(requests)) for node, requests in pending.items()):
        if not requests:
            continue
        dag = dags[node]
        log = logs.get(dag.dag_id, RequestLog())
        activity = Activity(ti.get_dr_count(dag.dag_id), _is_busy(context, dag))
        days, updated[dag.dag_id] = select_days(requests, log, activity, ti.start_date, wait, manual=manual)
        if days:
            result[dag.dag_id] = requested[dag.request] = [day.isoformat() for day in days]
    known = {dag_id: log.days for dag_id, log in logs.items()}
    if not requested and all(log.days.items() <= known.get(dag_id, {}).items() for dag_id, log in updated.items()):
        waiting = sum(len(log.days) for log in updated.values())
        raise AirflowSkipException(f"nothing to request; {waiting} days are on their way or will be requested again")
    if requested:
        emit_days(context, requested, "")
    context["outlet_events"][ASKED].extra = {dag_id: log.to_json() for dag_id, log in updated.items()}
    context["task"].outlets = [ASKED, *requested]
    return result
