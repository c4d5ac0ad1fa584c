"""Pending work per node: which days to request now, and from which inputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from ml.config import Project, SourceConfig
from ml.days.due import Due, due_days
from ml.days.freshness import Freshness, in_words
from ml.days.state import State, read_state
from ml.landing.listing import list_landing

log = logging.getLogger(__name__)

MAX_REQUESTS_TO_WAIT_FOR = 2  # a day that was requested more often than this delays no other day

Requested = Mapping[str, Mapping[date, tuple[str, int]]]


@dataclass(frozen=True)
class Request:
    """A day of a node is to be built."""

    day: date
    inputs: str  # digest of the day's inputs (of a source: fingerprint of its files); other inputs are another request
    trigger_now: bool  # False when an event should trigger it: then only if that event was lost


def pending_work(project: Project, requested: Requested, now: datetime) -> dict[str, list[Request]]:
    """Pending work per node id: each day's input digest, and whether the sweep must trigger it.

    `requested`: of each source node, the fingerprint with which each day's ingestion was requested, and how often.
    `now` says whether files still arrive. What is left to people is logged. A source whose landing cannot be listed is
    logged and left out; the others go on.
    """
    state = read_state(project)
    freshness = Freshness(state, now)
    landed: dict[str, list[Request]] = {}
    unsettled: dict[str, list[date]] = {}
    for source in project.sources.values():
        try:
            due = _due_days(source, state, requested.get(source.table, {}), now)
        except OSError:
            log.exception("%s: its landing cannot be listed; the other sources go on", source.source)
            continue
        landed[source.table] = [
            Request(day.day, day.fingerprint, trigger_now=True) for day in (*due.waiting, *due.days)
        ]
        unsettled[source.table] = _unsettled_days(due, requested.get(source.table, {}))
    for node, days in in_words(freshness.left_to_people()).items():
        log.warning("%s: behind, and left to people: %s (python -m ml days says why)", node, days)
    work: dict[str, list[Request]] = {}
    for node, days_behind in freshness.pending(unsettled).items():
        requests = {day: Request(day, each.inputs, each.trigger_now) for day, each in days_behind.items()}
        requests |= {request.day: request for request in landed.get(node, [])}
        work[node] = list(requests.values())
    return work


def _due_days(source: SourceConfig, state: State, requested: Mapping[date, tuple[str, int]], now: datetime) -> Due:
    landing = list_landing(source.source)
    for stray in landing.strays:
        log.info("not used: %s: %s", stray.name, stray.why)
    due = due_days(
        landing.days,
        {day: mark.fingerprint for day, mark in state.ingested.get(source.source, {}).items()},
        {day: fingerprint for day, (fingerprint, _) in requested.items()},
        source.landing.bulk_days,
        {day: str(row["fingerprint"]) for day, row in state.held.get(source.source, {}).items()},
        now,
    )
    if due.why:
        log.warning("%s: %s", source.source, due.why)
    return due


def _unsettled_days(due: Due, requested: Mapping[date, tuple[str, int]]) -> list[date]:
    """Days whose files are to be ingested soon: what follows from them waits for them."""
    days = [landed.day for landed in (*due.days, *due.coming)]
    return days + [landed.day for landed in due.waiting if requested[landed.day][1] <= MAX_REQUESTS_TO_WAIT_FOR]
