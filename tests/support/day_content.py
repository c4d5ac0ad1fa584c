"""What a day's partitions hold, to be compared before and after; and when everything has come to rest."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from tests.support.machine import Machine

TABLES = {
    "silver.transactions": "day",
    "quarantine.transactions": "day",
    "silver.customer_days": "day",
    "features.customers": "as_of",
    "gold.customer_churn_scores": "score_date",
    "gold.drift": "day",
}
MADE_BY = ("run_key", "feature_table_version")  # say which run made a row, so they differ from run to run
STAGES = ("ingest", "features", "score", "monitor")
STILL = 15.0  # seconds

Content = dict[str, list[tuple[Any, ...]]]


def content(machine: Machine, day: date) -> Content:
    """Every row of the day in every table, but for what says which run made it."""
    found = {}
    for table, column in TABLES.items():
        rows = machine.rows(table, column, str(day))
        found[table] = sorted(
            tuple(str(value) for name, value in sorted(row.items()) if name not in MADE_BY) for row in rows
        )
    return found


def runs(machine: Machine, day: date) -> dict[str, set[str]]:
    """The runs that each stage has had of the day."""
    return {
        stage: {run.run_id for run in machine.airflow.runs(f"churn_{stage}", partition_key=str(day))}
        for stage in STAGES
    }


def follow(machine: Machine, day: date, known: dict[str, set[str]], stages: tuple[str, ...] = STAGES) -> None:
    """Wait until each of the stages has had a run of the day that is not in `known`, and it ended well."""
    for stage in stages:
        machine.airflow.wait_for_new(f"churn_{stage}", known[stage], partition_key=str(day))


def settle(machine: Machine, *, by_hand: bool = True, timeout: float = 900) -> dict[str, Any]:
    """Wait until nothing is missing or behind, as `python -m ml days` tells it.

    `by_hand`: ask as the runbook says when nothing has moved for a while. Who asks sooner asks for what is on its way.
    """
    end, moved, seen = time.monotonic() + timeout, time.monotonic(), {}
    while True:
        facts = machine.ml("days")
        if not facts["missing"] and not facts["behind"]:
            return facts
        assert time.monotonic() < end, f"still not done after {timeout:.0f} s: {facts}"
        if facts != seen:
            moved, seen = time.monotonic(), facts
        elif by_hand and time.monotonic() - moved > STILL:
            machine.airflow.wait(machine.airflow.trigger("churn_arrivals"))
            moved = time.monotonic()
        time.sleep(2)


def written(machine: Machine, table: str, day: date) -> list[dict[str, Any]]:
    """The history of a day's partition."""
    found: list[dict[str, Any]] = machine.ml("history", table, "--day", str(day))["written"]
    return found
