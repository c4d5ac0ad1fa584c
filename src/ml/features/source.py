"""The table of dated facts that a model's features and labels are built from (`features.source` in the config).

The table has a column `day`, and a column `month` if it is partitioned by month.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from ml.config import ModelConfig
from ml.errors import StageError
from ml.ops.ingested_days import CUSTOMER_DAYS, ingested_fingerprints
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow.dataset as ds


def rows_until(source: str, day: date, version: int) -> ds.Dataset:
    """One version of the source, lazily, without the days after `day`: no query sees them, whatever it does.

    The files of later months are not opened, the rows of later days are not read.
    """
    import pyarrow.dataset as ds

    rows = tables.dataset(source, version)
    until = ds.field("day") <= day
    if "month" in rows.schema.names:
        until = (ds.field("month") <= day.replace(day=1)) & until
    return rows.filter(until)


def list_ingested_days(config: ModelConfig) -> list[date]:
    """The days whose facts the source holds, oldest first.

    `silver.customer_days` has its ingested days in `ops.ingested_days`, so a day without a single row counts too. The
    days of another table are those of its rows. Raises StageError when that table does not exist.
    """
    source = config.features.source
    if source == CUSTOMER_DAYS:
        return sorted(ingested_fingerprints())
    import pyarrow.compute as pc

    try:
        return sorted(pc.unique(tables.read(source, columns=["day"])["day"]).to_pylist())
    except FileNotFoundError as error:
        raise StageError(f"{error} (features.source in config/{config.model}.yaml names it)") from error
