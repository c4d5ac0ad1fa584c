"""Rows for the queries over transactions and products: silver tables, and texts that may be numbers."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from ml.engine.types import TIMESTAMP

SILVER = pa.schema(
    {
        "day": pa.date32(), "transaction_id": pa.string(), "customer_id": pa.string(), "occurred_at": TIMESTAMP,
        "product_id": pa.string(), "category": pa.string(), "channel": pa.string(), "country": pa.string(),
        "quantity": pa.float64(), "unit_price": pa.float64(), "amount": pa.float64(), "kind": pa.string(),
        "_file": pa.string(), "_row": pa.int64(),
    }
)  # fmt: skip
PRODUCTS = pa.schema(
    {
        "product_id": pa.string(), "name": pa.string(), "category": pa.string(), "list_price": pa.float64(),
        "unit_cost": pa.float64(),
    }
)  # fmt: skip
LEAP = date(2024, 2, 29)
NUMBERS = (
    None, "1", "-1", "+2.50", "0", "-0.0", ".5", "5.", "1e3", "1E-2", "1,5", "1.234,50", "nan", "Infinity", "-inf", "six",
    "0x10", "1_000", "1e99", "99999999", "9" * 400, "0.1", "2.675", "1e-320",
)  # fmt: skip


def silver(lines: list[dict[str, Any]]) -> pa.Table:
    usual = {"customer_id": "c", "day": LEAP, "quantity": 1.0, "kind": "purchase", "channel": "online", "_file": "f"}
    rows = []
    for number, line in enumerate(lines):
        row: dict[str, Any] = usual | {"_row": number} | line
        rows.append({"occurred_at": datetime.combine(row["day"], datetime.min.time(), UTC)} | row)
    return pa.Table.from_pylist(rows, SILVER)
