"""How far each day has come, and the one rule of what is behind. `python -m ml days` prints it for the on-call.

A day's features are made of the ingested days up to it: `inputs` digests those days' contents. A day is *stale*
when the digest that its features were made from is not today's: a late or corrected day makes exactly the featured
days from it on stale, and a day that was ingested again with the same content makes none. Scores are behind when
the features they were made from are not those that are there, drift when it was not measured on the scored ones.

All this is computed from tables, so nothing is lost with an event or a process.
"""

from __future__ import annotations

import argparse
import logging
from datetime import date, timedelta
from typing import Any

from ml.config import load_model
from ml.console import parse_days
from ml.days.freshness import Freshness, read_freshness
from ml.landing import listing

log = logging.getLogger(__name__)

SHOWN = 14  # newest days that the table shows when nobody asks for others


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=parse_days, help=f"D, D,D or D..D (default: what is behind, and the last {SHOWN})"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line per day, and what to do about those that are not as they should be.

    Facts: days (shown), held, missing (landed and not ingested), behind: lists of days; left: days behind that are
    older than the newest `features.restate_days`, which nothing rebuilds by itself.
    """
    model = load_model(args.model)
    now = read_freshness(args.model)
    landed = {day.day: day.fingerprint for day in listing.list_landing(model.landing.table).days}
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

    def __init__(self, now: Freshness, day: date, landed: str | None) -> None:
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
