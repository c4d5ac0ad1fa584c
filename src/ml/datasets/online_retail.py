"""UCI Online Retail: every line of every invoice of a UK gift shop, December 2010 to December 2011.

541,909 lines, with dirty rows: a quarter has no customer, cancellations have negative quantities (and
invoice numbers that start with C), some prices are zero or below. Source: Chen, Sain and Guo (2012),
https://archive.ics.uci.edu/dataset/352/online+retail.
"""

from __future__ import annotations

from datetime import date
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml.datasets.contract import CONTRACT, SourceError

COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")


class OnlineRetail:
    """The table at `path`, by the day of the invoice; lines keep the file's order within a day."""

    name = "online_retail"

    def __init__(self, path: Path) -> None:
        try:
            names = pq.read_schema(path).names
        except pa.ArrowInvalid as error:
            raise SourceError(f"{path}: not a parquet file: {error}") from error
        if missing := [column for column in COLUMNS if column not in names]:
            raise SourceError(f"{path}: no column {', '.join(missing)} of Online Retail; found {', '.join(names)}")
        self.path = path

    @cached_property
    def _lines(self) -> tuple[pa.Table, dict[date, tuple[int, int]]]:
        """All rows sorted by day, and each day's offset and length."""
        raw = pq.read_table(self.path, columns=list(COLUMNS))
        raw = raw.append_column("day", pc.cast(raw["InvoiceDate"], pa.date32()))
        raw = raw.append_column("line", pa.array(np.arange(raw.num_rows)))
        raw = raw.sort_by([("day", "ascending"), ("line", "ascending")])
        days = raw["day"].combine_chunks()
        starts = [0, *(i + 1 for i in pc.indices_nonzero(pc.not_equal(days[1:], days[:-1])).to_pylist()), len(days)]
        spans = {days[start].as_py(): (start, end - start) for start, end in pairwise(starts) if end > start}
        return _contract(raw), spans

    def days(self) -> list[date]:
        return list(self._lines[1])

    def rows(self, day: date) -> pa.Table:
        rows, spans = self._lines
        return rows.slice(*spans.get(day, (0, 0)))


def _contract(raw: pa.Table) -> pa.Table:
    quantity = pc.cast(raw["Quantity"], pa.float64())
    customer = raw["CustomerID"]
    if pa.types.is_floating(customer.type):  # some readers turn a column with gaps into numbers
        customer = pc.cast(customer, pa.int64())
    columns = {
        "transaction_id": pc.cast(raw["InvoiceNo"], pa.string()),
        "customer_id": pc.cast(customer, pa.string()),
        "occurred_at": pc.strftime(pc.cast(raw["InvoiceDate"], pa.timestamp("s")), "%Y-%m-%dT%H:%M:%S"),
        "product_id": pc.cast(raw["StockCode"], pa.string()),
        "channel": pa.repeat("online", raw.num_rows),
        "country": pc.cast(raw["Country"], pa.string()),
        "quantity": quantity,
        "unit_price": raw["UnitPrice"],
        "amount": pc.divide(pc.round(pc.multiply(pc.multiply(quantity, raw["UnitPrice"]), 100.0)), 100.0),  # in pence
    }
    empty = {name: pa.nulls(raw.num_rows, CONTRACT.field(name).type) for name in CONTRACT.names if name not in columns}
    return pa.table(columns | empty).select(CONTRACT.names).cast(CONTRACT)
