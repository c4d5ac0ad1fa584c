"""How far each day has come, and the one rule of what is behind. `python -m ml days` prints it for the on-call.

A day's features are made of the ingested days up to it: `inputs` digests those days' contents. A day is *stale*
when the digest that its features were made from is not today's: a late or corrected day makes exactly the featured
days from it on stale, and a day that was ingested again with the same content makes none. Scores are behind when
the features they were made from are not those that are there, drift when it was not measured on the scored ones.

All this is computed from tables, so nothing is lost with an event or a process.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

from ml import config as configs
from ml import held_days, journal, lake, land
from ml.cli import some_days
from ml.journal import Entry, Stage

log = logging.getLogger(__name__)

SHOWN = 14  # newest days that the table shows when nobody asks for others
TOLD = 5  # days that are named; more are told as a span


@dataclass(frozen=True)
class Ingested:
    """A day as it is in silver."""

    content: str  # digest of its rows
    fingerprint: str  # of its files
    follow: bool  # the later stages are to follow; False for the days of a history between first and last
    run_key: str


@dataclass(frozen=True)
class Behind:
    """A stage that a day still needs."""

    stage: Stage  # validate: the whole ingestion again, which ends in it
    of: str  # what it is to be made from: the same again is the same wish
    why: str
    brought: bool  # an event is on its way, unless it got lost; False when only this table knows


@dataclass(frozen=True)
class Known:
    """What the tables say, read once."""

    ingested: Mapping[date, Ingested]
    held: Mapping[date, tuple[str, tuple[str, ...]]]  # fingerprint and reasons
    validate: Mapping[date, Entry]
    features: Mapping[date, Entry]
    score: Mapping[date, Entry]
    monitor: Mapping[date, Entry]

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
            return Behind("validate", ingested.fingerprint, "ingested, and its silver not validated", brought=True)
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

    def _unproven(self, day: date, ingested: Ingested) -> bool:
        passed = self.validate.get(day)
        return passed is None or passed.inputs != ingested.content

    def later(self, size: int, unsettled: Collection[date]) -> dict[Stage, dict[date, Behind]]:
        """What each stage still has to do for the newest `size` days.

        A day that is stale only because of days before it waits until those that are being ingested (`unsettled`) are
        in and validated: a week that is sent again makes it once, not seven times.
        """
        found: dict[Stage, dict[date, Behind]] = {stage: {} for stage in journal.STAGES}
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


def chain(contents: Mapping[date, str]) -> dict[date, str]:
    """Of each day, 16 hex digits that tell its content and those of all days before it."""
    found, so_far = {}, b""
    for day, content in sorted(contents.items()):
        so_far = hashlib.sha256(so_far + f"{day}|{content}\n".encode()).digest()
        found[day] = so_far.hex()[:16]
    return found


def as_of(inputs: Mapping[date, str], day: date) -> str:
    """What `chain` gives the newest day up to `day`; "" when there is none."""
    newest = max((known for known in inputs if known <= day), default=None)
    return "" if newest is None else inputs[newest]


def ingested(version: int | None = None) -> dict[date, Ingested]:
    """Every ingested day (as `ops.ingested_days` was at a version); none before the first ingestion."""
    if not lake.exists(land.INGESTED_DAYS):
        return {}
    found = {}
    for row in lake.read(land.INGESTED_DAYS, version=version).to_pylist():
        # rows from before these columns were there: a file's change counts as a change, and nothing is expected
        content, follow = row.get("content") or row["fingerprint"], bool(row.get("follow"))
        found[row["day"]] = Ingested(content, row["fingerprint"], follow, row.get("run_key") or "")
    return found


def known(model: str) -> Known:
    """What the tables say now. The journal is read first: what moves meanwhile looks behind, and never done."""
    built = journal.newest(model)
    held = {day: (str(row["fingerprint"]), tuple(row["reasons"])) for day, row in held_days.read().items()}
    return Known(ingested(), held, **built)


def changed(before: Mapping[date, Ingested], now: Mapping[date, Ingested], day: date) -> list[date]:
    """The days up to `day` that are new, gone or of other content."""

    def content(of: Mapping[date, Ingested], one: date) -> str | None:
        return of[one].content if one in of else None

    return sorted(one for one in {*before, *now} if one <= day and content(before, one) != content(now, one))


def told(days: list[date]) -> str:
    """Some days in words: each by name, or how many from when to when."""
    if len(days) <= TOLD:
        return ", ".join(day.isoformat() for day in days)
    return f"{len(days)} days from {days[0]} to {days[-1]}"


SETTLING = 2  # a day that was asked for more often than this holds up no other


def wanted(
    model: configs.Model, asked: Mapping[date, tuple[str, int]], now: datetime
) -> dict[str, dict[date, tuple[str, bool]]]:
    """What every stage has to do: of each day, what it is to be made from, and whether nothing else brings it.

    `asked`: the fingerprint with which each day's ingestion was asked for, and how often. `now`: when it is looked, to
    tell whether files still come in. What is left to people is told in the log.
    """
    tables, found = known(model.model), land.listing(model.landing.table)
    for stray in found.strays:
        log.info("left where it is: %s: %s", stray.name, stray.why)
    fingerprints = {day: one.fingerprint for day, one in tables.ingested.items()}
    held = {day: fingerprint for day, (fingerprint, _) in tables.held.items()}
    fingerprints_asked = {day: of for day, (of, _) in asked.items()}
    bulk = model.landing.bulk_days
    due = land.due(found.days, fingerprints, fingerprints_asked, bulk, held, now)
    if due.why:
        log.warning(due.why)
    unsettled = [one.day for one in (*due.days, *due.coming)]
    unsettled += [one.day for one in due.waiting if asked[one.day][1] <= SETTLING]
    if left := tables.left(model.features.restate_days):
        log.warning("behind, and older than the newest features.restate_days: %s: backfill them", told(left))
    later = tables.later(model.features.restate_days, unsettled)
    ingest = {day: (behind.of, False) for day, behind in later.pop("validate").items()}
    ingest |= {one.day: (one.fingerprint, True) for one in (*due.waiting, *due.days)}
    return {"ingest": ingest} | {
        stage: {day: (behind.of, not behind.brought) for day, behind in of_stage.items()}
        for stage, of_stage in later.items()
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=some_days, help=f"D, D,D or D..D (default: what is behind, and the last {SHOWN})"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line per day, and what to do about those that are not as they should be.

    Facts: days (shown), held, missing (landed and not ingested), behind: lists of days; left: days behind that are
    older than the newest `features.restate_days`, which nothing rebuilds by itself.
    """
    model = configs.load(args.model)
    now = known(args.model)
    landed = {day.day: day.fingerprint for day in land.listing(model.landing.table).days}
    window = now.window(model.features.restate_days)
    table = [_Row(now, day, landed.get(day)) for day in sorted({*landed, *now.ingested, *now.features})]
    newest = {row.day for row in table[-SHOWN:]}
    chosen = [row for row in table if (row.day in args.days if args.days else row.trouble or row.day in newest)]
    for line in (HEADINGS, *(row.cells for row in chosen)):
        print("  ".join(f"{cell:{width}}" for cell, width in zip(line, WIDTHS, strict=True)).rstrip())
    for row in chosen:
        if row.trouble:
            print(f"{row.day}: {row.trouble}. {_remedy(model.model, row, row.day in window)}")
    behind = [row.day for row in table if row.behind]
    return {
        "days": len(chosen),
        "held": [row.day for row in table if row.state == "held"],
        "missing": [row.day for row in table if row.state in ("no", "changed")],
        "behind": behind,
        "left": now.left(model.features.restate_days),
    }


