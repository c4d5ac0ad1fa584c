"""Days are built again: by a backfill, after a correction, and by wrongly started runs. Slower tests: tests/faults/test_days_again.py."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from local.airflow_api import OVER
from tests.support.machines.day_content import content, follow, runs, settle, written
from tests.support.machines.machine import Machine

pytestmark = [pytest.mark.loop, pytest.mark.timeout(1200)]

SCORES = "gold.customer_churn_scores"


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
        "transactions_calendar",
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


def test_a_corrected_day_is_rebuilt_with_exactly_the_days_that_look_back_on_it(
    machine: Machine, shop_days: list[date]
) -> None:
    """Later days follow once, by themselves; earlier days do not change; the history of the scores says why."""
    first, corrected, last = shop_days[-3:]
    settle(machine)
    before, known = {day: content(machine, day) for day in (first, corrected, last)}, runs(machine, first)
    built = {day: len(written(machine, SCORES, day)) for day in (first, corrected, last)}
    row = machine.rows("silver.transactions", "day", str(corrected))[0]
    correction = (
        "transaction_id,customer_id,occurred_at,product_id,category,channel,country,quantity,unit_price,amount\n"
        f"T-late,{row['customer_id']},{corrected}T12:00:00,P1,books,online,DE,1,9999,9999\n"
    )
    machine.land_file(str(corrected), "late.csv", correction.encode())
    settle(machine)
    for day in (corrected, last):
        assert content(machine, day)["features.customers"] != before[day]["features.customers"]
        history = written(machine, SCORES, day)
        assert len(history) == built[day] + 1
        assert str(corrected) in history[-1]["because"][0]
        assert history[-1]["run_key"].startswith("churn_score")
    assert content(machine, last)["silver.transactions"] == before[last]["silver.transactions"]
    assert content(machine, first) == before[first]
    assert runs(machine, first) == known


def test_a_run_without_a_day_fails_and_says_how_to_start_one(machine: Machine, shop_days: list[date]) -> None:
    run = machine.airflow.trigger("customers_features")
    while run.state not in OVER:
        run = next(r for r in machine.airflow.runs("customers_features") if r.run_id == run.run_id)
    assert run.state == "failed"
    explanation = machine.airflow.explain(run)
    assert "partition_key" in explanation
    assert "try 1" in explanation, "a retry could not succeed"


def test_every_event_that_hands_a_day_on_names_its_day(machine: Machine, shop_days: list[date]) -> None:
    """Airflow drops an event without a day, with a warning in its log."""
    params = {"source_dag_id": "arrivals", "limit": 100}
    events = machine.airflow.call("GET", "/assets/events", params=params)["asset_events"]
    days = {(event["name"], event["partition_key"]) for event in events if event["name"] != "arrivals.asked"}
    assert ("transactions.landed", str(shop_days[-1])) in days
    assert [name for name, day in days if day is None] == []
