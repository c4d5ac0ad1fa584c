"""The journal of built days: what each day's features, scores and drift were made from, when, by whom and why.

And which content of a day's silver has passed its validation, without which nothing is made from it.

`ops.built_days` has one row per stage, day and run key, written after the partition it tells of. So a process that
dies in between leaves a day that looks older than it is, which is built again; never one that looks newer.
Delta forgets its own log after a month; this table is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal

from ml.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "ops.built_days"
FILES = 64  # small ones; more are put together, since every sweep reads them all

Stage = Literal["validate", "features", "score", "monitor"]
STAGES: tuple[Stage, ...] = ("validate", "features", "score", "monitor")


@dataclass(frozen=True)
class BuiltDay:
    """One building of one day by one stage."""

    stage: Stage
    day: date
    run_key: str
    inputs: str  # what the day's features were made from: digest of ingested days (`ml.days`); "" when not known;
    # validate: content of the day that passed
    version: int  # of the table that was written, newest of the day counts; of nothing written, the table's as it was
    rows: int
    because: tuple[str, ...]  # sentences
    own: str = ""  # features: content of the day itself
    recipe: str = ""  # features: digest of the query and its settings
    model_version: str | None = None  # score, monitor: None when there was no champion and nothing was written
    sources: Mapping[str, int] = field(default_factory=dict)  # versions of the tables that were read
    model: str | None = None  # whose; None: of every model's, as a day's silver is
    at: datetime | None = None  # set by `write`


def write(entries: Sequence[BuiltDay]) -> None:
    """Note what was built, in one commit. The same stage, day and run key again replaces the entry."""
    import pyarrow as pa

    now = datetime.now(UTC)
    first = entries[0]
    rows = [
        asdict(entry) | {"because": list(entry.because), "sources": json.dumps(dict(entry.sources)), "at": now}
        for entry in entries
    ]
    same = tables.text_predicate(stage=first.stage, run_key=first.run_key)
    where = f"{same} AND {tables.day_predicate('day', [entry.day for entry in entries])}"
    tables.replace(TABLE, pa.Table.from_pylist(rows, _schema()), where, partition_by=["stage"])
    tables.tidy(TABLE, FILES)


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


def entries(model: str, *, stage: Stage | None = None, day: date | None = None) -> list[BuiltDay]:
    """What was noted of a model's days (of a stage, of a day), in the order in which it was built."""
    import pyarrow.dataset as ds

    if not tables.exists(TABLE):
        return []
    asked = [ds.field(name) == value for name, value in (("stage", stage), ("day", day)) if value is not None]
    where = asked[0] & asked[-1] if asked else None
    found = [
        BuiltDay(**row | {"because": tuple(row["because"]), "sources": json.loads(row["sources"])})
        for row in tables.read(TABLE, where=where).to_pylist()
        if row.get("model") in (None, model)
    ]
    return sorted(found, key=lambda entry: (entry.version, entry.at))


def newest(model: str, day: date | None = None) -> dict[Stage, dict[date, BuiltDay]]:
    """Of each stage of a model and each day (or one day), the entry that tells how its partition is now. One read."""
    found: dict[Stage, dict[date, BuiltDay]] = {stage: {} for stage in STAGES}
    for entry in entries(model, day=day):
        found[entry.stage][entry.day] = entry
    return found
