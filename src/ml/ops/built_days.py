"""`ops.built_days`, the journal of built days: what a node's partition of a day was built from, when and why.

A node is a source's silver table (`silver.<source>`), a feature table (`features.<table>`), or a model's scores or drift
(`<model>.score`, `<model>.monitor`). The entry of a source says which content of a day has passed validation; without it
nothing is built from the day.

One row per node, day and run key, written after the partition that it describes. A process that dies in between
leaves a day that looks older than it is and is built again; never one that looks newer. Delta removes its own log
after a month; this table is kept.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from ml.ops import by_node
from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "ops.built_days"
MAX_FILES = 12  # of a node: small files are compacted beyond this number, because every sweep reads them all


@dataclass(frozen=True, kw_only=True)
class BuiltDay:
    """One build of one day of one node."""

    node: str
    day: date
    run_key: str
    # digest of what the partition was built from (`ml.graph`), "" when unknown; of a source: the content that passed
    inputs: str
    # of the table that was written; the newest entry of a day counts. When nothing was written: the version as it was
    version: int
    rows: int
    content: str = ""  # digest of the rows; "" when nothing was written
    because: tuple[str, ...] = ()  # sentences
    own: str = ""  # of a feature table: digest of the day's own inputs, without those of the days before it
    recipe: str = ""  # digest of the query and its settings; of scores: of the settings that reach them
    model_version: str | None = None  # scores, drift: None when there was no champion and nothing was written
    sources: Mapping[str, int] = field(default_factory=dict)  # versions of the tables that were read
    at: datetime | None = None  # set by `write`


def write(entries: Sequence[BuiltDay]) -> None:
    """Record builds of one node and one run key in one commit. An entry with the same key and day is replaced."""
    import pyarrow as pa

    now = datetime.now(UTC)
    first = entries[0]
    rows = [
        asdict(entry) | {"because": list(entry.because), "sources": json.dumps(dict(entry.sources)), "at": now}
        for entry in entries
    ]
    same_run = tables.text_predicate(node=first.node, run_key=first.run_key)
    where = f"{same_run} AND {tables.day_predicate('day', [entry.day for entry in entries])}"
    tables.replace(TABLE, pa.Table.from_pylist(rows, schema()), where, partition_by=["node"])
    tables.compact(TABLE, MAX_FILES, node=first.node)


def schema() -> pa.Schema:
    import pyarrow as pa

    texts = dict.fromkeys(("inputs", "own", "recipe", "content", "model_version", "sources"), pa.string())
    return pa.schema(
        {
            "node": pa.string(),
            "day": pa.date32(),
            "run_key": pa.string(),
            **texts,
            "version": pa.int64(),
            "rows": pa.int64(),
            "because": pa.list_(pa.string()),
            "at": pa.timestamp("us", "UTC"),
        }
    )


def read_entries(*, node: str | None = None, day: date | None = None) -> list[BuiltDay]:
    """The entries (of one node, of one day), in the order in which the days were built."""
    return _read(None if node is None else [node], day)


def read_newest(nodes: Collection[str] | None = None, day: date | None = None) -> dict[str, dict[date, BuiltDay]]:
    """Per node and day (or of one day), the entry that describes the partition as it is now. One read.

    A node without entries has an empty one.
    """
    newest: defaultdict[str, dict[date, BuiltDay]] = defaultdict(dict)
    for entry in _read(nodes, day):
        newest[entry.node][entry.day] = entry
    return newest


def _read(nodes: Collection[str] | None, day: date | None) -> list[BuiltDay]:
    import pyarrow as pa
    import pyarrow.dataset as ds

    if not tables.exists(TABLE):
        return []
    filters = [] if nodes is None else [ds.field("node").isin(pa.array(list(nodes), pa.string()))]
    filters += [] if day is None else [ds.field("day") == day]
    where = filters[0] & filters[-1] if filters else None
    entries = [_built_day(row) for row in by_node.scan(TABLE, "node").to_table(filter=where).to_pylist()]
    return sorted(entries, key=lambda entry: (entry.version, entry.at))


def _built_day(row: dict[str, Any]) -> BuiltDay:
    return BuiltDay(**row | {"because": tuple(row["because"]), "sources": json.loads(row["sources"])})
