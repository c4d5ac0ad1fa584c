"""`ops.ingested_days`: one row per ingested day, with the fingerprint of its files and the digest of its rows.

Ingestion writes the row last, after `silver.transactions` and `silver.customer_days` hold the day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from ml.storage import tables

INGESTED_DAYS = "ops.ingested_days"
SILVER = "silver.transactions"
CUSTOMER_DAYS = "silver.customer_days"  # one row per customer and day


@dataclass(frozen=True, kw_only=True)
class IngestedDay:
    """A day as it is in silver."""

    content: str  # digest of its rows
    fingerprint: str  # of its files
    follow: bool  # the later stages are to follow; False for the days of a history between first and last
    run_key: str


def read_ingested_days(version: int | None = None) -> dict[date, IngestedDay]:
    """Every ingested day, from one version of `ops.ingested_days`; empty before the first ingestion."""
    if not tables.exists(INGESTED_DAYS):
        return {}
    return {row["day"]: _ingested_day(row) for row in tables.read(INGESTED_DAYS, version=version).to_pylist()}


def _ingested_day(row: dict[str, Any]) -> IngestedDay:
    return IngestedDay(
        # rows from before these columns existed: a change of files counts as a change, and no stage has to follow
        content=row.get("content") or row["fingerprint"],
        follow=bool(row.get("follow")),
        fingerprint=row["fingerprint"],
        run_key=row.get("run_key") or "",
    )


def ingested_fingerprints() -> dict[date, str]:
    """The file fingerprint with which each day was ingested; empty before the first ingestion."""
    if not tables.exists(INGESTED_DAYS):
        return {}
    rows = tables.read(INGESTED_DAYS, columns=["day", "fingerprint"])
    return dict(zip(rows["day"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))
