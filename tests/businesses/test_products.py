"""The project's own products: landed from the data sets, ingested beside transactions, known per day in features.products."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml.datasets.shop_products import PRICE_CHANGES
from ml.storage import stores, tables
from tests.support.data.businesses import copy
from tests.support.models.business_lake import BusinessLake
from tests.support.models.stages import ml

CHANGE = PRICE_CHANGES[0]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BusinessLake:
    return BusinessLake(tmp_path, monkeypatch, names=())


def bring(data: str, first: date, last: date, **options: object) -> dict[str, Any]:
    """Land and ingest a data set's days. Returns the facts of ingestion by source."""
    landed = ml("land", data=data, **{"from": first, "to": last}, **options)
    ingested = {}
    for source, numbers in landed["sources"].items():
        if numbers["files"]:
            names = [blob.name for blob in stores.landing().list(f"{source}/")]
            copy(stores.landing(), stores.lake(), [n for n in names if str(first) <= n.split("/")[1] <= str(last)])
            ingested[source] = ml("ingest", source=source, days=f"{first}..{last}", run_key=f"{source}-{first}")
    return ingested


def products(*days: date) -> dict[date, dict[str, dict[str, Any]]]:
    """The features of each product, by day and product."""
    ml("features", table="products", as_of=",".join(map(str, days)), run_key=f"products-{days[-1]}")
    rows = tables.read("features.products").to_pylist()
    return {day: {row["product_id"]: row for row in rows if row["as_of"] == day} for day in days}


def test_without_any_table_of_products_and_without_product_ids_there_are_none(lake: BusinessLake) -> None:
    bring("cdnow", date(1997, 1, 1), date(1997, 1, 5))
    assert products(date(1997, 1, 5)) == {date(1997, 1, 5): {}}
    assert tables.dataset("features.products").schema.field("median_price").type == pa.float64()


def test_without_any_table_of_products_sales_are_known_and_margins_are_not(lake: BusinessLake) -> None:
    day = date(2024, 2, 1)
    bring("shop", day, day, size=1500)
    known = products(day)[day]
    assert 0 < len(known) < 320
    assert all(row["sales"] > 0 and row["median_price"] > 0 and row["margin"] is None for row in known.values())


def test_a_new_price_list_counts_from_its_day_on(lake: BusinessLake) -> None:
    before = CHANGE - timedelta(1)
    ingested = bring("shop", date(2024, 1, 1), date(2024, 1, 1), size=1500)
    bring("shop", before, CHANGE, size=1500)
    assert ingested["products"]["silver"] == 320
    lists = {
        day: {
            row["product_id"]: row for row in tables.read("silver.products", where=pc.field("day") == day).to_pylist()
        }
        for day in (date(2024, 1, 1), CHANGE)
    }
    known = products(before, CHANGE)
    assert known[before].keys() == known[CHANGE].keys() == lists[CHANGE].keys()
    for day, listed in ((before, lists[date(2024, 1, 1)]), (CHANGE, lists[CHANGE])):
        unsold = [row for row in known[day].values() if not row["sales"]]
        assert unsold
        assert all(row["median_price"] == listed[row["product_id"]]["list_price"] for row in unsold)
        for row in known[day].values():
            if (cost := listed[row["product_id"]]["unit_cost"]) is None:
                assert row["margin"] is None
            else:
                assert row["margin"] == pytest.approx(row["median_price"] - cost)
    changed = [p for p, row in known[CHANGE].items() if row["margin"] != known[before][p]["margin"]]
    assert 0 < len(changed) < 0.5 * len(known[CHANGE])


def test_sales_before_the_window_do_not_count(lake: BusinessLake) -> None:
    first = date(2024, 1, 2)
    bring("shop", first, first, size=1500)
    last_day = first + timedelta(89)
    bring("shop", last_day, last_day + timedelta(1), size=1500)
    known = products(last_day, last_day + timedelta(1))
    sold_on = {
        day: tables.read(
            "silver.transactions", where=(pc.field("day") == day) & (pc.field("kind") == "purchase")
        ).num_rows
        for day in (first, last_day, last_day + timedelta(1))
    }
    sales = [sum(row["sales"] for row in rows.values()) for rows in known.values()]
    assert sales == [sold_on[first] + sold_on[last_day], sold_on[last_day] + sold_on[last_day + timedelta(1)]]
