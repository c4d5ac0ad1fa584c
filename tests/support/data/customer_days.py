"""Customer days computed from a few purchases by the real query."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ml.engine import open_engine
from ml.engine.types import TIMESTAMP

SILVER = pa.schema(
    {
        "day": pa.date32(), "transaction_id": pa.string(), "customer_id": pa.string(), "occurred_at": TIMESTAMP,
        "product_id": pa.string(), "category": pa.string(), "channel": pa.string(), "country": pa.string(),
        "quantity": pa.float64(), "unit_price": pa.float64(), "amount": pa.float64(), "kind": pa.string(),
        "_file": pa.string(), "_row": pa.int64(),
    }
)  # fmt: skip


def customer_days(lines: list[dict[str, Any]]) -> pa.Table:
    rows = [{"_row": n} | row for n, row in enumerate(lines)]
    return open_engine("duckdb").run("sources/customer_days", {"transactions": pa.Table.from_pylist(rows, SILVER)})
