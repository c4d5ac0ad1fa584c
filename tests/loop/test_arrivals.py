"""Arrivals from upstream: new files, the same files again, corrections, and unusable files."""

from __future__ import annotations

import time
from datetime import date, timedelta

import pytest

from local.airflow_api import DagRun
from tests.support.machines.machine import Machine

pytestmark = [pytest.mark.loop, pytest.mark.timeout(1200)]

HEADER = "transaction_id,customer_id,occurred_at,product_id,category,channel,country,quantity,unit_price,amount\n"
GOOD = "T{n},C0000001,{day}T10:00:0{n},P1,books,online,DE,1,9.5,9.5\n"


def after(shop_days: list[date], days: int) -> str:
    return (shop_days[-1] + timedelta(days=days)).isoformat()


def good(day: str, rows: int) -> bytes:
    return (HEADER + "".join(GOOD.format(n=n, day=day) for n in range(rows))).encode()


def next_ingest(machine: Machine, day: str, known: set[str]) -> DagRun:
    """The next run of the day, once it has ended, whatever its state."""
    end = time.monotonic() + 420  # a failed Copy is tried four times
    while time.monotonic() < end:
        new = [run for run in machine.airflow.runs("transactions_ingest", partition_key=day) if run.run_id not in known]
        if new and new[-1].state in ("success", "failed"):
            return new[-1]
        time.sleep(0.5)
    raise AssertionError(f"no run of transactions_ingest for {day} has ended within seven minutes")


def known(machine: Machine, day: str) -> set[str]:
    return {run.run_id for run in machine.airflow.runs("transactions_ingest", partition_key=day)}


def test_a_sweep_that_finds_nothing_new_starts_nothing(machine: Machine, shop_days: list[date]) -> None:
    before = {run.run_id for run in machine.airflow.runs("transactions_ingest")}
    run = machine.airflow.wait(machine.airflow.trigger("arrivals"))
    assert [task["state"] for task in machine.airflow.tasks(run)] == ["skipped"]
    assert {run.run_id for run in machine.airflow.runs("transactions_ingest")} == before


@pytest.mark.parametrize(
    ("offset", "name", "content", "named"),
    [
        pytest.param(2, "empty.csv", b"", "empty.csv", id="an-empty-file"),
        pytest.param(3, "header.csv", HEADER.encode(), "header.csv", id="a-header-without-rows"),
        pytest.param(
            4, "cut.parquet", b"PAR1 and then the connection broke", "cut.parquet", id="a-truncated-parquet-file"
        ),
        pytest.param(
            5,
            "renamed.csv",
            HEADER.replace("customer_id", "client").encode() + b"T1,C1,x,,,,,1,1,1\n",
            "customer_id",
            id="a-missing-column",
        ),
    ],
)
def test_an_unusable_file_holds_its_day_and_the_message_names_the_problem(
    machine: Machine, shop_days: list[date], offset: int, name: str, content: bytes, named: str
) -> None:
    day = after(shop_days, offset)
    before = known(machine, day)
    machine.land_file(day, name, content)
    run = next_ingest(machine, day, before)
    assert run.state == "failed"
    assert named in machine.airflow.explain(run)
    assert machine.rows("silver.transactions", "day", day) == []


def test_another_day_goes_on_while_one_is_held_and_bad_rows_go_to_quarantine(
    machine: Machine, shop_days: list[date]
) -> None:
    day = after(shop_days, 1)
    bad = f"T8,,{day}T10:00:00,,,,,1,1,1\nT9,C2,{day}T10:00:00,,,,,1,one,one\nT7,C2,1970-01-01T00:00:00,,,,,1,1,1\n"
    before = known(machine, day)
    machine.land_file(day, "mixed.csv", good(day, 5) + GOOD.format(n=0, day=day).encode() + bad.encode())
    run = next_ingest(machine, day, before)
    assert run.state == "success", machine.airflow.explain(run)
    account = machine.ingested(day)
    assert (account["received"], account["silver"], account["quarantined"], account["duplicates"]) == (9, 5, 3, 1)
    refused = machine.rows("quarantine.transactions", "day", day)
    assert {row["column"] for row in refused} == {"customer_id", "occurred_at", "amount"} or len(refused) == 3
    for row in refused:
        assert row["reason"]
        assert row["remedy"]
        assert row["_file"].endswith("mixed.csv")


def test_a_corrected_file_rebuilds_its_day(machine: Machine, shop_days: list[date]) -> None:
    day = after(shop_days, 1)
    before = known(machine, day)
    scores = {run.run_id for run in machine.airflow.runs("churn_score", partition_key=day)}
    machine.land_file(day, "mixed.csv", good(day, 7))
    run = next_ingest(machine, day, before)
    assert run.state == "success", machine.airflow.explain(run)
    account = machine.ingested(day)
    assert (account["received"], account["silver"], account["quarantined"]) == (7, 7, 0)
    machine.airflow.wait_for_new("churn_score", scores, partition_key=day)
