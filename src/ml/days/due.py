"""The rule of due days: a landed day is due when its fingerprint is neither the ingested nor the requested one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from ml.landing.listing import LandedDay

FEW_DAYS = 7  # so many days at once are requested immediately: a day, a weekend, a week that is sent again
QUIET_TIME = timedelta(seconds=30)  # without a new file; after it, more days than that have all arrived


@dataclass(frozen=True, kw_only=True)
class Due:
    """What to request now, and what not."""

    days: tuple[LandedDay, ...]
    waiting: tuple[LandedDay, ...] = ()  # requested, and not ingested yet
    held: tuple[LandedDay, ...] = ()  # refused by ingestion with the files that are landed now
    history: tuple[LandedDay, ...] = ()  # too many days for an arrival
    coming: tuple[LandedDay, ...] = ()  # several days, and files still arrive: an arrival or a history, not known yet
    why: str = ""  # a sentence for people, when there is a history, or there may be one


def due_days(
    landed: Sequence[LandedDay],
    ingested: Mapping[date, str],
    requested: Mapping[date, str],
    bulk_days: int,
    held: Mapping[date, str] | None = None,
    now: datetime | None = None,
) -> Due:
    """Which landed days to request now: one rule for the calendar, arrivals and people.

    `ingested`, `requested` and `held` have the fingerprint with which each day was ingested, requested or held. A
    held day is not requested until its files change. A requested day waits; the caller remembers when it was
    requested, and requests it again when it is still not ingested. More than `bulk_days` new days at once are a
    history, to be loaded by one run: while one is copied in, its days are not taken for arrivals (`now` limits that).
    """
    refused = held or {}
    not_ingested = [day for day in landed if ingested.get(day.day) != day.fingerprint]
    held_days = tuple(day for day in not_ingested if refused.get(day.day) == day.fingerprint)
    wanted = [day for day in not_ingested if day not in held_days]
    waiting = tuple(day for day in wanted if requested.get(day.day) == day.fingerprint)
    new = tuple(day for day in wanted if requested.get(day.day) != day.fingerprint)
    none_due = Due(days=(), waiting=waiting, held=held_days)
    if not new:
        return none_due
    first, last = new[0].day, new[-1].day
    new_days = f"{len(new)} new or changed days ({first} to {last})"
    if len(new) > bulk_days:
        why = (
            f"{new_days} are more than landing.bulk_days ({bulk_days}): "
            f"a history, not an arrival. Load it with one run of ingest over days {first}..{last}; "
            "single days arrive by themselves again after it."
        )
        return replace(none_due, history=new, why=why)
    written = [blob.written for day in new for blob in day.files if blob.written]
    if now and len(new) + len(waiting) > FEW_DAYS and written and max(written) > now - QUIET_TIME:
        why = (
            f"{new_days}, and files still come in: they may be a history. "
            f"The first sweep after {QUIET_TIME.seconds} seconds without a new file requests them."
        )
        return replace(none_due, coming=new, why=why)
    return replace(none_due, days=new)
