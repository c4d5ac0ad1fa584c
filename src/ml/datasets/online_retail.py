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

from ml.datasets.contract import COLUMNS, PRODUCTS, TRANSACTIONS, DataSetError, require_source

NEEDED = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
NAME = "Description"  # of a product; may be missing


class OnlineRetail:
    """The table at `path`, by the day of the invoice; lines keep the file's order within a day.

    The shop published no table of its products. One snapshot a month stands for it, on the month's first day with
    sales: every product sold before that day, with its latest name and its median price until then. So no snapshot
    knows a price of its own day or a later one, and there is none for the first month. Costs and categories are not known.
    """

    name = "online_retail"

    def __init__(self, path: Path) -> None:
        try:
            names = pq.read_schema(path).names
        except pa.ArrowInvalid as error:
            raise DataSetError(f"{path}: not a parquet file: {error}") from error
        if missing := [column for column in NEEDED if column not in names]:
            raise DataSetError(f"{path}: no column {', '.join(missing)} of Online Retail; found {', '.join(names)}")
        self.path = path
        self._columns = [*NEEDED, *([NAME] if NAME in names else [])]

    def sources(self) -> tuple[str, ...]:
        return (PRODUCTS, TRANSACTIONS)

    def days(self, source: str) -> list[date]:
        require_source(self, source)
        return list(self._spans) if source == TRANSACTIONS else list(self._snapshots)

    def rows(self, source: str, day: date) -> pa.Table:
        require_source(self, source)
        if source == PRODUCTS:
            return self._snapshots.get(day, COLUMNS[PRODUCTS].empty_table())
        return self._transactions.slice(*self._spans.get(day, (0, 0)))

    @cached_property
    def _raw(self) -> pa.Table:
        """All rows sorted by `day`."""
        raw = pq.read_table(self.path, columns=self._columns)
        raw = raw.append_column("day", pc.cast(raw["InvoiceDate"], pa.date32()))
        raw = raw.append_column("line", pa.array(np.arange(raw.num_rows)))
        return raw.sort_by([("day", "ascending"), ("line", "ascending")])

    @cached_property
    def _spans(self) -> dict[date, tuple[int, int]]:
        """Offset and length of each day among the sorted rows."""
        days = self._raw["day"].combine_chunks()
        starts = [0, *(i + 1 for i in pc.indices_nonzero(pc.not_equal(days[1:], days[:-1])).to_pylist()), len(days)]
        return {days[start].as_py(): (start, end - start) for start, end in pairwise(starts) if end > start}

    @cached_property
    def _transactions(self) -> pa.Table:
        return _transactions(self._raw)

    @cached_property
    def _snapshots(self) -> dict[date, pa.Table]:
        return _snapshots(self._raw, list(self._spans))


def _transactions(raw: pa.Table) -> pa.Table:
    """All rows in the columns that upstream lands."""
    schema, quantity = COLUMNS[TRANSACTIONS], pc.cast(raw["Quantity"], pa.float64())
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
    empty = {name: pa.nulls(raw.num_rows, schema.field(name).type) for name in schema.names if name not in columns}
    return pa.table(columns | empty).select(schema.names).cast(schema)


def _snapshots(raw: pa.Table, days: list[date]) -> dict[date, pa.Table]:
    """The products as known on the first day of each month but the first, from the rows of earlier days.

    `raw` is sorted by day; `days` are its days. Free and returned goods say nothing about a price.
    """
    months = [day for before, day in pairwise(days) if (before.year, before.month) != (day.year, day.month)]
    sold = raw.filter(pc.and_(pc.greater(raw["Quantity"], 0), pc.greater(raw["UnitPrice"], 0)))
    sold = sold.filter(pc.is_valid(sold["StockCode"]))
    products = pc.cast(sold["StockCode"], pa.string()).combine_chunks().dictionary_encode()
    by_id = np.argsort(np.array(products.dictionary.to_pylist(), dtype=object), kind="stable")
    number = np.empty(len(by_id), np.int64)
    number[by_id] = np.arange(len(by_id))
    product, price = number[products.indices.to_numpy()], sold["UnitPrice"].to_numpy()
    day = sold["day"].to_numpy()
    by_price = np.lexsort((price, product))
    ids = products.dictionary.take(pa.array(by_id))
    names = pc.cast(sold[NAME], pa.string()) if NAME in sold.column_names else pa.nulls(sold.num_rows, pa.string())

    snapshots = {}
    for month in months:
        known = by_price[day[by_price] < np.datetime64(month)]
        present, start, count = np.unique(product[known], return_index=True, return_counts=True)
        if not len(present):
            continue
        median = price[known[start + (count - 1) // 2]]  # of two middle ones the lower: a price that was charged
        earlier = np.flatnonzero((day < np.datetime64(month)) & pc.is_valid(names).to_numpy(zero_copy_only=False))
        latest = np.full(len(by_id), -1)
        np.maximum.at(latest, product[earlier], earlier)
        latest = latest[present]
        snapshots[month] = pa.table(
            {
                "product_id": ids.take(pa.array(present)),
                "name": names.take(pa.array(latest, mask=latest < 0)),
                "category": pa.nulls(len(present), pa.string()),
                "list_price": median,
                "unit_cost": pa.nulls(len(present), pa.float64()),
            },
            schema=COLUMNS[PRODUCTS],
        )
    return snapshots
