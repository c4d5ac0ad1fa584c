"""The shape of every data set: its sources, and the columns that upstream lands for each.

Columns that upstream may write wrongly are text, measures are numbers. Dirty rows are kept: the loop has to clean them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Protocol

import pyarrow as pa

TRANSACTIONS = "transactions"  # facts: lines of purchases and returns
PRODUCTS = "products"  # snapshots: the whole table of products, each time it has changed

COLUMNS: Mapping[str, pa.Schema] = MappingProxyType(
    {
        TRANSACTIONS: pa.schema(
            [
                pa.field("transaction_id", pa.string()),
                pa.field("customer_id", pa.string()),
                pa.field("occurred_at", pa.string()),  # ISO 8601; local to the business unless it has an offset
                pa.field("product_id", pa.string()),
                pa.field("category", pa.string()),
                pa.field("channel", pa.string()),  # online (at a computer), mobile, store
                pa.field("country", pa.string()),
                pa.field("quantity", pa.float64()),  # negative: a return
                pa.field("unit_price", pa.float64()),
                pa.field("amount", pa.float64()),  # of the line; it has the sign of the quantity
            ]
        ),
        PRODUCTS: pa.schema(
            [
                pa.field("product_id", pa.string()),
                pa.field("name", pa.string()),
                pa.field("category", pa.string()),
                pa.field("list_price", pa.float64()),
                pa.field("unit_cost", pa.float64()),  # what the shop pays for one; NULL: not known
            ]
        ),
    }
)


class DataSet(Protocol):
    """Rows by source and day. The same data set has the same rows in the same order at any time."""

    name: str

    def sources(self) -> tuple[str, ...]:
        """The names of its sources, keys of `COLUMNS`, in the order in which a day is landed: snapshots before facts."""

    def days(self, source: str) -> list[date]:
        """The days that may have rows, oldest first. Raises DataSetError for a source that it does not have."""

    def rows(self, source: str, day: date) -> pa.Table:
        """The rows of a day in the columns of `COLUMNS[source]`; none for a day without facts, or without a snapshot.

        Raises DataSetError for a source that the data set does not have.
        """


class DataSetError(ValueError):
    """A data set that cannot be opened, or a source that it does not have; the message says what there is."""


def require_source(data: DataSet, source: str) -> None:
    """Raise DataSetError unless the data set has this source."""
    if source not in data.sources():
        raise DataSetError(f"data set {data.name} has no source {source!r}; it has {', '.join(data.sources())}")
