"""The same SQL on DuckDB and on Spark returns the same tables: every row, every column, every bit.

Without tolerance: money is added as integers, so no sum depends on the order of its rows, and every remaining
operation (a division, a rounding) is one IEEE operation on equal numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml.datasets import TRANSACTIONS, open_data_set
from tests.support.data.sql_rows import LEAP, NUMBERS, PRODUCTS, SILVER, silver

AS_OF = (date(2023, 12, 31), LEAP, date(2024, 3, 1), date(2024, 5, 29))


def chain(both: Callable[..., pa.Table], silver: pa.Table, as_of: tuple[date, ...]) -> pa.Table:
    """Silver to labels, every step on both engines; each step reads the common result of the step before."""
    days = both("sources/customer_days", {"transactions": silver})
    known = []
    for day in as_of:
        customers = both("features/customers", {"customer_days": days}, as_of=day, active_days=90)
        population = both("populations/active_customers", {"customers": customers}, active_days=90)
        both("labels/no_purchase", {"population": population, "customer_days": days}, horizon_days=90)
        both("features/products", {"transactions": silver, "products": PRODUCTS.empty_table()}, as_of=day)
        known.append(customers)
    return pa.concat_tables(known)


def at(day: date, clock: str) -> dict[str, Any]:
    return {"day": day, "occurred_at": datetime.fromisoformat(f"{day}T{clock}+00:00")}


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="no-rows-at-all"),
        pytest.param([{"amount": 9.99}], id="one-row"),
        pytest.param([{"amount": 0.0}, {"amount": 0.0, "quantity": 0.0}], id="zero-amounts"),
        pytest.param([{"amount": -0.0}, {"amount": -5.0, "quantity": -1.0, "kind": "return"}], id="negative-zero"),
        pytest.param([{"amount": -5.0, "quantity": -1.0, "kind": "return", "category": "x"}], id="returns-only"),
        pytest.param([{"amount": 1.0, "channel": None}], id="no-channel-nor-anything-optional"),
        pytest.param(
            [{"amount": 1.0, "country": c, "transaction_id": "t"} for c in ("DE", None, "FR")], id="tied-times"
        ),
        pytest.param(
            [{"amount": 1.0, "country": c, "_file": f} for c, f in (("DE", "b"), ("FR", "a"), ("ES", "b"))],
            id="ties-over-files",
        ),
        pytest.param(
            [{"amount": 1.0, "category": c} for c in ("é", "z", "Z", "", None, "日本", "a")], id="sorted-sets"
        ),
        pytest.param([{"amount": 1.0, "customer_id": c} for c in ("é", "z", "Z", "", "10", "9")], id="sorted-keys"),
        pytest.param([{"amount": 1.0} | at(d, "23:59:59.999999") for d in (LEAP, date(2024, 12, 31))], id="midnight"),
        pytest.param(
            [{"amount": 1.0, "day": LEAP + timedelta(n)} for n in (-1, 0, 1, -365, -366, 366)], id="leap-day-and-years"
        ),
        pytest.param(
            [{"amount": 1.0, "day": d - timedelta(n)} for d in AS_OF for n in (0, 29, 30, 89, 90)], id="windows"
        ),
        pytest.param([{"amount": 1.0, "day": d + timedelta(n)} for d in AS_OF for n in (0, 1, 90, 91)], id="horizons"),
        pytest.param([{"amount": a} for a in (0.1, 0.2, 0.3, 1e-4, 5e-5, 4.9999e-5, 1.00005)] * 30, id="rounding"),
        pytest.param([{"amount": a} for a in (999999.9999, -999999.9999, 1e-9)] * 30, id="largest-amounts"),
        pytest.param([{"amount": 1 / 3, "quantity": 2 / 3} for _ in range(999)], id="thirds-in-any-order"),
    ],
)
def test_edge_cases(both: Callable[..., pa.Table], lines: list[dict[str, Any]]) -> None:
    chain(both, silver(lines), AS_OF)


def test_every_combination_of_what_may_be_missing(both: Callable[..., pa.Table]) -> None:
    options = product(
        (None, "t"), (None, "x"), (None, "online", "mobile", "store"), (None, "DE"), (-1.0, 1.0), (-2.5, 0.0, 2.5)
    )
    lines = [
        {"transaction_id": t, "category": c, "channel": h, "country": w, "quantity": q, "amount": a,
         "kind": "purchase" if q > 0 else "return", "customer_id": str(n // 3), "day": LEAP - timedelta(n % 97)}
        for n, (t, c, h, w, q, a) in enumerate(options)
    ]  # fmt: skip
    chain(both, silver(lines), AS_OF)


@pytest.mark.parametrize("seed", range(3))
def test_random_histories(both: Callable[..., pa.Table], seed: int) -> None:
    random = np.random.default_rng(seed)
    size = 3000

    def some(values: list[Any]) -> list[Any]:
        return [values[n] for n in random.integers(0, len(values), size)]

    bought = random.random(size) < 0.9
    amount = np.round(random.lognormal(2, 2, size), int(random.integers(0, 6))) * np.where(bought, 1, -1)
    days = [date(2023, 6, 1) + timedelta(int(n)) for n in random.integers(0, 400, size)]
    seconds = random.integers(0, 24, size) * 3600  # whole hours: times tie
    table = pa.table(
        {
            "day": days,
            "transaction_id": some([None, "1", "2", "3"]),
            "customer_id": some([f"c{n}" for n in range(250)]),
            "occurred_at": [
                datetime(d.year, d.month, d.day, int(s // 3600), tzinfo=UTC) for d, s in zip(days, seconds, strict=True)
            ],
            "product_id": some([None, "p1", "p2", "é"]),
            "category": some([None, "a", "b", "ä", "c"]),
            "channel": some([None, "online", "mobile", "store", "phone"]),
            "country": some([None, "DE", "FR"]),
            "quantity": np.where(bought, 1.0, -1.0) * random.integers(1, 9, size),
            "unit_price": some([None, 1.0, 2.675, 3.3333, 1e-5]),
            "amount": amount,
            "kind": pc.if_else(pa.array(bought), "purchase", "return"),
            "_file": some(["f1", "f2"]),
            "_row": random.permutation(size),
        },
        schema=SILVER,
    )
    customers = chain(both, table, AS_OF)
    assert customers.num_rows > 500


def purchases(name: str, of_each: int) -> pa.Table:
    """Silver rows of every `of_each`th customer of a data set; rows that silver would refuse are left out."""
    data = open_data_set(name)
    parts = []
    for day in data.days(TRANSACTIONS):
        rows = data.rows(TRANSACTIONS, day)
        places = pa.array(np.arange(rows.num_rows))
        rows = rows.append_column("day", pa.repeat(pa.scalar(day), rows.num_rows)).append_column("_row", places)
        parts.append(rows)
    rows = pa.concat_tables(parts)
    rows = rows.filter(pc.is_valid(rows["customer_id"]))
    wanted = rows["customer_id"].unique()[::of_each]
    rows = rows.filter(pc.is_in(rows["customer_id"], wanted))
    moment = pc.strptime(rows["occurred_at"], "%Y-%m-%dT%H:%M:%S", "us")
    rows = rows.set_column(2, "occurred_at", pc.assume_timezone(moment, "UTC"))
    rows = rows.append_column("kind", pc.if_else(pc.less(rows["quantity"], 0), "return", "purchase"))
    return rows.append_column("_file", pa.repeat(name, rows.num_rows))


def test_real_purchases_of_cdnow(both: Callable[..., pa.Table]) -> None:
    customers = chain(both, purchases("cdnow", of_each=3), (date(1997, 10, 1), date(1998, 4, 1)))
    assert customers.num_rows > 15_000


@pytest.mark.skipif("ONLINE_RETAIL_PARQUET" not in os.environ, reason="ONLINE_RETAIL_PARQUET names no file")
def test_real_purchases_of_online_retail(both: Callable[..., pa.Table]) -> None:
    customers = chain(both, purchases(os.environ["ONLINE_RETAIL_PARQUET"], of_each=3), (date(2011, 9, 10),))
    assert customers.num_rows > 1_000


# clocks that go back by an hour or never: transactions.sql tells the two half hours of Lord Howe Island's night not apart
ZONES = ("UTC", "Europe/London", "America/New_York", "Asia/Kolkata", "Pacific/Chatham")
TIMES = (
    None, "2024-02-29", "2024-02-29T00:00:00", "2024-02-29 23:59:59.999999", "2024-02-29T23:59:59.999999999",
    "2024-02-29T00:30:00+02:00", "2024-02-29T23:30-0500", "2024-02-29T10:00Z", "2024-02-29T10:00:00.5+05", "2024-02-30",
    "2023-02-29", "2024-02-29T24:00", "29/02/2024", "nonsense", "2024-02-29T10", "2024-03-31T01:30:00",
    "2024-03-31T02:30:00", "2024-10-27T01:30:00", "2024-10-27T01:30:00+00:00", "2024-11-03T01:30:00",
    "2024-03-10T02:30:00", "2024-04-07T01:45:00", "1999-12-31T23:59:59+14:00", "2000-01-01T00:00:00-12:00",
)  # fmt: skip


def bronze(rows: list[dict[str, str | None]], day: date = LEAP) -> pa.Table:
    usual: dict[str, str | None] = {
        "transaction_id": None, "customer_id": "c", "occurred_at": LEAP.isoformat(), "product_id": None, "category": None,
        "channel": None, "country": None, "quantity": "1", "unit_price": None, "amount": "1",
    }  # fmt: skip
    texts = pa.schema([(name, pa.string()) for name in usual])
    table = pa.Table.from_pylist([usual | row for row in rows], texts)
    keys = {"_day": pa.repeat(pa.scalar(day), len(rows)), "_file": pa.repeat("f", len(rows)), "_row": range(len(rows))}
    for name, values in (keys | {"_id": range(len(rows))}).items():
        table = table.append_column(name, pa.array(values, pa.int64()) if isinstance(values, range) else values)
    return table


LIMITS = {"max_abs_quantity": 100000.0, "max_abs_amount": 1000000.0}


@pytest.mark.parametrize("zone", ZONES)
def test_cleaning_reads_every_time_alike_in_every_zone(both: Callable[..., pa.Table], zone: str) -> None:
    both("sources/transactions", {"bronze": bronze([{"occurred_at": time} for time in TIMES])}, timezone=zone, **LIMITS)


def test_cleaning_reads_every_number_alike(both: Callable[..., pa.Table]) -> None:
    rows = [{column: text} for column in ("quantity", "unit_price", "amount") for text in NUMBERS]
    both("sources/transactions", {"bronze": bronze([*rows, *rows])}, timezone="UTC", **LIMITS)


@pytest.mark.parametrize("day", [date(2024, 3, 31), date(2024, 10, 27), date(1997, 1, 1)])
def test_cleaning_reads_every_half_hour_of_a_day_alike(both: Callable[..., pa.Table], day: date) -> None:
    times = [f"{day}T{hour:02d}:{minute}:00" for hour in range(24) for minute in ("00", "30")]
    rows = bronze([{"occurred_at": time} for time in times], day)
    judged = both("sources/transactions", {"bronze": rows}, timezone="Europe/London", **LIMITS)
    assert set(judged["outcome"].to_pylist()) == {"silver"}


def test_cleaning_judges_transactions_and_letters_alike(both: Callable[..., pa.Table]) -> None:
    customers = ["7", "7.0", "8", None, "\ufffd", "7"]
    lines = [{"customer_id": c, "transaction_id": t, "country": t} for t in ("t", None, "u\ufffd") for c in customers]
    judged = both("sources/transactions", {"bronze": bronze(lines)}, timezone="UTC", **LIMITS)
    assert set(judged["outcome"].to_pylist()) == {"silver", "quarantined", "duplicate"}


def test_cleaning_nothing_gives_nothing(both: Callable[..., pa.Table]) -> None:
    assert both("sources/transactions", {"bronze": bronze([])}, timezone="UTC", **LIMITS).num_rows == 0


def test_days_from_before_the_mobile_channel_leave_the_totals_whole(both: Callable[..., pa.Table]) -> None:
    lines = [{"amount": 1.0, "channel": c, "transaction_id": c, "day": LEAP - timedelta(n)}
             for n, c in ((0, "mobile"), (0, "online"), (5, "mobile"), (5, "store"))]  # fmt: skip
    days = both("sources/customer_days", {"transactions": silver(lines)})
    assert days.sort_by("day")["mobile_orders"].to_pylist() == [1, 1]
    before = pc.less(days["day"], LEAP)
    place = days.schema.get_field_index("mobile_orders")
    old = days.set_column(
        place, "mobile_orders", pc.if_else(before, pa.scalar(None, pa.int64()), days["mobile_orders"])
    )
    for table, mobile in ((days, 2), (old, 1), (old.filter(before), 0)):
        (row,) = both("features/customers", {"customer_days": table}, as_of=LEAP, active_days=90).to_pylist()
        assert row["mobile_orders"] == mobile
    assert (row["orders"], row["store_orders"], row["online_preference_ratio"]) == (2, 1, 0.0)
