"""Pending work per stage: which days to request now, and from which inputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from ml.config import ModelConfig
from ml.console import days_in_words
from ml.days.due import due_days
from ml.days.freshness import read_freshness
from ml.landing.listing import list_landing

log = logging.getLogger(__name__)

MAX_REQUESTS_TO_WAIT_FOR = 2  # a day that was requested more often than this delays no other day


@dataclass(frozen=True)
class Request:
    """A stage is to be run for a day."""

    day: date
    inputs: str  # digest of the day's inputs (ingest: fingerprint of its files); other inputs are another request
    trigger_now: bool  # False when an event should trigger it: then only if that event was lost


def pending_work(
    config: ModelConfig, requested: Mapping[date, tuple[str, int]], now: datetime
) -> dict[str, list[Request]]:
    """Pending work per stage: each day's input digest, and whether the sweep must trigger it.

    `requested`: the fingerprint with which each day's ingestion was requested, and how often. `now` tells whether
    files still arrive. What is left to people is logged.
    """
    freshness, landing = read_freshness(config.model), list_landing(config.landing.table)
    for stray in landing.strays:
        log.info("not used: %s: %s", stray.name, stray.why)
    due = due_days(
        landing.days,
        {day: ingested.fingerprint for day, ingested in freshness.ingested.items()},
        {day: fingerprint for day, (fingerprint, _) in requested.items()},
        config.landing.bulk_days,
        {day: fingerprint for day, (fingerprint, _) in freshness.held.items()},
        now,
    )
    if due.why:
        log.warning(due.why)
    unsettled = [landed.day for landed in (*due.days, *due.coming)]
    unsettled += [landed.day for landed in due.waiting if requested[landed.day][1] <= MAX_REQUESTS_TO_WAIT_FOR]
    restate_days = config.features.restate_days
    if old := freshness.behind_and_old(restate_days):
        log.warning("behind, and older than the newest features.restate_days: %s: backfill them", days_in_words(old))
    stages = freshness.pending(restate_days, unsettled)
    ingest = {day: Request(day, behind.inputs, trigger_now=False) for day, behind in stages.pop("validate").items()}
    ingest |= {
        landed.day: Request(landed.day, landed.fingerprint, trigger_now=True) for landed in (*due.waiting, *due.days)
    }
    return {"ingest": list(ingest.values())} | {
        stage: [Request(day, behind.inputs, behind.trigger_now) for day, behind in days.items()]
        for stage, days in stages.items()
    }