HEADINGS = ("day", "landed", "ingested", "features", "score", "monitor")
WIDTHS = (10, 6, 8, 8, 11, 7)


class _Row:
    """A day in the table. `state` is its ingestion's: yes, no, changed (since), held, or - when nothing is landed."""

    def __init__(self, now: Known, day: date, landed: str | None) -> None:
        self.day, self.behind, self.trouble = day, now.behind(day), ""
        ingested, refused = now.ingested.get(day), now.held.get(day)
        self.state = "yes" if ingested else "-"
        if landed is not None and (ingested is None or ingested.fingerprint != landed):
            self.state = "changed" if ingested else "no"
            self.trouble = "its files are not ingested as they are"
            if refused and refused[0] == landed:
                self.state, self.trouble = "held", " / ".join(refused[1])
        elif ingested and refused and refused[0] == ingested.fingerprint:
            self.state, self.trouble = "held", " / ".join(refused[1])
        elif self.behind:
            self.trouble = self.behind.why
        scored = now.score.get(day)
        made = {
            "features": "yes" if day in now.features else "-",
            "score": "-"
            if scored is None
            else f"version {scored.model_version}"
            if scored.model_version
            else "no champion",
            "monitor": "yes" if day in now.monitor else "-",
        }
        if self.behind and self.behind.stage in made:
            made[self.behind.stage] = "no" if made[self.behind.stage] == "-" else "stale"
        self.cells = (str(day), "yes" if landed is not None else "-", self.state, *made.values())


def _remedy(model: str, row: _Row, near: bool) -> str:
    if row.state == "held":
        return "It starts by itself when its files change"
    if row.state in ("no", "changed") or near:
        return f"{model}_arrivals asks for it by itself; at once: airflow dags trigger {model}_arrivals"
    return (
        "It is older than the newest features.restate_days, so nobody does it unasked: airflow backfill create "
        f"--dag-id {model}_calendar --from-date {row.day} --to-date {row.day + timedelta(1)} "
        "--reprocess-behavior completed"
    )
