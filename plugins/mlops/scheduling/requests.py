"""When to request a day again: requests are recorded, and repeated when they had no effect.

Airflow drops an event that comes while its consumer is paused, and a run may fail or be lost. Which work is pending is
computed from the tables at every sweep (`ml.days.pending`). This module only keeps the record of what was requested
when, as JSON in the extra of an asset's event. When it is lost, a day may be built twice; no day stays unbuilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Protocol

MAX_PAUSE = timedelta(days=1)  # between two equal requests
IN_TRANSIT = timedelta(seconds=20)  # an event becomes a run in a second or two; no request is repeated sooner


class Request(Protocol):
    """A stage is to be run for a day: `ml.days.pending.Request`, which plugins do not import."""

    @property
    def day(self) -> date: ...

    @property
    def inputs(self) -> str:
        """Digest of the day's inputs. Other inputs are another request."""

    @property
    def trigger_now(self) -> bool:
        """False when an event should trigger it already: then only if that event was lost."""


@dataclass(frozen=True)
class RequestRecord:
    """What was requested for a day, when, and how often. 0 times: noted, and left to the event that should trigger it."""

    inputs: str
    at: datetime
    times: int


@dataclass(frozen=True)
class Activity:
    """How busy the Dag of a stage is."""

    runs: int  # it has ever had
    busy: bool  # a run is queued, running or about to start: it may be the requested one


@dataclass(frozen=True)
class RequestLog:
    """The requests to one Dag. `runs`: how many runs it had had at the last of them."""

    days: Mapping[date, RequestRecord] = field(default_factory=dict)
    runs: int | None = None

    def requested(self) -> dict[date, tuple[str, int]]:
        """The inputs with which each day was requested, and how often."""
        return {day: (record.inputs, record.times) for day, record in self.days.items()}

    def to_json(self) -> dict[str, Any]:
        days = {day.isoformat(): [entry.inputs, entry.at.isoformat(), entry.times] for day, entry in self.days.items()}
        return {"runs": self.runs, "days": days}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RequestLog:
        days = {
            date.fromisoformat(day): RequestRecord(inputs, datetime.fromisoformat(at), times)
            for day, (inputs, at, times) in stored.get("days", {}).items()
        }
        return cls(days, stored.get("runs"))


def select_days(
    requests: Iterable[Request],
    log: RequestLog,
    activity: Activity,
    now: datetime,
    wait: timedelta,
    *,
    manual: bool,
) -> tuple[list[date], RequestLog]:
    """The days to request now, and the log after it.

    A new request is sent at once, or only noted when an event should trigger it. One that is still pending is sent
    again after `wait`, then after twice that, and so on up to once a day. A person's request (`manual`) waits only for
    what is on its way. Nothing is sent twice while the Dag is busy. A Dag that has had no run since the last request is
    paused or broken: then one day at a time is sent to find out, and the others follow once that day has a run.
    """
    unanswered = log.runs == activity.runs and any(record.times for record in log.days.values())
    selected: list[date] = []
    records: dict[date, RequestRecord] = {}
    probed = False
    for request in sorted(requests, key=lambda request: request.day):
        day, record = request.day, log.days.get(request.day)
        if record is None or record.inputs != request.inputs:
            at_once = request.trigger_now or (manual and not activity.busy)
            records[day] = RequestRecord(request.inputs, now, int(at_once))
            selected += [day] if at_once else []
            continue
        records[day] = record
        pause = min(wait * 2 ** min(max(record.times - 1, 0), 16), MAX_PAUSE)
        age = now - record.at
        is_due = manual or age >= (min(pause, wait) if unanswered else pause)
        if activity.busy or age < IN_TRANSIT or not is_due:
            continue
        if unanswered and not manual:
            if not probed:
                selected.append(day)
                records[day] = RequestRecord(request.inputs, now, record.times)
            probed = True
            continue
        selected.append(day)
        records[day] = RequestRecord(request.inputs, now, record.times + 1)
    return selected, RequestLog(records, activity.runs if selected else log.runs)
