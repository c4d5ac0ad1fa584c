"""Features of one day over generated transactions: the engine against a plain pandas groupby, as a ratio.

    python bench/features.py [--customers 100000] [--repeats 3]

Both start from the same `customer_days` in memory and give one row per customer. pandas computes the same
columns the way a notebook would; its result is held against the engine's before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa

from ml.engine import open_engine

AS_OF = date(2024, 12, 31)


def generated(customers: int, seed: int = 0) -> pa.Table:
    """A year of `customer_days`: twenty days of purchases per customer."""
    random = np.random.default_rng(seed)
    size = customers * 20
    ids = np.char.add("C", np.char.zfill(np.arange(customers).astype(str), 7))
    keys = np.unique(random.integers(0, customers, size) * 366 + random.integers(0, 366, size))
    who, ago = keys // 366, keys % 366
    day = np.datetime64(AS_OF, "D") - ago
    amount = np.round(random.lognormal(3, 1, len(keys)), 2)
    online = random.integers(0, 2, len(keys))
    categories = pa.array([["candles"], ["garden", "toys"], ["gifts", "kitchen", "toys"]])
    return pa.table(
        {
            "customer_id": pa.array(ids).take(pa.array(who)),
            "day": pa.array(day),
            "month": pa.array(day.astype("datetime64[M]").astype("datetime64[D]")),
            "orders": np.ones(len(keys), np.int64),
            "amount": amount,
            "purchase_amount": amount,
            "returns": np.zeros(len(keys), np.int64),
            "max_order_amount": amount,
            "online_orders": online,
            "store_orders": 1 - online,
            "categories": categories.take(pa.array(random.integers(0, 3, len(keys)))),
            "country": pa.array(["DE", "GB", None]).take(pa.array(random.integers(0, 3, len(keys)))),
        }
    )


def with_engine(days: pa.Table) -> pd.DataFrame:
    found = open_engine("duckdb").run("features", {"customer_days": days}, {"as_of": AS_OF, "active_days": 90})
    return found.to_pandas()


def with_pandas(days: pa.Table) -> pd.DataFrame:
    frame = days.to_pandas()
    frame["age"] = (pd.Timestamp(AS_OF) - pd.to_datetime(frame["day"])).dt.days
    for window in (30, 90):
        recent = frame["age"] < window
        frame[f"orders_{window}d"] = frame["orders"].where(recent, 0)
        frame[f"amount_{window}d"] = frame["amount"].where(recent, 0.0)
    grouped = frame.groupby("customer_id", sort=True)
    out = grouped.agg(
        recency_days=("age", "min"),
        tenure_days=("age", "max"),
        orders=("orders", "sum"),
        orders_30d=("orders_30d", "sum"),
        orders_90d=("orders_90d", "sum"),
        amount=("amount", "sum"),
        amount_30d=("amount_30d", "sum"),
        amount_90d=("amount_90d", "sum"),
        purchase_amount=("purchase_amount", "sum"),
        max_order_amount=("max_order_amount", "max"),
        active_months=("month", "nunique"),
        online_orders=("online_orders", "sum"),
        store_orders=("store_orders", "sum"),
        returns=("returns", "sum"),
    )
    exploded = frame[["customer_id", "categories"]].explode("categories")
    out["categories"] = exploded.groupby("customer_id")["categories"].nunique()
    latest = frame[frame["country"].notna()].sort_values("day", kind="stable")
    out["country"] = latest.groupby("customer_id")["country"].last()
    out["mean_order_amount"] = out["purchase_amount"] / out["orders"]
    out["amount_per_month"] = out["amount"] / out["active_months"]
    out["amount_trend"] = out["amount_30d"] - (out["amount_90d"] - out["amount_30d"]) / 2
    out["online_preference_ratio"] = out["online_orders"] / (out["online_orders"] + out["store_orders"])
    out["active"] = out["recency_days"] < 90
    return out.drop(columns="purchase_amount").reset_index()


def agree(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Raise AssertionError where the two differ by more than what adding doubles loses."""
    columns = [column for column in one.columns if column != "as_of"]
    pd.testing.assert_frame_equal(one[columns], other[columns], check_dtype=False, rtol=1e-9, atol=1e-7)


def seconds(work: Callable[[pa.Table], pd.DataFrame], days: pa.Table, repeats: int) -> float:
    """The median of `repeats` runs."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work(days)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    days = generated(args.customers)
    agree(with_engine(days), with_pandas(days))
    engine, pandas = (seconds(work, days, args.repeats) for work in (with_engine, with_pandas))
    print(f"{days.num_rows} customer-days of {args.customers} customers, medians of {args.repeats}:")
    print(f"DuckDB {engine:.2f} s, pandas {pandas:.2f} s; pandas takes {pandas / engine:.1f} times as long")


if __name__ == "__main__":
    main()
