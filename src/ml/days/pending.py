"""Pending work per stage: which days to request now, and from which inputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, datetime

from ml.config import ModelConfig
from ml.console import days_in_words
from ml.days.due import due_days
from ml.days.freshness import read_freshness
from ml.landing.listing import list_landing

log = logging.getLogger(__name__)


SETTLING = 2  # a day that was asked for more often than this holds up no other


def pending_work(
    model: ModelConfig, asked: Mapping[date, tuple[str, int]], now: datetime
) -> dict[str, dict[date, tuple[str, bool]]]:
    """What every stage has to do: of each day, what it is to be made from, and whether nothing else brings it.

    `asked`: the fingerprint with which each day's ingestion was asked for, and how often. `now`: when it is looked, to
    tell whether files still come in. What is left to people is told in the log.
    """
    freshness, found = read_freshness(model.model), list_landing(model.landing.table)
    for stray in found.strays:
        log.info("left where it is: %s: %s", stray.name, stray.why)
    fingerprints = {day: one.fingerprint for day, one in freshness.ingested.items()}
    held = {day: fingerprint for day, (fingerprint, _) in freshness.held.items()}
    fingerprints_asked = {day: of for day, (of, _) in asked.items()}
    bulk = model.landing.bulk_days
    due = due_days(found.days, fingerprints, fingerprints_asked, bulk, held, now)
    if due.why:
        log.warning(due.why)
    unsettled = [one.day for one in (*due.days, *due.coming)]
    unsettled += [one.day for one in due.waiting if asked[one.day][1] <= SETTLING]
    if left := freshness.left(model.features.restate_days):
        log.warning("behind, and older than the newest features.restate_days: %s: backfill them", days_in_words(left))
    later = freshness.later(model.features.restate_days, unsettled)
    ingest = {day: (behind.of, False) for day, behind in later.pop("validate").items()}
    ingest |= {one.day: (one.fingerprint, True) for one in (*due.waiting, *due.days)}
    return {"ingest": ingest} | {
        stage: {day: (behind.of, not behind.brought) for day, behind in of_stage.items()}
        for stage, of_stage in later.items()
    }
