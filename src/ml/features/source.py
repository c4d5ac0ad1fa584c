"""The dated facts that a model's features and labels are made from: which days are in, and what was known on one.

`features.source` in the config names the table; it has a `day`, and a `month` where it is partitioned by one. Whoever
asks for what was known on a day is given no later row, whatever the query does with it.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from ml.config import ModelConfig
from ml.errors import StageError
from ml.ops.ingested_days import ingested_fingerprints
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow.dataset as ds

CUSTOMER_DAYS = "silver.customer_days"  # what `ingest` makes


def short_name(table: str) -> str:
    """`silver.customer_days` → `customer_days`: what queries call it."""
    return table.partition(".")[2]


def known_on(source: str, day: date, version: int) -> ds.Dataset:
    """One version of the source up to `day`, lazily: later months are not opened, later days not read."""
    import pyarrow.dataset as ds

    rows = tables.dataset(source, version)
    until = ds.field("day") <= day
    if "month" in rows.schema.names:
        until = (ds.field("month") <= day.replace(day=1)) & until
    return rows.filter(until)


def ingested_days_of(model: ModelConfig) -> list[date]:
    """The days whose facts are in, oldest first.

    Of what `ingest` makes, its marks tell; a day without a single row is in, too. Of another table, its rows do.
    """
    source = model.features.source
    if source == CUSTOMER_DAYS:
        return sorted(ingested_fingerprints())
    import pyarrow.compute as pc

    try:
        return sorted(pc.unique(tables.read(source, columns=["day"])["day"]).to_pylist())
    except FileNotFoundError as error:
        raise StageError(f"{error} (features.source in config/{model.model}.yaml names it)") from error
