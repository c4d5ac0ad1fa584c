"""Data sets for demos and tests: complete, with dirty rows, and the same every time."""

from __future__ import annotations

import os
from collections import Counter
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ml.datasets import COLUMNS, PRODUCTS, TRANSACTIONS, DataSet, DataSetError, open_data_set
from ml.datasets.shop import DAYS, DRIFT_FROM, FIRST_DAY, Shop


def all_rows(data: DataSet) -> pa.Table:
    return pa.concat_tables(data.rows(TRANSACTIONS, day) for day in data.days(TRANSACTIONS))


@pytest.fixture(scope="module")
def shop() -> pa.Table:
    return all_rows(Shop(size=1500))


def test_a_parquet_file_of_another_shape_is_refused_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"InvoiceNo": ["1"], "total": [1.0]}), path)
    with pytest.raises(DataSetError, match=r"no column StockCode, .* found InvoiceNo, total"):
        open_data_set(str(path))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    path.write_text("InvoiceNo;StockCode")
    with pytest.raises(DataSetError, match="not a parquet file"):
        open_data_set(str(path))


@pytest.mark.parametrize(("name", "source"), [("cdnow", TRANSACTIONS), ("shop", TRANSACTIONS), ("shop", PRODUCTS)])
def test_rows_are_in_the_contracts_columns_on_every_day_and_beyond(name: str, source: str) -> None:
    data = open_data_set(name)
    days = data.days(source)
    for day in (*days[:2], days[-1], date(1990, 1, 1), date(2040, 1, 1)):
        assert data.rows(source, day).schema == COLUMNS[source]


@pytest.mark.parametrize(("name", "source"), [("cdnow", PRODUCTS), ("shop", "stores")])
def test_a_source_that_a_data_set_lacks_is_refused_with_those_that_it_has(name: str, source: str) -> None:
    data = open_data_set(name)
    for ask in (lambda: data.days(source), lambda: data.rows(source, date(2024, 1, 1))):
        with pytest.raises(DataSetError, match=f"{name} has no source '{source}'; it has .*transactions"):
            ask()


@pytest.mark.parametrize("name", ["cdnow", "shop"])
def test_snapshots_are_on_days_of_facts(name: str) -> None:
    data = open_data_set(name)
    for source in data.sources():
        assert set(data.days(source)) <= set(data.days(TRANSACTIONS))


def test_cdnow_is_complete_with_duplicates_and_free_purchases() -> None:
    source = open_data_set("cdnow")
    rows = all_rows(source).to_pylist()
    times = Counter(tuple(row.values()) for row in rows)
    assert (source.days(TRANSACTIONS)[0], source.days(TRANSACTIONS)[-1]) == (date(1997, 1, 1), date(1998, 6, 30))
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
    source = open_data_set(str(path))
    assert source.days(TRANSACTIONS) == [date(2010, 12, 1), date(2010, 12, 2), date(2010, 12, 4)]
    first = source.rows(TRANSACTIONS, date(2010, 12, 1))
    assert first.schema == COLUMNS[TRANSACTIONS]
    assert first["transaction_id"].to_pylist() == ["536365", "C536379", "536414", "536365"]
    assert first["customer_id"].to_pylist() == ["17850", "14527", None, "17850"]
    assert first["amount"].to_pylist() == [15.3, -0.3, 0.0, 15.3]
    assert first["occurred_at"][0].as_py() == "2010-12-01T08:26:00"
    assert source.rows(TRANSACTIONS, date(2010, 12, 3)).num_rows == 0
    assert source.rows(TRANSACTIONS, date(2010, 12, 4))["unit_price"].to_pylist() == [-11062.06]


def test_the_shop_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    day = date(2024, 5, 17)
    assert Shop(size=300, seed=3).rows(TRANSACTIONS, day).equals(Shop(size=300, seed=3).rows(TRANSACTIONS, day))
    assert not Shop(size=300, seed=3).rows(TRANSACTIONS, day).equals(Shop(size=300, seed=4).rows(TRANSACTIONS, day))


