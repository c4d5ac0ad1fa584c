"""`ops.held_days`: which days are held, why, and with which files, until they are ingested or their files change.

One row per source and held day: source, day, fingerprint (of the files that were refused), reasons (one sentence each) and the run key
of the ingestion that held it. The rule of due days (`ml.days.due.due_days`) and the people on call read it: a held
day starts again when its files change, not before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from ml.ops import by_node
from ml.storage import tables

HELD_DAYS = "ops.held_days"
SCHEMA = pa.schema(
    {"source": pa.string(), "day": pa.date32(), "fingerprint": pa.string()}
    | {"reasons": pa.list_(pa.string()), "run_key": pa.string()}
)


class Held(defaultdict[date, list[str]]):
    """Reasons, as sentences, by day."""

    def __init__(self) -> None:
        super().__init__(list)

    def exclude_from(self, days: Sequence[date]) -> list[date]:
        """The days that have no reason here."""
        return [day for day in days if day not in self]

    def message(self) -> str:
        """One line per reason: `<day>: <reason>`."""
        return "\n".join(f"{day}: {reason}" for day in sorted(self) for reason in self[day])


def write(source: str, held: Held, days: Sequence[date], fingerprints: Mapping[date, str], run_key: str) -> None:
    """Record which of a source's `days` are held, and why; the others of `days` are no longer held.

    Call it before the other days' rows in `ops.ingested_days` are written: a process that dies in between leaves a
    day that is neither held nor ingested, and so is requested again.
    """
    rows = [
        {"source": source, "day": day, "fingerprint": fingerprints[day], "reasons": held[day], "run_key": run_key}
        for day in sorted(held)
        if day in fingerprints
    ]
    if rows or set(days) & set(read(source)):
        where = f"{tables.text_predicate(source=source)} AND {tables.day_predicate('day', days)}"
        tables.replace(HELD_DAYS, pa.Table.from_pylist(rows, SCHEMA), where, partition_by=["source"])


def read(source: str, days: Sequence[date] | None = None) -> dict[date, dict[str, Any]]:
    """Per held day of a source (of all, or of `days`): fingerprint, reasons and run_key."""
    return {day: row for day, row in read_all().get(source, {}).items() if days is None or day in days}


def read_all() -> dict[str, dict[date, dict[str, Any]]]:
    """The held days of every source; a source without any has an empty one. One read: there are few."""
    held: defaultdict[str, dict[date, dict[str, Any]]] = defaultdict(dict)
    if tables.exists(HELD_DAYS):
        for row in by_node.scan(HELD_DAYS, "source").to_table().to_pylist():
            held[row.pop("source")][row.pop("day")] = row
    return held
