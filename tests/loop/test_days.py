"""Days again: by hand, by backfill, and started wrongly."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from local.airflow_api import OVER
from tests.loop.conftest import Machine

pytestmark = [pytest.mark.loop, pytest.mark.timeout(1200)]

TABLES = {
    "silver.transactions": "day",
    "quarantine.transactions": "day",
    "silver.customer_days": "day",
    "features.customers": "as_of",
    "gold.customer_churn_scores": "score_date",
    "gold.drift": "day",
}
MADE_BY = ("run_key", "feature_table_version")  # say which run made a row, so they differ from run to run


def content(machine: Machine, day: date) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for table, column in TABLES.items():
        rows = machine.rows(table, column, str(day))
        found[table] = sorted(
            tuple(str(value) for name, value in sorted(row.items()) if name not in MADE_BY) for row in rows
        )
    return found


def follow(machine: Machine, day: date, known: dict[str, set[str]]) -> None:
    for stage in ("ingest", "features", "score", "monitor"):
        machine.airflow.wait_for_new(f"churn_{stage}", known[stage], partition_key=str(day))


def runs(machine: Machine, day: date) -> dict[str, set[str]]:
    return {
        stage: {run.run_id for run in machine.airflow.runs(f"churn_{stage}", partition_key=str(day))}
        for stage in ("ingest", "features", "score", "monitor")
    }


def test_a_backfill_of_a_range_rebuilds_its_days_row_for_row(machine: Machine, shop_days: list[date]) -> None:
    days = shop_days[-3:-1]
    before = {day: content(machine, day) for day in shop_days[-3:]}
    known = {day: runs(machine, day) for day in shop_days[-3:]}
    machine.python(
        "-m",
        "airflow",
        "backfill",
        "create",
        "--dag-id",
        "churn_calendar",
        "--from-date",
        str(days[0]),
        "--to-date",
        str(days[-1] + timedelta(days=1)),
        "--reprocess-behavior",
        "completed",
    )
    for day in days:
        follow(machine, day, known[day])
    assert {day: content(machine, day) for day in shop_days[-3:]} == before
    assert runs(machine, shop_days[-1]) == known[shop_days[-1]], "a day outside the range was touched"


def test_a_run_without_a_day_fails_and_says_how_to_start_one(machine: Machine, shop_days: list[date]) -> None:
    run = machine.airflow.trigger("churn_features")
    while run.state not in OVER:
        run = next(found for found in machine.airflow.runs("churn_features") if found.run_id == run.run_id)
    assert run.state == "failed"
    told = machine.airflow.explain(run)
    assert "partition_key" in told
    assert "try 1" in told, "nothing can come of trying again"
