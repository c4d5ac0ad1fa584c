"""The quarantine table that ingestion writes, and the lease that ingestions of one source share."""

from __future__ import annotations

QUARANTINE = "quarantine.transactions"
INGESTION_WAIT_SECONDS = 900  # for another ingestion of the same source; a history of years takes minutes
