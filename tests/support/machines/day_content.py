"""The rows of a day's partitions, to be compared before and after, and waiting until no day is pending."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from tests.support.machines.machine import Machine

TABLES = {
    "silver.transactions": "day",
    "quarantine.transactions": "day",
    "silver.customer_days": "day",
    "features.customers": "as_of",
    "gold.customer_churn_scores": "score_date",
    "gold.drift": "day",
}
RUN_COLUMNS = ("run_key", "feature_table_version")  # name the run that wrote a row, so they differ from run to run
STAGES = ("ingest", "features", "score", "monitor")
STILL_SECONDS = 15.0  # without progress, then `settle` starts the arrivals Dag

Content = dict[str, list[tuple[Any, ...]]]


def content(machine: Machine, day: date) -> Content:
    """Every row of the day in every table, without the columns that name the run."""
    rows_by_table = {}
    for table, column in TABLES.items():
        rows = machine.rows(table, column, str(day))
        rows_by_table[table] = sorted(
            tuple(str(value) for name, value in sorted(row.items()) if name not in RUN_COLUMNS) for row in rows
        )
    return rows_by_table


def runs(machine: Machine, day: date) -> dict[str, set[str]]:
    """The ids of the day's runs, by stage."""
    return {
        stage: {run.run_id for run in machine.airflow.runs(f"churn_{stage}", partition_key=str(day))}
        for stage in STAGES
    }


def follow(machine: Machine, day: date, known: dict[str, set[str]], stages: tuple[str, ...] = STAGES) -> None:
    """Wait until each stage has a successful run of the day that is not in `known`."""
    for stage in stages:
        machine.airflow.wait_for_new(f"churn_{stage}", known[stage], partition_key=str(day))


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
            machine.airflow.wait(machine.airflow.trigger("churn_arrivals"))
            progress_at = time.monotonic()
        time.sleep(2)


def written(machine: Machine, table: str, day: date) -> list[dict[str, Any]]:
    """The write history of a day's partition."""
    entries: list[dict[str, Any]] = machine.ml("history", table, "--day", str(day))["written"]
    return entries