def test_a_day_of_the_shop_does_not_depend_on_the_days_computed_before() -> None:
    shop = Shop(size=300)
    in_order = {day: shop.rows(TRANSACTIONS, day) for day in shop.days(TRANSACTIONS)[:60]}
    for day in (date(2024, 2, 20), date(2024, 1, 30), date(2024, 1, 1)):
        assert Shop(size=300).rows(TRANSACTIONS, day).equals(in_order[day])


def test_the_shop_has_the_dirt_that_the_loop_must_handle(shop: pa.Table) -> None:
    rows = shop.num_rows
    times = Counter(map(str, shop.to_pylist()))
    assert 0.01 < pc.sum(pc.less(shop["quantity"], 0)).as_py() / rows < 0.06  # returns
    assert 0.001 < sum(n - 1 for n in times.values()) / rows < 0.01
    assert 0.001 < shop["customer_id"].null_count / rows < 0.01
    assert shop["amount"].null_count
    assert pc.sum(pc.starts_with(shop["occurred_at"], "31/")).as_py()
    assert set(shop["channel"].unique().to_pylist()) == {"online", "mobile", "store"}
    assert len(shop["country"].unique()) == 6
    assert len(shop["category"].unique()) == 8


def test_the_shops_december_is_busier_than_the_january_after_it() -> None:
    source = Shop(size=1500)
    december, january = (
        sum(
            source.rows(TRANSACTIONS, day).num_rows
            for day in source.days(TRANSACTIONS)
            if (day.year, day.month) == month
        )
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
    days = steady.days(TRANSACTIONS)
    assert all(
        steady.rows(TRANSACTIONS, day).equals(drifting.rows(TRANSACTIONS, day))
        for day in (days[0], days[200], days[DRIFT_FROM - 1])
    )

    def late(source: Shop) -> tuple[float, float, int]:
        rows = pa.concat_tables(source.rows(TRANSACTIONS, day) for day in days[-60:])
        online = np.mean(np.array(rows["channel"].to_pylist()) != "store")
        orders = len(rows["transaction_id"].unique())
        return float(online), rows.num_rows / orders, orders

    (online, lines, orders), (online_then, lines_then, orders_then) = late(steady), late(drifting)
    assert online_then > online + 0.1
    assert lines_then > 1.1 * lines
    assert orders_then < 0.95 * orders


def test_the_shop_ends_after_eighteen_months() -> None:
    days = Shop(size=1).days(TRANSACTIONS)
    assert (days[0], len(days)) == (FIRST_DAY, DAYS)


def prices(snapshot: pa.Table) -> dict[str, float]:
    return dict(zip(snapshot["product_id"].to_pylist(), snapshot["list_price"].to_pylist(), strict=True))


def test_the_shop_publishes_its_products_at_the_start_and_whenever_prices_change() -> None:
    shop = Shop(size=1)
    days = shop.days(PRODUCTS)
    snapshots = [shop.rows(PRODUCTS, day) for day in days]
    assert (days[0], len(days)) == (FIRST_DAY, 6)
    assert shop.rows(PRODUCTS, FIRST_DAY + timedelta(days=1)).num_rows == 0
    for before, after in pairwise(snapshots):
        changed = [n for n, price in prices(after).items() if price != prices(before)[n]]
        assert 0.02 * before.num_rows < len(changed) < 0.2 * before.num_rows
        assert before["product_id"].equals(after["product_id"])
    for snapshot in snapshots:
        assert len(snapshot["product_id"].unique()) == snapshot.num_rows == 320
        assert 0 < snapshot["unit_cost"].null_count < 0.1 * snapshot.num_rows
        assert pc.all(pc.less(snapshot["unit_cost"], snapshot["list_price"])).as_py()


def test_the_shops_customers_pay_the_price_of_the_day_of_the_order() -> None:
    shop = Shop(size=1500)
    published = {day: prices(shop.rows(PRODUCTS, day)) for day in shop.days(PRODUCTS)}
    for line in all_rows(shop).slice(0, 40_000).to_pylist():
        ordered = date.fromisoformat(line["transaction_id"][2:10])
        newest = max(day for day in published if day <= ordered)
        assert line["unit_price"] == published[newest][line["product_id"]]


def test_each_customer_of_the_shop_orders_with_a_phone_or_at_a_computer_as_they_like(shop: pa.Table) -> None:
    online = shop.filter(pc.and_(pc.not_equal(shop["channel"], "store"), pc.is_valid(shop["customer_id"])))
    mobile: dict[str, list[bool]] = {}
    for line in online.to_pylist():
        mobile.setdefault(line["customer_id"], []).append(line["channel"] == "mobile")
    shares = [np.mean(orders) for orders in mobile.values() if len(orders) >= 20]
    assert 0.25 < np.mean(shares) < 0.5
    assert np.std(shares) > 0.2


@pytest.fixture
def retail(tmp_path: Path) -> DataSet:
    lines = [  # product, name, quantity, date, price
        ("A", "OLD NAME", 1, "2010-12-01T09:00", 2.0),
        ("A", "NAME", 1, "2010-12-02T09:00", 3.0),
        ("A", None, 1, "2010-12-02T10:00", 5.0),
        ("A", "damaged", -9, "2010-12-03T09:00", 0.0),
        ("B", "GIFT", 1, "2010-12-03T09:00", 0.0),
        ("B", "RETURNED", -1, "2010-12-03T09:00", 7.0),
        ("C", None, 1, "2010-12-03T09:00", 1.5),
        ("A", "NEW NAME", 1, "2011-01-04T09:00", 99.0),
        ("D", "NEW", 1, "2011-01-05T09:00", 4.0),
        ("D", "NEW", 1, "2011-02-01T09:00", 6.0),
    ]
    products, names, quantities, times, paid = map(list, zip(*lines, strict=True))
    columns = {
        "InvoiceNo": [str(n) for n in range(len(lines))],
        "StockCode": products,
        "Description": names,
        "Quantity": quantities,
        "InvoiceDate": pa.array(times).cast(pa.timestamp("us")),
        "UnitPrice": paid,
        "CustomerID": [1] * len(lines),
        "Country": ["France"] * len(lines),
    }
    pq.write_table(pa.table(columns), tmp_path / "retail.parquet")
    return open_data_set(str(tmp_path / "retail.parquet"))


def test_online_retails_products_are_known_from_the_days_before(retail: DataSet) -> None:
    january, february = date(2011, 1, 4), date(2011, 2, 1)
    assert retail.days(PRODUCTS) == [january, february]
    unknown = {"category": None, "unit_cost": None}
    assert retail.rows(PRODUCTS, january).to_pylist() == [
        {"product_id": "A", "name": "NAME", "list_price": 3.0} | unknown,
        {"product_id": "C", "name": None, "list_price": 1.5} | unknown,
    ]
    assert prices(retail.rows(PRODUCTS, february)) == {"A": 3.0, "C": 1.5, "D": 4.0}
    assert retail.rows(PRODUCTS, february)["name"].to_pylist() == ["NEW NAME", None, "NEW"]
    assert retail.rows(PRODUCTS, date(2011, 1, 5)).num_rows == 0


@pytest.mark.skipif("ONLINE_RETAIL_PARQUET" not in os.environ, reason="ONLINE_RETAIL_PARQUET names no file")
def test_online_retail_has_a_snapshot_a_month() -> None:
    retail = open_data_set(os.environ["ONLINE_RETAIL_PARQUET"])
    snapshots = [retail.rows(PRODUCTS, day) for day in retail.days(PRODUCTS)]
    assert [day.month for day in retail.days(PRODUCTS)] == list(range(1, 13))
    assert all(before.num_rows < after.num_rows for before, after in pairwise(snapshots))
