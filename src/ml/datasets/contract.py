"""The shape of every data set: the columns that upstream lands.

Columns that upstream may write wrongly are text, measures are numbers. Dirty rows are kept: the loop has to clean them.
"""

from __future__ import annotations

from datetime import date
from typing import Protocol

import pyarrow as pa

CONTRACT = pa.schema(
    [
        pa.field("transaction_id", pa.string()),
        pa.field("customer_id", pa.string()),
        pa.field("occurred_at", pa.string()),  # ISO 8601; local to the business unless it has an offset
        pa.field("product_id", pa.string()),
        pa.field("category", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("country", pa.string()),
        pa.field("quantity", pa.float64()),  # negative: a return
        pa.field("unit_price", pa.float64()),
        pa.field("amount", pa.float64()),  # of the line; it has the sign of the quantity
    ]
)


class Source(Protocol):
    """Purchases by day. The same source has the same rows in the same order at any time."""

    name: str

    def days(self) -> list[date]:
        """The days that may have rows, oldest first."""

    def rows(self, day: date) -> pa.Table:
        """The rows of a day in the columns of `CONTRACT`; no rows for a day without purchases."""


class SourceError(ValueError):
    """A source that cannot be opened; the message says what was found and which sources exist."""
