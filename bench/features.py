"""Features of one day over generated transactions: the ratio of the engine's time to that of a plain pandas groupby.

    python bench/features.py [--customers 100000] [--repeats 3]

Both start from the same `customer_days` in memory and return one row per customer. pandas computes the same
columns as a notebook would; its result is compared with the engine's before the measurement.
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


def generate_days(customers: int, seed: int = 0) -> pa.Table:
    """A year of `customer_days`: twenty days of purchases per customer."""
    random = np.random.default_rng(seed)
    size = customers * 20
    ids = np.char.add("C", np.char.zfill(np.arange(customers).astype(str), 7))
    keys = np.unique(random.integers(0, customers, size) * 366 + random.integers(0, 366, size))
    customer, days_ago = keys // 366, keys % 366
    day = np.datetime64(AS_OF, "D") - days_ago
    amount = np.round(random.lognormal(3, 1, len(keys)), 2)
    channel = random.integers(0, 3, len(keys))
    categories = pa.array([["candles"], ["garden", "toys"], ["gifts", "kitchen", "toys"]])
    return pa.table(
        {
            "customer_id": pa.array(ids).take(pa.array(customer)),
            "day": pa.array(day),
            "month": pa.array(day.astype("datetime64[M]").astype("datetime64[D]")),
            "orders": np.ones(len(keys), np.int64),
            "amount": amount,
            "purchase_amount": amount,
            "returns": np.zeros(len(keys), np.int64),
            "max_order_amount": amount,
            "online_orders": (channel == 0).astype(np.int64),
            "mobile_orders": (channel == 1).astype(np.int64),
            "store_orders": (channel == 2).astype(np.int64),
            "categories": categories.take(pa.array(random.integers(0, 3, len(keys)))),
            "country": pa.array(["DE", "GB", None]).take(pa.array(random.integers(0, 3, len(keys)))),
        }
    )


def with_engine(days: pa.Table) -> pd.DataFrame:
    features = open_engine("duckdb").run(
        "features/customers", {"customer_days": days}, {"as_of": AS_OF, "active_days": 90}
    )
    return features.to_pandas()


def with_pandas(days: pa.Table) -> pd.DataFrame:
    frame = days.to_pandas()
    frame["age"] = (pd.Timestamp(AS_OF) - pd.to_datetime(frame["day"])).dt.days
    for window in (30, 90):
        recent = frame["age"] < window
        frame[f"orders_{window}d"] = frame["orders"].where(recent, 0)
        frame[f"amount_{window}d"] = frame["amount"].where(recent, 0.0)
    grouped = frame.groupby("customer_id", sort=True)
    features = grouped.agg(
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
        mobile_orders=("mobile_orders", "sum"),
        store_orders=("store_orders", "sum"),
        returns=("returns", "sum"),
    )
    exploded = frame[["customer_id", "categories"]].explode("categories")
    features["categories"] = exploded.groupby("customer_id")["categories"].nunique()
    latest = frame[frame["country"].notna()].sort_values("day", kind="stable")
    features["country"] = latest.groupby("customer_id")["country"].last()
    features["mean_order_amount"] = features["purchase_amount"] / features["orders"]
    features["amount_per_month"] = features["amount"] / features["active_months"]
    features["amount_trend"] = features["amount_30d"] - (features["amount_90d"] - features["amount_30d"]) / 2
    features["online_preference_ratio"] = features["online_orders"] / (
        features["online_orders"] + features["store_orders"]
    )
    features["active"] = features["recency_days"] < 90
    return features.drop(columns="purchase_amount").reset_index()


def assert_equal(engine: pd.DataFrame, pandas: pd.DataFrame) -> None:
    """Raise AssertionError when the two differ by more than the rounding of sums of doubles."""
    columns = [column for column in engine.columns if column != "as_of"]
    pd.testing.assert_frame_equal(engine[columns], pandas[columns], check_dtype=False, rtol=1e-9, atol=1e-7)


def seconds(work: Callable[[pa.Table], pd.DataFrame], days: pa.Table, repeats: int) -> float:
    """The median duration of `repeats` runs."""
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        work(days)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    days = generate_days(args.customers)
    assert_equal(with_engine(days), with_pandas(days))
    engine, pandas = (seconds(work, days, args.repeats) for work in (with_engine, with_pandas))
    print(f"{days.num_rows} customer-days of {args.customers} customers, medians of {args.repeats}:")
    print(f"DuckDB {engine:.2f} s, pandas {pandas:.2f} s; pandas takes {pandas / engine:.1f} times as long")


if __name__ == "__main__":
    main()
