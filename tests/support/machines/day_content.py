"""The rows of a day's partitions, to be compared before and after, and waiting until no day is pending."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from local.nodes import Nodes
from ml.config import load_project
from tests.support.machines.machine import Machine

DAGS = {  # by stage: the Dags through which a day of transactions reaches its scores
    "ingest": "transactions_ingest",
    "features": "customers_features",
    "score": "churn_score",
    "monitor": "churn_monitor",
}
STAGES = tuple(DAGS)
RUN_COLUMNS = ("run_key", "feature_table_version", "_inputs")  # what differs from run to run: keys and table versions
STILL_SECONDS = 15.0  # without progress, then `settle` starts the arrivals Dag

Content = dict[str, list[tuple[Any, ...]]]


def tables_of(source: str) -> dict[str, str]:
    """The tables that a source's days are written to, and all that are built on them, each with its day's column."""
    project = load_project()
    node, nodes = project.sources[source], Nodes.downstream(project, source)
    tables = dict.fromkeys((*node.tables, node.quarantine), "day")
    tables |= {project.feature_tables[name].table_name: "as_of" for name in nodes.tables}
    for model in map(project.models.__getitem__, nodes.models):
        tables |= {model.score.table: "score_date", model.monitor.table: "day"}
    return tables


def content(machine: Machine, day: date, source: str = "transactions") -> Content:
    """Every row of the day in every table of a source and built on it, without the columns that name the run."""
    rows_by_table = {}
    for table, column in tables_of(source).items():
        rows = machine.rows(table, column, str(day))
        rows_by_table[table] = sorted(
            tuple(str(value) for name, value in sorted(row.items()) if name not in RUN_COLUMNS) for row in rows
        )
    return rows_by_table


def runs(machine: Machine, day: date) -> dict[str, set[str]]:
    """The ids of the day's runs, by stage."""
    return {
        stage: {run.run_id for run in machine.airflow.runs(DAGS[stage], partition_key=str(day))} for stage in STAGES
    }


def follow(machine: Machine, day: date, known: dict[str, set[str]], stages: tuple[str, ...] = STAGES) -> None:
    """Wait until each stage has a successful run of the day that is not in `known`."""
    for stage in stages:
        machine.airflow.wait_for_new(DAGS[stage], known[stage], partition_key=str(day))


def settle(machine: Machine, *, by_hand: bool = True, timeout: float = 900) -> dict[str, Any]:
    """Wait until `python -m ml days` reports no day as missing or behind.

    `by_hand`: start the arrivals Dag, as the runbook says, after a while without progress. Started sooner, it would
    request days that are already on their way.
    """
    end, progress_at = time.monotonic() + timeout, time.monotonic()
    previous: dict[str, Any] = {}
    while True:
        facts = machine.ml("days")
        if not facts["missing"] and not facts["behind"]:
            return facts
        assert time.monotonic() < end, f"days are still pending after {timeout:.0f} s: {facts}"
        if facts != previous:
            progress_at, previous = time.monotonic(), facts
        elif by_hand and time.monotonic() - progress_at > STILL_SECONDS:
            machine.airflow.wait(machine.airflow.trigger("arrivals"))
            progress_at = time.monotonic()
        time.sleep(2)


def written(machine: Machine, table: str, day: date) -> list[dict[str, Any]]:
    """The write history of a day's partition."""
    entries: list[dict[str, Any]] = machine.ml("history", table, "--day", str(day))["written"]
    return entries
