"""The silver tables of some days: the source's own, and the daily tables that are made from it; with their digests.

A daily table has one query over the clean rows, by the source's name, without parameters. It gives a column `day`, and
is partitioned by `month` when it gives that column too, else by `day`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ml.config import ConfigError
from ml.engine import EMPTY_DIGEST, open_engine
from ml.ingest.clean_query import check_query
from ml.storage import tables

if TYPE_CHECKING:
    from pathlib import Path

    from ml.config import SourceConfig

Rows: TypeAlias = pa.Table | ds.Dataset


@dataclass(frozen=True)
class DayTable:
    """The rows of some days for one table. `digests` has the digest of each day that has rows."""

    name: str
    rows: Rows
    partition: str
    digests: Mapping[date, str]

    def digest(self, day: date) -> str:
        return self.digests.get(day, EMPTY_DIGEST)


def make_tables(source: SourceConfig, silver: Path, days: Sequence[date]) -> Iterator[DayTable]:
    """The tables of `days`, made from the parquet file `silver` of clean rows: the source's own first, then daily ones.

    Raises ConfigError for a query that does not give what is needed.
    """
    clean_rows = ds.dataset(silver).filter(pc.field("day").isin(pa.array(days, pa.date32())))
    # one scanner per reader: a scan can be read once
    digests = open_engine().digest(clean_rows.scanner(**tables.STREAMING), by="day")
    yield DayTable(source.table, clean_rows, "day", digests)
    for table, query in source.daily.items():
        rows = open_engine().run(query, {source.name: clean_rows.scanner(**tables.STREAMING)})
        partition = _check_daily(query, rows, days)
        yield DayTable(table, rows, partition, open_engine().digest(rows, by="day"))


def check_daily_queries(source: SourceConfig) -> None:
    """Raise ConfigError for a query of a daily table that is missing, or needs what it is not given."""
    for query in source.daily.values():
        check_query(query, {source.name}, {})


def _check_daily(query: str, rows: pa.Table, days: Sequence[date]) -> str:
    """The column by which a daily table is partitioned. Raises ConfigError when the rows are not of these days."""
    path = check_query(query).path
    for name in ("day", "month"):
        if name in rows.schema.names and rows.schema.field(name).type != pa.date32():
            raise ConfigError(f"{path}: {name} is {rows.schema.field(name).type}; a date is needed")
    if "day" not in rows.schema.names:
        raise ConfigError(f"{path}: gives no day; found {', '.join(rows.schema.names)}")
    if other := set(pc.unique(rows["day"]).to_pylist()) - set(days):
        names = ", ".join(sorted(map(str, other)))
        raise ConfigError(f"{path}: gives rows of {names}, a day that it got no rows of; give day unchanged")
    return "month" if "month" in rows.schema.names else "day"
