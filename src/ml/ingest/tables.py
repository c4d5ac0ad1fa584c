"""The tables that ingestion writes, and its lease."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

QUARANTINE = "quarantine.transactions"
SILVER = "silver.transactions"
LEASES = "ops/_leases"  # in the lake: one ingestion of a table at a time, whoever starts it
LEASE_WAIT = 900  # seconds for another one; a history of years takes minutes
