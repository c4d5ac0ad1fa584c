"""Days that are held, as data: why each was held and as which files, until it goes through or its files change.

`ops.held_days` has one row per held day: day, fingerprint (of the files that were refused), reasons (one
sentence each) and the run key of the ingestion that held it. What is due (`ml.days.due.due_days`) and the people on
call read it: a held day starts again when its files change, not before.
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
    """Why days are held, in sentences."""

    def __init__(self) -> None:
        super().__init__(list)

    def others(self, days: Sequence[date]) -> list[date]:
        """The days that are not held."""
        return [day for day in days if day not in self]

    def told(self) -> str:
        return "\n".join(f"{day}: {why}" for day in sorted(self) for why in self[day])


def note(held: Held, days: Sequence[date], fingerprints: Mapping[date, str], run_key: str) -> None:
    """Write which of `days` are held, and why; the others of them are not held any more.

    Called before the other days' marks are written: whoever dies in between leaves a day that is
    neither held nor ingested, and so is asked for again.
    """
    rows = [
        {"day": day, "fingerprint": fingerprints[day], "reasons": held[day], "run_key": run_key}
        for day in sorted(held)
        if day in fingerprints
    ]
    if rows or set(days) & set(read()):
        tables.replace(HELD_DAYS, pa.Table.from_pylist(rows, SCHEMA), tables.day_predicate("day", days))


def read(days: Sequence[date] | None = None) -> dict[date, dict[str, Any]]:
    """The held days (of some days), each with its fingerprint, reasons and run key; none before the first one."""
    if not tables.exists(HELD_DAYS):
        return {}
    where = None if days is None else pc.field("day").isin(pa.array(days, pa.date32()))
    return {row.pop("day"): row for row in tables.read(HELD_DAYS, where=where).to_pylist()}
