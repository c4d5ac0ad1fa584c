"""A source of another business: its columns, its queries and its tables are those of its own files."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ml.config import ConfigError, load_source
from ml.errors import StageError
from ml.ops import held_days
from ml.storage import tables
from tests.support.data.bronze_days import DAY, Days, mark, row, rows_of
from tests.support.data.deliveries import CLEAN, DAILY, parcel, put_deliveries
from tests.support.resources import Resources

NEXT = DAY + timedelta(days=1)
OWN_TABLES = ("quarantine.deliveries", "silver.deliveries", "silver.hub_days")


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(tmp_path, monkeypatch)


# --- queries that cannot be used: nothing is written -----------------------------------------------


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param(
            {"clean": CLEAN.replace("FROM judged", "FROM judged WHERE refused_column IS NULL")},
            "gives no outcome for row 2 of landing/deliveries/2011-06-28/x.csv",
            id="a-row-in-the-middle-is-lost",
        ),
        pytest.param(
            {"clean": CLEAN.replace("FROM judged", "FROM judged WHERE _id < 2")},
            "gives no outcome for the last 1 rows of bronze",
            id="the-last-row-is-lost",
        ),
        pytest.param(
            {"clean": CLEAN.replace("ORDER BY _id", "ORDER BY _id DESC")},
            "or in another order: every row of bronze is needed once, ordered by _id",
            id="another-order",
        ),
        pytest.param(
            {"clean": CLEAN.replace("FROM bronze", "FROM (SELECT * FROM bronze UNION ALL SELECT * FROM bronze) AS twice")},
            "or more than one",
            id="every-row-twice",
        ),
        pytest.param(
            {"clean": CLEAN.replace("THEN 'silver'", "THEN 'gold'")},
            "found the outcome 'gold'; allowed: silver, quarantined, duplicate",
            id="unknown-outcome",
        ),
        pytest.param({"clean": CLEAN.replace("ELSE 'quarantined'", "")}, "found the outcome NULL", id="no-outcome"),
        pytest.param(
            {"clean": CLEAN.replace("THEN 'ask the hub'", "THEN CAST(NULL AS STRING)")},
            "a refused row has no remedy",
            id="refused-without-remedy",
        ),
        pytest.param(
            {"clean": CLEAN.replace("_day AS day", "CAST(date_add(_day, 1) AS DATE) AS day")},
            "day is not that of the row of bronze; give _day unchanged",
            id="another-day",
        ),
        pytest.param(
            {"clean": CLEAN.replace("AS reason", "AS why")},
            "gives no reason; found _id, outcome, refused_column, why,",
            id="column-missing",
        ),
        pytest.param(
            {"clean": CLEAN.replace("_day AS day", "CAST(_day AS STRING) AS day")},
            "day is string; date32[day] is needed",
            id="column-of-another-type",
        ),
        pytest.param({"clean": CLEAN.replace("FROM bronze", "FROM silver")}, "reads silver; given: bronze", id="other-table"),
        pytest.param({"clean": "SELECT FROM"}, "deliveries.sql: ", id="not-sql"),
        pytest.param({"time": "delivered_at"}, "time: .* gives no column delivered_at; found day, parcel_id", id="no-time"),
        pytest.param({"time": "grams"}, "grams is double; timestamp", id="a-time-that-is-none"),
        pytest.param(
            {"settings": {"max_weight": 1, "min_weight": 2}},
            "needs :max_weight; given: :max_weight, :min_weight",
            id="setting-without-effect",
        ),
        pytest.param({"settings": {}}, "needs :max_weight; given: none", id="setting-missing"),
        pytest.param(
            {"settings": {"max_weight": 1, "timezone": "UTC"}}, "clean.settings.timezone: the source's own", id="zone-twice"
        ),
        pytest.param(
            {"daily": DAILY.replace("  day,\n", "").replace(", day", "")},
            "hub_days.sql: gives no day; found delivered_by, parcels",
            id="daily-without-day",
        ),
        pytest.param(
            {"daily": DAILY.replace("  day,\n", "  CAST(date_add(day, 1) AS DATE) AS day,\n")},
            "hub_days.sql: gives rows of 2011-06-29, a day that it got no rows of",
            id="daily-of-another-day",
        ),
        pytest.param({"daily": DAILY.replace("count(*)", ":factor")}, "hub_days.sql: needs :factor", id="daily-with-parameter"),
        pytest.param(
            {"daily": DAILY.replace("FROM deliveries", "FROM transactions")},
            "hub_days.sql: reads transactions; given: deliveries",
            id="daily-of-another-source",
        ),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_used_is_refused_and_nothing_is_written(
    days: Days, resources: Resources, changed: dict[str, Any], why: str
) -> None:
    put_deliveries(resources, **changed)
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(1), parcel(2, hub=None), parcel(3)])
    with pytest.raises(ConfigError, match=why.replace("[", r"\[")):
        couriers.ingest()
    assert [tables.exists(table) for table in (*OWN_TABLES, "ops.ingested_days", "ops.held_days")] == [False] * 5


def test_a_query_that_is_missing_is_refused(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    resources.remove("sql", "sources/deliveries.sql")
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(1)])
    with pytest.raises(ConfigError, match=r"sources/deliveries.sql: no such query"):
        couriers.ingest()


# --- files that cannot be used ---------------------------------------------------------------------


def test_a_file_without_a_required_column_holds_its_day(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [{"parcel_id": "p1", "depot_hub": "north"}])
    with pytest.raises(StageError) as error:
        couriers.ingest()
    assert "x.csv: lacks hub; found parcel_id, depot_hub; needed parcel_id, hub; rename 'depot_hub' to 'hub'" in str(
        error.value
    )
    assert list(held_days.read("deliveries")) == [DAY]


def test_a_file_of_another_source_holds_its_day(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [row(1)])
    with pytest.raises(StageError, match="lacks parcel_id, hub; found transaction_id"):
        couriers.ingest()
    days.arrive("x.csv", [parcel(1)])
    with pytest.raises(
        StageError, match="lacks customer_id, occurred_at, quantity, amount; found parcel_id, hub, weight"
    ):
        days.ingest()


def test_a_column_under_another_spelling_holds_its_day(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [{"parcel_id": "p1", "hub": "north", "Weight": "1"}])
    with pytest.raises(StageError, match="rename 'Weight' to 'weight'"):
        couriers.ingest()


# --- days that can be used -------------------------------------------------------------------------


def test_a_day_is_ingested_into_the_tables_and_columns_of_its_source(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    couriers.arrive(
        "x.csv", [parcel(1, note="x"), parcel(2, hub="south"), parcel(2, hub="south"), parcel(3, weight="heavy")]
    )
    couriers.arrive("y.jsonl", [parcel(4, weight=None)])
    facts = couriers.ingest()
    assert {name: facts[name] for name in ("received", "silver", "quarantined", "duplicates")} == {
        "received": 5, "silver": 3, "quarantined": 1, "duplicates": 1,
    }  # fmt: skip
    assert facts["reasons"] == {"weight cannot be used": 1}
    assert facts["extra_columns"] == ["note"]
    silver = tables.read("silver.deliveries")
    assert silver.schema.names == ["day", "parcel_id", "delivered_by", "grams", "_file", "_row"]
    assert sorted(silver["parcel_id"].to_pylist()) == ["p1", "p2", "p4"]
    (refused,) = rows_of("quarantine.deliveries")
    assert json.loads(refused["record"]) == {"parcel_id": "p3", "hub": "north", "weight": "heavy"}
    assert [(r["delivered_by"], r["parcels"]) for r in rows_of("silver.hub_days")] == [("north", 2), ("south", 1)]
    contents = (mark(source="deliveries") or {})["contents"]
    assert contents.keys() == {"silver.deliveries", "silver.hub_days"}


@pytest.mark.parametrize("column", ["day", "month"])
def test_a_daily_table_is_partitioned_by_month_when_it_has_one(days: Days, resources: Resources, column: str) -> None:
    month = "  CAST(date_trunc('month', day) AS DATE) AS month,\n" if column == "month" else ""
    put_deliveries(resources, daily=DAILY.replace("  day,\n", f"  day,\n{month}"))
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(1)])
    couriers.ingest()
    assert tables.table("silver.hub_days").metadata().partition_columns == [column]
    couriers.arrive("x.csv", [parcel(2, hub="south")], NEXT)
    couriers.ingest(NEXT)
    couriers.ingest(DAY)
    assert [(r["day"], r["delivered_by"]) for r in rows_of("silver.hub_days")] == [(DAY, "north"), (NEXT, "south")]


def test_a_column_that_is_added_to_the_query_is_added_to_silver(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(1)])
    couriers.ingest()
    put_deliveries(resources, clean=CLEAN.replace("  grams,\n", "  grams,\n  grams > 1000 AS is_heavy,\n"))
    couriers.arrive("x.csv", [parcel(2)], NEXT)
    couriers.ingest(NEXT)
    assert [r["is_heavy"] for r in rows_of("silver.deliveries")] == [None, False]


def test_a_source_without_daily_tables_has_one_table(days: Days, resources: Resources) -> None:
    put_deliveries(resources)
    resources.put(load_source("deliveries").model_copy(update={"daily": {}}))
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(1)])
    couriers.ingest()
    assert (mark(source="deliveries") or {})["contents"].keys() == {"silver.deliveries"}
    assert not tables.exists("silver.hub_days")
