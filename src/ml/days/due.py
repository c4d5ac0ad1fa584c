"""Which landed days are due: those whose fingerprint is neither the ingested nor the requested one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from ml.landing.listing import Landed

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)
FEW_DAYS = 7  # days at once are taken as they come: a day, a weekend's, a week that is sent again
QUIET_TIME = timedelta(seconds=30)  # without a file, and more days than that are all there


@dataclass(frozen=True)
class Due:
    """What to ask for now, and what not."""

    days: tuple[Landed, ...]
    waiting: tuple[Landed, ...] = ()  # asked for, and not ingested yet
    held: tuple[Landed, ...] = ()  # ingestion refused them as they lie there
    history: tuple[Landed, ...] = ()  # too many to be an arrival
    coming: tuple[Landed, ...] = ()  # several, and files still come in: an arrival or a history, nobody knows yet
    why: str = ""  # a sentence for people, when there is a history, or one may be coming


def due_days(
    landed: Sequence[Landed],
    ingested: Mapping[date, str],
    asked: Mapping[date, str],
    bulk_days: int,
    held: Mapping[date, str] | None = None,
    now: datetime | None = None,
) -> Due:
    """Which landed days to ask for now: the one rule about days, for the calendar, arrivals and people alike.

    `ingested`, `asked` and `held` hold the fingerprint that each day had when it was ingested, asked for or held. A
    day that is held rests until its files change. One that was asked for waits; whoever asked remembers when, and
    asks again when nothing came of it. More than `bulk_days` new days at once are a history, to be loaded by one run:
    while one is copied in, its days are not taken for arrivals (`now` tells until when).
    """
    refused = held or {}
    pending = [day for day in landed if ingested.get(day.day) != day.fingerprint]
    resting = tuple(day for day in pending if refused.get(day.day) == day.fingerprint)
    wanted = [day for day in pending if day not in resting]
    waiting = tuple(day for day in wanted if asked.get(day.day) == day.fingerprint)
    new = tuple(day for day in wanted if asked.get(day.day) != day.fingerprint)
    rest = Due(days=(), waiting=waiting, held=resting)
    if not new:
        return rest
    first, last = new[0].day, new[-1].day
    them = f"{len(new)} new or changed days ({first} to {last})"
    if len(new) > bulk_days:
        why = (
            f"{them} are more than landing.bulk_days ({bulk_days}): "
            f"a history, not an arrival. Load it with one run of ingest over days {first}..{last}; "
            "single days arrive by themselves again after it."
        )
        return replace(rest, history=new, why=why)
    written = [blob.written for day in new for blob in day.files if blob.written]
    if now and len(new) + len(waiting) > FEW_DAYS and written and max(written) > now - QUIET_TIME:
        why = (
            f"{them}, and files still come in: they may be a history. "
            f"The first sweep after {QUIET_TIME.seconds} seconds without one takes them."
        )
        return replace(rest, coming=new, why=why)
    return replace(rest, days=new)
