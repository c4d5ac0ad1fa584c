"""`ops.ingested_days`: one row per source and ingested day, with the fingerprint of its files and the digests of its rows.

Ingestion writes the row last, after all silver tables of the source hold the day.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.ops import by_node
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

INGESTED_DAYS = "ops.ingested_days"
COUNTS = ("files", "received", "silver", "quarantined", "duplicates")


@dataclass(frozen=True, kw_only=True)
class IngestedDay:
    """A day of a source as it is in silver."""

    contents: Mapping[str, str]  # digest of its rows, by silver table
    fingerprint: str  # of its files
    follow: bool  # later nodes are to follow; False for the days of a history between first and last
    run_key: str

    @property
    def content(self) -> str:
        """16 hex digits that change with the rows of any of its tables."""
        return hashlib.sha256(json.dumps(dict(self.contents), sort_keys=True).encode()).hexdigest()[:16]


def schema() -> pa.Schema:
    import pyarrow as pa

    texts = dict.fromkeys(("run_key", "contents"), pa.string())
    counts = dict.fromkeys(COUNTS, pa.int64())
    fields = {"source": pa.string(), "day": pa.date32(), "fingerprint": pa.string(), **counts, **texts}
    return pa.schema(fields | {"follow": pa.bool_()})


def write(source: str, marks: Sequence[Mapping[str, Any]]) -> int:
    """Record ingested days: of each its day, fingerprint, COUNTS, run_key, contents and follow. The table's version."""
    import pyarrow as pa

    rows = [{**mark, "source": source, "contents": json.dumps(mark["contents"], sort_keys=True)} for mark in marks]
    days = tables.day_predicate("day", [mark["day"] for mark in marks])
    where = f"{tables.text_predicate(source=source)} AND {days}"
    return tables.replace(INGESTED_DAYS, pa.Table.from_pylist(rows, schema()), where, partition_by=["source"])


def read_rows(source: str, days: Sequence[date] | None = None, version: int | None = None) -> list[dict[str, Any]]:
    """The rows of a source's ingested days (of all, or of `days`), with `contents` as a dict."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    if not tables.exists(INGESTED_DAYS):
        return []
    where = ds.field("source") == source
    if days is not None:
        where &= ds.field("day").isin(pa.array(days, pa.date32()))
    rows = by_node.scan(INGESTED_DAYS, "source", version).to_table(filter=where).to_pylist()
    return [row | {"contents": json.loads(row["contents"])} for row in rows]


def read_ingested_days(source: str, version: int | None = None) -> dict[date, IngestedDay]:
    """Every ingested day of a source, from one version of the table; empty before the first ingestion."""
    return {row["day"]: _ingested_day(row) for row in read_rows(source, version=version)}


def read_all_ingested_days(version: int | None = None) -> dict[str, dict[date, IngestedDay]]:
    """The ingested days of every source; a source without any has an empty one. One read."""
    ingested: defaultdict[str, dict[date, IngestedDay]] = defaultdict(dict)
    if tables.exists(INGESTED_DAYS):
        for row in by_node.scan(INGESTED_DAYS, "source", version).to_table().to_pylist():
            ingested[row["source"]][row["day"]] = _ingested_day(row | {"contents": json.loads(row["contents"])})
    return ingested


def _ingested_day(row: Mapping[str, Any]) -> IngestedDay:
    return IngestedDay(
        contents=row["contents"], follow=row["follow"], fingerprint=row["fingerprint"], run_key=row["run_key"]
    )


def ingested_fingerprints(source: str) -> dict[date, str]:
    """The file fingerprint with which each day of a source was ingested; empty before the first ingestion."""
    import pyarrow.dataset as ds

    if not tables.exists(INGESTED_DAYS):
        return {}
    of_source = ds.field("source") == source
    rows = by_node.scan(INGESTED_DAYS, "source").to_table(columns=["day", "fingerprint"], filter=of_source)
    return dict(zip(rows["day"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))
