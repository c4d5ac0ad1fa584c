"""The one rule of staleness: what each day was made from, against what the tables hold now."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from ml.days.input_digests import as_of, chain
from ml.ops import built_days, held_days
from ml.ops.built_days import BuiltDay, Stage
from ml.ops.ingested_days import IngestedDay, read_ingested_days

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Behind:
    """A stage that a day still needs."""

    stage: Stage  # validate: the whole ingestion again, which ends in it
    of: str  # what it is to be made from: the same again is the same wish
    why: str
    brought: bool  # an event is on its way, unless it got lost; False when only this table knows


@dataclass(frozen=True)
class Freshness:
    """What the tables say, read once."""

    ingested: Mapping[date, IngestedDay]
    held: Mapping[date, tuple[str, tuple[str, ...]]]  # fingerprint and reasons
    validate: Mapping[date, BuiltDay]
    features: Mapping[date, BuiltDay]
    score: Mapping[date, BuiltDay]
    monitor: Mapping[date, BuiltDay]

    @cached_property
    def inputs(self) -> dict[date, str]:
        """Of each ingested day, the digest of all ingested days up to it."""
        return chain({day: found.content for day, found in self.ingested.items()})

    def inputs_as_of(self, day: date) -> str:
        return as_of(self.inputs, day)

    def behind(self, day: date) -> Behind | None:
        """The first stage that this day needs; the ones after it follow by themselves. None when it has all."""
        ingested, made = self.ingested.get(day), self.features.get(day)
        if ingested and ingested.follow and self._unproven(day, ingested):
            if day in self.held and self.held[day][0] == ingested.fingerprint:
                return None  # silver refused it: it rests until its files change
            return Behind(
                "validate",
                ingested.fingerprint,
                "ingested, and its silver not validated",
                brought=True,
            )
        now = self.inputs_as_of(day)
        if made is None:
            if ingested is None or not ingested.follow:
                return None
            return Behind("features", now, "ingested, and without features", brought=True)
        own = ingested.content if ingested else ""
        if made.inputs != now:
            if made.own != own:
                return Behind("features", now, "its own data has changed since its features were made", brought=True)
            return Behind("features", now, "a day before it has changed since its features were made", brought=False)
        scored = self.score.get(day)
        if scored is None:
            return Behind("score", made.inputs, "has features, and no scores", brought=True)
        if scored.inputs != made.inputs:
            return Behind("score", made.inputs, "its scores are from features it no longer has", brought=True)
        watched = self.monitor.get(day)
        if scored.model_version is not None and (watched is None or watched.inputs != scored.inputs):
            return Behind("monitor", scored.inputs, "scored, and its drift not measured", brought=True)
        return None

    def _unproven(self, day: date, ingested: IngestedDay) -> bool:
        passed = self.validate.get(day)
        return passed is None or passed.inputs != ingested.content

    def later(self, size: int, unsettled: Collection[date]) -> dict[Stage, dict[date, Behind]]:
        """What each stage still has to do for the newest `size` days.

        A day that is stale only because of days before it waits until those that are being ingested (`unsettled`) are
        in and validated: a week that is sent again makes it once, not seven times.
        """
        found: dict[Stage, dict[date, Behind]] = {stage: {} for stage in built_days.STAGES}
        window = self.window(size)
        refused = [day for day in window if (one := self.ingested.get(day)) and one.follow and self._unproven(day, one)]
        first = min([*unsettled, *refused], default=date.max)
        for day in window:
            behind = self.behind(day)
            if behind and (behind.brought or day < first):
                found[behind.stage][day] = behind
        return found

    def left(self, size: int) -> list[date]:
        """Days behind that are older than the newest `size`."""
        near = set(self.window(size))
        return [day for day in sorted({*self.ingested, *self.features}) if day not in near and self.behind(day)]

    def window(self, size: int) -> list[date]:
        """The newest `size` days that are the loop's: featured, or ingested to be. Older ones are left to people."""
        daily = {day for day, found in self.ingested.items() if found.follow} | set(self.features)
        return sorted(daily)[-size:]


def read_freshness(model: str) -> Freshness:
    """What the tables say now. The journal is read first: what moves meanwhile looks behind, and never done."""
    built = built_days.newest(model)
    held = {day: (str(row["fingerprint"]), tuple(row["reasons"])) for day, row in held_days.read().items()}
    return Freshness(read_ingested_days(), held, **built)
