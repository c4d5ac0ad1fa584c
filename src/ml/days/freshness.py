"""The rule of staleness: what each day was built from, compared with what the tables hold now.

A day is *stale* when the input digest that its features were built from is not today's: a late or corrected day makes
exactly the featured days from it on stale; a day that is ingested again with the same content makes none. Scores are
behind when the features they were built from are not the current ones, drift when it was not measured on the current
scores.

All of it is computed from tables, so nothing is lost with an event or a process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from ml.days.input_digests import as_of, chain
from ml.ops import built_days, held_days
from ml.ops.built_days import BuiltDay, Stage
from ml.ops.ingested_days import IngestedDay, read_ingested_days


@dataclass(frozen=True, kw_only=True)
class Behind:
    """A stage that a day still needs."""

    stage: Stage  # validate: the whole ingestion again, whose last step it is
    inputs: str  # digest of what the stage has to build from; validate: fingerprint of the files to ingest
    why: str
    trigger_now: bool  # only the sweep requests it; False: an event should trigger it, unless that got lost


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """The state of all days, read from the tables once."""

    ingested: Mapping[date, IngestedDay]
    held: Mapping[date, tuple[str, tuple[str, ...]]]  # fingerprint and reasons
    validate: Mapping[date, BuiltDay]
    features: Mapping[date, BuiltDay]
    score: Mapping[date, BuiltDay]
    monitor: Mapping[date, BuiltDay]

    @cached_property
    def input_digests(self) -> dict[date, str]:
        """Per ingested day, the digest of all ingested days up to it."""
        return chain({day: ingested.content for day, ingested in self.ingested.items()})

    def behind(self, day: date) -> Behind | None:
        """The first stage that this day needs; the stages after it follow by themselves. None when it has all."""
        ingested, features = self.ingested.get(day), self.features.get(day)
        if ingested and ingested.follow and not self._is_validated(day, ingested):
            if day in self.held and self.held[day][0] == ingested.fingerprint:
                return None  # validation refused its silver: it is held until its files change
            return Behind(
                stage="validate",
                inputs=ingested.fingerprint,
                why="ingested, and its silver not validated",
                trigger_now=False,
            )
        current = as_of(self.input_digests, day)
        if features is None:
            if ingested is None or not ingested.follow:
                return None
            return Behind(stage="features", inputs=current, why="ingested, and without features", trigger_now=False)
        if features.inputs != current:
            own_changed = features.own != (ingested.content if ingested else "")
            changed = "its own data has" if own_changed else "a day before it has"
            return Behind(
                stage="features",
                inputs=current,
                why=f"{changed} changed since its features were built",
                trigger_now=not own_changed,
            )
        scored = self.score.get(day)
        if scored is None:
            return Behind(stage="score", inputs=features.inputs, why="has features, and no scores", trigger_now=False)
        if scored.inputs != features.inputs:
            return Behind(
                stage="score",
                inputs=features.inputs,
                why="its scores are from features it no longer has",
                trigger_now=False,
            )
        monitored = self.monitor.get(day)
        if scored.model_version is not None and (monitored is None or monitored.inputs != scored.inputs):
            return Behind(
                stage="monitor",
                inputs=scored.inputs,
                why="scored, and its drift not measured",
                trigger_now=False,
            )
        return None

    def _is_validated(self, day: date, ingested: IngestedDay) -> bool:
        passed = self.validate.get(day)
        return passed is not None and passed.inputs == ingested.content

    def pending(self, size: int, unsettled: Collection[date]) -> dict[Stage, dict[date, Behind]]:
        """Per stage, the days among the newest `size` that still need it.

        A day that is stale only because of days before it waits until those that are being ingested (`unsettled`) are
        ingested and validated: a week that is sent again rebuilds it once, not seven times.
        """
        stages: dict[Stage, dict[date, Behind]] = {stage: {} for stage in built_days.STAGES}
        newest = self.newest_days(size)
        not_validated = [
            day
            for day in newest
            if (ingested := self.ingested.get(day)) and ingested.follow and not self._is_validated(day, ingested)
        ]
        first_unsettled = min([*unsettled, *not_validated], default=date.max)
        for day in newest:
            behind = self.behind(day)
            if behind and (not behind.trigger_now or day < first_unsettled):
                stages[behind.stage][day] = behind
        return stages

    def behind_and_old(self, size: int) -> list[date]:
        """Days behind that are older than the newest `size`; nothing rebuilds them by itself."""
        newest = set(self.newest_days(size))
        return [day for day in sorted({*self.ingested, *self.features}) if day not in newest and self.behind(day)]

    def newest_days(self, size: int) -> list[date]:
        """The newest `size` days that have features, or were ingested to have them. Older ones are left to people."""
        days = {day for day, ingested in self.ingested.items() if ingested.follow} | set(self.features)
        return sorted(days)[-size:]


def read_freshness(model: str) -> Freshness:
    """The state of a model's days now. The journal is read first: what changes meanwhile looks behind, never done."""
    built = built_days.read_newest(model)
    held = {day: (str(row["fingerprint"]), tuple(row["reasons"])) for day, row in held_days.read().items()}
    return Freshness(ingested=read_ingested_days(), held=held, **built)
