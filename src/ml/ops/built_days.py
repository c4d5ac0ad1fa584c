"""`ops.built_days`, the journal of built days: what a day's features, scores and drift were built from, when and why.

It also says which content of a day's silver has passed validation; without that, no later stage is built from the day.

One row per stage, day and run key, written after the partition that it describes. A process that dies in between
leaves a day that looks older than it is and is built again; never one that looks newer. Delta removes its own log
after a month; this table is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal

from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "ops.built_days"
MAX_FILES = 64  # small files are compacted beyond this number, because every sweep reads them all

Stage = Literal["validate", "features", "score", "monitor"]
STAGES: tuple[Stage, ...] = ("validate", "features", "score", "monitor")


@dataclass(frozen=True, kw_only=True)
class BuiltDay:
    """One build of one day by one stage."""

    stage: Stage
    day: date
    run_key: str
    # digest of the ingested days that the day's features were built from (`ml.days.input_digests`), "" when unknown;
    # validate: content of the day that passed
    inputs: str
    # of the table that was written; the newest entry of a day counts. When nothing was written: the version as it was
    version: int
    rows: int
    because: tuple[str, ...] = ()  # sentences
    own: str = ""  # features: content of the day itself
    recipe: str = ""  # features: digest of the query and its settings
    model_version: str | None = None  # score, monitor: None when there was no champion and nothing was written
    sources: Mapping[str, int] = field(default_factory=dict)  # versions of the tables that were read
    model: str | None = None  # name of the model; None when the entry belongs to every model, as a day's silver does
    at: datetime | None = None  # set by `write`


def write(entries: Sequence[BuiltDay]) -> None:
    """Record builds of one stage and one run key in one commit. An entry with the same key and day is replaced."""
    import pyarrow as pa

    now = datetime.now(UTC)
    first = entries[0]
    rows = [
        asdict(entry) | {"because": list(entry.because), "sources": json.dumps(dict(entry.sources)), "at": now}
        for entry in entries
    ]
    same_run = tables.text_predicate(stage=first.stage, run_key=first.run_key)
    where = f"{same_run} AND {tables.day_predicate('day', [entry.day for entry in entries])}"
    tables.replace(TABLE, pa.Table.from_pylist(rows, _schema()), where, partition_by=["stage"])
    tables.compact(TABLE, MAX_FILES)


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = dict.fromkeys(("inputs", "own", "recipe", "model_version", "sources", "model"), pa.string())
    return pa.schema(
        {
            "stage": pa.string(),
            "day": pa.date32(),
            "run_key": pa.string(),
            **texts,
            "version": pa.int64(),
            "rows": pa.int64(),
            "because": pa.list_(pa.string()),
            "at": pa.timestamp("us", "UTC"),
        }
    )


def read_entries(model: str, *, stage: Stage | None = None, day: date | None = None) -> list[BuiltDay]:
    """The entries of a model's days (of one stage, of one day), in the order in which the days were built."""
    import pyarrow.dataset as ds

    if not tables.exists(TABLE):
        return []
    filters = [ds.field(name) == value for name, value in (("stage", stage), ("day", day)) if value is not None]
    where = filters[0] & filters[-1] if filters else None
    entries = [
        _built_day(row) for row in tables.read(TABLE, where=where).to_pylist() if row.get("model") in (None, model)
    ]
    return sorted(entries, key=lambda entry: (entry.version, entry.at))


def _built_day(row: dict[str, Any]) -> BuiltDay:
    return BuiltDay(**row | {"because": tuple(row["because"]), "sources": json.loads(row["sources"])})


def read_newest(model: str, day: date | None = None) -> dict[Stage, dict[date, BuiltDay]]:
    """Per stage and day (or of one day), the entry that describes the partition as it is now. One read."""
    newest: dict[Stage, dict[date, BuiltDay]] = {stage: {} for stage in STAGES}
    for entry in read_entries(model, day=day):
        newest[entry.stage][entry.day] = entry
    return newest
