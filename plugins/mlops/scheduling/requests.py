"""When to ask a Dag for a day again: what was asked for is remembered, and asked for again when nothing came of it.

Airflow forgets an event that comes while its consumer is paused, and a run may fail or be lost. What is wanted is
computed from the tables at every sweep (`ml.days`, `ml.stages.land`); here is only the memory of what was asked when, kept
as JSON in the extra of an asset's event. Losing it costs a day that is built twice, never one that is not built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

SELDOM = timedelta(days=1)  # between two askings for the same, at most
ON_ITS_WAY = timedelta(seconds=20)  # an event becomes a run in a second or two; so long nobody asks for the same again


@dataclass(frozen=True)
class Wish:
    """A stage of a day is wanted. `of` tells what it is to be made from: another one is another wish."""

    of: str
    at_once: bool  # False when an event should be bringing it already: then only if that got lost


@dataclass(frozen=True)
class Ask:
    """What was asked for, when, and how often. 0 times: seen, and left to the event that should bring it."""

    of: str
    at: datetime
    times: int


@dataclass(frozen=True)
class Consumer:
    """The Dag that is asked."""

    runs: int  # that it ever had
    busy: bool  # some of them are queued or running, or about to be: what was asked for may be among them


@dataclass(frozen=True)
class Memory:
    """What one Dag was asked for. `runs` are those that it had had then."""

    days: Mapping[date, Ask] = field(default_factory=dict)
    runs: int | None = None

    def asked(self) -> dict[date, tuple[str, int]]:
        """What each day was asked for with, and how often."""
        return {day: (ask.of, ask.times) for day, ask in self.days.items()}

    def to_json(self) -> dict[str, Any]:
        days = {day.isoformat(): [ask.of, ask.at.isoformat(), ask.times] for day, ask in self.days.items()}
        return {"runs": self.runs, "days": days}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Memory:
        days = {
            date.fromisoformat(day): Ask(of, datetime.fromisoformat(at), times)
            for day, (of, at, times) in kept.get("days", {}).items()
        }
        return cls(days, kept.get("runs"))


def choose(
    wishes: Mapping[date, Wish], memory: Memory, consumer: Consumer, now: datetime, wait: timedelta, *, by_hand: bool
) -> tuple[list[date], Memory]:
    """The days to ask for now, and what to remember.

    A wish that is new is asked for at once, or seen first. One that is still there after `wait` is asked for, then
    after twice that, and so on up to once a day; a person who asks (`by_hand`) waits for what is on its way only. While
    the consumer is busy nothing is asked for twice. When it has had no run since it was asked last it is paused or
    broken: one day is enough to find out, and the others follow as soon as that one was taken.
    """
    untaken = memory.runs == consumer.runs and any(ask.times for ask in memory.days.values())
    chosen: list[date] = []
    days: dict[date, Ask] = {}
    probing = False
    for day, wish in sorted(wishes.items()):
        ask = memory.days.get(day)
        if ask is None or ask.of != wish.of:
            soon = wish.at_once or (by_hand and not consumer.busy)
            days[day] = Ask(wish.of, now, int(soon))
            chosen += [day] if soon else []
            continue
        days[day] = ask
        pause = min(wait * 2 ** min(max(ask.times - 1, 0), 16), SELDOM)
        if (
            consumer.busy
            or now - ask.at < ON_ITS_WAY
            or not (by_hand or now - ask.at >= (min(pause, wait) if untaken else pause))
        ):
            continue
        if untaken and not by_hand:
            if not probing:
                chosen.append(day)
                days[day] = Ask(wish.of, now, ask.times)
            probing = True
            continue
        chosen.append(day)
        days[day] = Ask(wish.of, now, ask.times + 1)
    return chosen, Memory(days, consumer.runs if chosen else memory.runs)
