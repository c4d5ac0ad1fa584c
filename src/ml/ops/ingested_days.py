"""`ops.ingested_days`: one row per ingested day, with the fingerprint of its files and the digest of its rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from ml.ops import ingested_days
from ml.storage import tables

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IngestedDay:
    """A day as it is in silver."""

    content: str  # digest of its rows
    fingerprint: str  # of its files
    follow: bool  # the later stages are to follow; False for the days of a history between first and last
    run_key: str


def read_ingested_days(version: int | None = None) -> dict[date, IngestedDay]:
    """Every ingested day (as `ops.ingested_days` was at a version); none before the first ingestion."""
    if not tables.exists(ingested_days.INGESTED_DAYS):
        return {}
    found = {}
    for row in tables.read(ingested_days.INGESTED_DAYS, version=version).to_pylist():
        # rows from before these columns were there: a file's change counts as a change, and nothing is expected
        content, follow = row.get("content") or row["fingerprint"], bool(row.get("follow"))
        found[row["day"]] = IngestedDay(content, row["fingerprint"], follow, row.get("run_key") or "")
    return found


INGESTED_DAYS = "ops.ingested_days"


def ingested_fingerprints() -> dict[date, str]:
    """The fingerprint that each ingested day had; none before the first ingestion."""
    if not tables.exists(INGESTED_DAYS):
        return {}
    rows = tables.read(INGESTED_DAYS, columns=["day", "fingerprint"])
    return dict(zip(rows["day"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))
