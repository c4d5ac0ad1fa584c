"""Sources of purchases for demos and tests: complete, with dirty rows, and the same every time."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ml.datasets import CONTRACT, Source, SourceError, open_source
from ml.datasets.shop import DAYS, DRIFT_FROM, FIRST_DAY, Shop


def all_rows(source: Source) -> pa.Table:
    return pa.concat_tables(source.rows(day) for day in source.days())


@pytest.fixture(scope="module")
def shop() -> pa.Table:
    return all_rows(Shop(size=1500))


def test_a_parquet_file_of_another_shape_is_refused_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"InvoiceNo": ["1"], "total": [1.0]}), path)
    with pytest.raises(SourceError, match=r"no column StockCode, .* found InvoiceNo, total"):
        open_source(str(path))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    path.write_text("InvoiceNo;StockCode")
    with pytest.raises(SourceError, match="not a parquet file"):
        open_source(str(path))


@pytest.mark.parametrize("name", ["cdnow", "shop"])
def test_rows_are_in_the_contracts_columns_on_every_day_and_beyond(name: str) -> None:
    source = open_source(name)
    for day in (*source.days()[:2], source.days()[-1], date(1990, 1, 1), date(2040, 1, 1)):
        assert source.rows(day).schema == CONTRACT


def test_cdnow_is_complete_with_duplicates_and_free_purchases() -> None:
    source = open_source("cdnow")
    rows = all_rows(source).to_pylist()
    times = Counter(tuple(row.values()) for row in rows)
    assert (source.days()[0], source.days()[-1]) == (date(1997, 1, 1), date(1998, 6, 30))
    assert len(rows) == 69_659
    assert len({row["customer_id"] for row in rows}) == 23_570
    assert sum(n - 1 for n in times.values()) == 255
    assert sum(row["amount"] == 0 for row in rows) == 80


def test_online_retail_keeps_every_line_of_a_day_in_order(tmp_path: Path) -> None:
    path = tmp_path / "retail.parquet"
    lines = [  # invoice, product, quantity, date, price, customer, country
        ("536366", "B", 2, "2010-12-02T09:00", 1.85, 17850, "United Kingdom"),
        ("536365", "A", 6, "2010-12-01T08:26", 2.55, 17850, "United Kingdom"),
        ("C536379", "D", -3, "2010-12-01T09:41", 0.1, 14527, "France"),
        ("536414", "E", 56, "2010-12-01T11:52", 0.0, None, "United Kingdom"),
        ("536365", "A", 6, "2010-12-01T08:26", 2.55, 17850, "United Kingdom"),
        ("A563187", "F", 1, "2010-12-04T00:00", -11062.06, None, "United Kingdom"),
    ]
    names = ["InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
    columns: dict[str, Any] = dict(zip(names, map(list, zip(*lines, strict=True)), strict=True))
    columns["InvoiceDate"] = pa.array(columns["InvoiceDate"]).cast(pa.timestamp("us"))
    pq.write_table(pa.table(columns | {"Description": ["x"] * 6}), path)
    source = open_source(str(path))
    assert source.days() == [date(2010, 12, 1), date(2010, 12, 2), date(2010, 12, 4)]
    first = source.rows(date(2010, 12, 1))
    assert first.schema == CONTRACT
    assert first["transaction_id"].to_pylist() == ["536365", "C536379", "536414", "536365"]
    assert first["customer_id"].to_pylist() == ["17850", "14527", None, "17850"]
    assert first["amount"].to_pylist() == [15.3, -0.3, 0.0, 15.3]
    assert first["occurred_at"][0].as_py() == "2010-12-01T08:26:00"
    assert source.rows(date(2010, 12, 3)).num_rows == 0
    assert source.rows(date(2010, 12, 4))["unit_price"].to_pylist() == [-11062.06]


def test_the_shop_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    day = date(2024, 5, 17)
    assert Shop(size=300, seed=3).rows(day).equals(Shop(size=300, seed=3).rows(day))
    assert not Shop(size=300, seed=3).rows(day).equals(Shop(size=300, seed=4).rows(day))


def test_a_day_of_the_shop_does_not_depend_on_the_days_computed_before() -> None:
    shop = Shop(size=300)
    in_order = {day: shop.rows(day) for day in shop.days()[:60]}
    for day in (date(2024, 2, 20), date(2024, 1, 30), date(2024, 1, 1)):
        assert Shop(size=300).rows(day).equals(in_order[day])


def test_the_shop_has_the_dirt_that_the_loop_must_handle(shop: pa.Table) -> None:
    rows = shop.num_rows
    times = Counter(map(str, shop.to_pylist()))
    assert 0.01 < pc.sum(pc.less(shop["quantity"], 0)).as_py() / rows < 0.06  # returns
    assert 0.001 < sum(n - 1 for n in times.values()) / rows < 0.01
    assert 0.001 < shop["customer_id"].null_count / rows < 0.01
    assert shop["amount"].null_count
    assert pc.sum(pc.starts_with(shop["occurred_at"], "31/")).as_py()
    assert set(shop["channel"].unique().to_pylist()) == {"online", "store"}
    assert len(shop["country"].unique()) == 6
    assert len(shop["category"].unique()) == 8


def test_the_shops_december_is_busier_than_the_january_after_it() -> None:
    source = Shop(size=1500)
    december, january = (
        sum(source.rows(day).num_rows for day in source.days() if (day.year, day.month) == month)
        for month in ((2024, 12), (2025, 1))
    )
    assert december > 1.3 * january


def test_every_return_follows_its_purchase(shop: pa.Table) -> None:
    good = shop.filter(pc.and_(pc.is_valid(shop["customer_id"]), pc.match_substring(shop["occurred_at"], "T")))
    bought = {
        (r["transaction_id"][2:], r["product_id"]): r["occurred_at"] for r in good.to_pylist() if r["quantity"] > 0
    }
    returned = [r for r in good.to_pylist() if r["quantity"] < 0]
    known = [r for r in returned if (r["transaction_id"][2:], r["product_id"]) in bought]
    assert len(known) > 0.97 * len(returned)  # a few lost their purchase to dirt
    assert all(r["occurred_at"] > bought[r["transaction_id"][2:], r["product_id"]] for r in known)


def test_drift_changes_the_last_third_only() -> None:
    steady, drifting = Shop(size=1500), Shop(size=1500, drift=1.0)
    days = steady.days()
    assert all(steady.rows(day).equals(drifting.rows(day)) for day in (days[0], days[200], days[DRIFT_FROM - 1]))

    def late(source: Shop) -> tuple[float, float, int]:
        rows = pa.concat_tables(source.rows(day) for day in days[-60:])
        online = np.mean(np.array(rows["channel"].to_pylist()) == "online")
        orders = len(rows["transaction_id"].unique())
        return float(online), rows.num_rows / orders, orders

    (online, lines, orders), (online_then, lines_then, orders_then) = late(steady), late(drifting)
    assert online_then > online + 0.1
    assert lines_then > 1.1 * lines
    assert orders_then < 0.95 * orders


def test_the_shop_ends_after_eighteen_months() -> None:
    days = Shop(size=1).days()
    assert (days[0], len(days)) == (FIRST_DAY, DAYS)
