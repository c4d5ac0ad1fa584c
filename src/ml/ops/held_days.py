"""`ops.held_days`: which days are held, why, and with which files, until they are ingested or their files change.

One row per held day: day, fingerprint (of the files that were refused), reasons (one sentence each) and the run key
of the ingestion that held it. The rule of due days (`ml.days.due.due_days`) and the people on call read it: a held
day starts again when its files change, not before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml.storage import tables

HELD_DAYS = "ops.held_days"
SCHEMA = pa.schema(
    {"day": pa.date32(), "fingerprint": pa.string(), "reasons": pa.list_(pa.string()), "run_key": pa.string()}
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


def write(held: Held, days: Sequence[date], fingerprints: Mapping[date, str], run_key: str) -> None:
    """Record which of `days` are held, and why; the others of `days` are no longer held.

    Call it before the other days' rows in `ops.ingested_days` are written: a process that dies in between leaves a
    day that is neither held nor ingested, and so is requested again.
    """
    rows = [
        {"day": day, "fingerprint": fingerprints[day], "reasons": held[day], "run_key": run_key}
        for day in sorted(held)
        if day in fingerprints
    ]
    if rows or set(days) & set(read()):
        tables.replace(HELD_DAYS, pa.Table.from_pylist(rows, SCHEMA), tables.day_predicate("day", days))


def read(days: Sequence[date] | None = None) -> dict[date, dict[str, Any]]:
    """Per held day (of all, or of `days`): fingerprint, reasons and run_key. Empty before the first held day."""
    if not tables.exists(HELD_DAYS):
        return {}
    where = None if days is None else pc.field("day").isin(pa.array(days, pa.date32()))
    return {row.pop("day"): row for row in tables.read(HELD_DAYS, where=where).to_pylist()}
