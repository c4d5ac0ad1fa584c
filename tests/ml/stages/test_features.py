"""Features as of a day: the value of each, and that facts of later days have no effect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from ml import cli
from ml.engine import open_engine
from ml.storage import tables
from tests.support.data.built_days import mark_ingested
from tests.support.data.customer_days import customer_days

D = date(2024, 3, 1)


def line(ago: int, amount: float = 10.0, **other: Any) -> dict[str, Any]:
    """A line of customer 'c', `ago` days before D."""
    day = D - timedelta(ago)
    usual = {
        "customer_id": "c", "transaction_id": None, "occurred_at": datetime.combine(day, time(12), UTC),
        "channel": "online", "quantity": 1.0 if amount >= 0 else -1.0, "kind": "purchase" if amount >= 0 else "return",
        "_file": "f.csv",
    }  # fmt: skip
    return usual | {"day": day, "amount": amount} | other


def features(*lines: dict[str, Any]) -> Mapping[str, Any]:
    """Those of customer 'c' as of D."""
    rows = open_engine("duckdb").run(
        "features/customers", {"customer_days": customer_days(list(lines))}, {"as_of": D, "active_days": 90}
    )
    row: Mapping[str, Any] = rows.filter(pc.equal(rows["customer_id"], "c")).to_pylist()[0]
    return row


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([line(0)], {"recency_days": 0, "tenure_days": 0, "active": True}, id="bought-on-the-day-itself"),
        pytest.param([line(89)], {"orders_90d": 1, "active": True}, id="ninety-days-include-the-day"),
        pytest.param([line(90)], {"orders_90d": 0, "orders": 1, "active": False}, id="the-ninetieth-day-before-is-out"),
        pytest.param([line(29), line(30)], {"orders_30d": 1, "amount_30d": 10.0, "amount_90d": 20.0}, id="thirty-days"),
        pytest.param([line(-1), line(5)], {"orders": 1, "recency_days": 5}, id="tomorrow-is-not-known"),
        pytest.param(
            [line(5, -3.0)],
            {"orders": 0, "recency_days": None, "tenure_days": None, "amount": -3.0, "returns": 1, "active": False,
             "mean_order_amount": None, "amount_per_month": None, "online_preference_ratio": None},
            id="returns-only",
        ),
        pytest.param([line(5), line(1, -10.0)], {"recency_days": 5, "amount": 0.0, "orders": 1}, id="a-return-is-no-visit"),
        pytest.param([line(5, 0.0)], {"orders": 1, "mean_order_amount": 0.0, "active": True}, id="bought-for-nothing"),
        pytest.param([line(5, transaction_id="t"), line(5, 5.0, transaction_id="t")],
                     {"orders": 1, "mean_order_amount": 15.0, "max_order_amount": 15.0}, id="lines-of-one-order"),
        pytest.param([line(5), line(5, 5.0)],
                     {"orders": 2, "mean_order_amount": 7.5, "max_order_amount": 10.0}, id="lines-without-id-are-orders"),
        pytest.param([line(1), line(20), line(60)], {"active_months": 2, "amount_per_month": 15.0}, id="calendar-months"),
        pytest.param([line(1, 40.0), line(40, 10.0), line(70, 20.0)], {"amount_trend": 25.0}, id="trend"),
        pytest.param([line(1, category="x"), line(2, category="x"), line(3, category="y"), line(4)],
                     {"categories": 2}, id="a-missing-category-is-none"),
        pytest.param([line(1), line(2), line(3, channel="store"), line(4, channel=None)],
                     {"online_orders": 2, "store_orders": 1, "online_preference_ratio": 2 / 3}, id="channels"),
        pytest.param([line(1, channel=None)], {"online_preference_ratio": None}, id="no-channel-known"),
        pytest.param([line(9, country="FR"), line(2, country="DE"), line(1)], {"country": "DE"}, id="last-known-country"),
        pytest.param([line(1, country="FR"), line(1, country="DE")], {"country": "DE"}, id="later-row-breaks-the-tie"),
        pytest.param([line(n % 7, 0.1) for n in range(1000)], {"amount": 100.0}, id="tenths-add-up-exactly"),
    ],
)  # fmt: skip
def test_features_as_of_a_day(lines: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    row = features(*lines)
    assert {name: row[name] for name in expected} == expected


def test_an_order_in_two_channels_counts_in_both() -> None:
    row = features(line(1, transaction_id="t"), line(1, transaction_id="t", channel="store"))
    assert (row["orders"], row["online_orders"], row["store_orders"]) == (1, 1, 1)


def test_sums_do_not_depend_on_the_order_of_the_rows() -> None:
    lines = [line(n % 5, amount) for n, amount in enumerate([1e15 / 1e9, 0.1, -0.2, 0.3, 7.77, 1e-4] * 50)]
    assert features(*lines) == features(*reversed(lines))


@pytest.fixture
def ingested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake in which the days to D - 1 are ingested, and rows of customer 'c' lie on D - 10 and D + 3."""
    monkeypatch.setenv("LAKE_URI", tmp_path.as_uri())
    tables.replace(
        "silver.customer_days", customer_days([line(10), line(-3)]), "day IS NOT NULL", partition_by=["month"]
    )
    mark_ingested("transactions", [D - timedelta(n) for n in range(20, 0, -1)], {"silver.customer_days": "a"})
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], as_of: str) -> dict[str, Any]:
    cli.main(["features", "--table", "customers", "--as-of", as_of, "--run-key", "k"])
    facts: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return facts


def test_refuses_a_day_before_anything_was_ingested(ingested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "2024-02-01,2024-02-20")
    assert "no features.customers as of 2024-02-01: the first ingested day is 2024-02-10" in capsys.readouterr().err
    assert not tables.exists("features.customers")


def test_refuses_when_nothing_is_ingested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAKE_URI", tmp_path.as_uri())
    with pytest.raises(SystemExit):
        run(capsys, "2024-02-01")
    assert "no day is ingested at all" in capsys.readouterr().err


def test_a_day_without_a_file_has_features_and_a_warning(
    ingested: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    facts = run(capsys, D.isoformat())
    assert (facts["rows"], facts["last_ingested_day"]) == (1, {"silver.customer_days": "2024-02-29"})
    assert "2024-03-01 itself is not ingested: silver.customer_days has no facts of that day" in caplog.text


def test_several_days_are_one_commit_and_later_days_stay_unknown(
    ingested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = run(capsys, "2024-02-28..2024-02-29")
    assert facts["feature_table_version"] == 0
    rows = tables.read("features.customers").sort_by("as_of").to_pylist()
    assert [(row["as_of"], row["recency_days"]) for row in rows] == [(date(2024, 2, 28), 8), (date(2024, 2, 29), 9)]


def test_the_same_day_again_replaces_its_partition_and_no_other(
    ingested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "2024-02-28,2024-02-29")
    before = tables.read("features.customers").sort_by("as_of")
    assert run(capsys, "2024-02-29")["feature_table_version"] == 1
    assert tables.read("features.customers").sort_by("as_of").equals(before)
