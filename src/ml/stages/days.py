"""`python -m ml days`: prints how far each day has come, and what to do about the days that are behind.

`ml.days` has the rules; this command prints them for the person on call.
"""

from __future__ import annotations

import argparse
from datetime import date, timedelta
from typing import Any

from ml.config import load_model
from ml.console import parse_days
from ml.days.freshness import Behind, Freshness, read_freshness
from ml.landing import listing

SHOWN = 14  # newest days in the table, unless --days names others
HEADINGS = ("day", "landed", "ingested", "features", "score", "monitor")
WIDTHS = (10, 6, 8, 8, 11, 7)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=parse_days, help=f"D, D,D or D..D (default: what is behind, and the last {SHOWN})"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line per day, and what to do about those that are not as they should be.

    Facts: days (shown), held, missing (landed and not ingested), behind: lists of days; left: days behind that are
    older than the newest `features.restate_days`, which nothing rebuilds by itself.
    """
    config = load_model(args.model)
    freshness = read_freshness(args.model)
    landed = {day.day: day.fingerprint for day in listing.list_landing(config.landing.table).days}
    newest = freshness.newest_days(config.features.restate_days)
    days = sorted({*landed, *freshness.ingested, *freshness.features})
    rows = [_Row(freshness, day, landed.get(day)) for day in days]
    shown = {row.day for row in rows[-SHOWN:]}
    chosen = [row for row in rows if (row.day in args.days if args.days else row.trouble or row.day in shown)]
    for line in (HEADINGS, *(row.cells for row in chosen)):
        print("  ".join(f"{cell:{width}}" for cell, width in zip(line, WIDTHS, strict=True)).rstrip())
    for row in chosen:
        if row.trouble:
            print(f"{row.day}: {row.trouble}. {_remedy(config.model, row, is_recent=row.day in newest)}")
    return {
        "days": len(chosen),
        "held": [row.day for row in rows if row.state == "held"],
        "missing": [row.day for row in rows if row.state in ("no", "changed")],
        "behind": [row.day for row in rows if row.behind],
        "left": freshness.behind_and_old(config.features.restate_days),
    }


class _Row:
    """A day in the table. `state` is its ingestion's: yes, no, changed (since), held, or - when nothing is landed."""

    def __init__(self, freshness: Freshness, day: date, landed: str | None) -> None:
        self.day = day
        self.behind = freshness.behind(day)
        self.state, self.trouble = _ingestion_state(freshness, day, landed, self.behind)
        scored = freshness.score.get(day)
        stages = {
            "features": "yes" if day in freshness.features else "-",
            "score": _score_cell(scored.model_version) if scored else "-",
            "monitor": "yes" if day in freshness.monitor else "-",
        }
        if self.behind and self.behind.stage in stages:
            stages[self.behind.stage] = "no" if stages[self.behind.stage] == "-" else "stale"
        self.cells = (str(day), "yes" if landed is not None else "-", self.state, *stages.values())


def _ingestion_state(freshness: Freshness, day: date, landed: str | None, behind: Behind | None) -> tuple[str, str]:
    """The state of a day's ingestion, and what is wrong with the day ("" when nothing is)."""
    ingested = freshness.ingested.get(day)
    held_fingerprint, reasons = freshness.held.get(day, (None, ()))
    if landed is not None and (ingested is None or ingested.fingerprint != landed):
        if held_fingerprint == landed:
            return "held", " / ".join(reasons)
        return "changed" if ingested else "no", "its files are not ingested as they are"
    if ingested and held_fingerprint == ingested.fingerprint:
        return "held", " / ".join(reasons)
    return "yes" if ingested else "-", behind.why if behind else ""


def _score_cell(model_version: str | None) -> str:
    return f"version {model_version}" if model_version else "no champion"


def _remedy(model: str, row: _Row, *, is_recent: bool) -> str:
    if row.state == "held":
        return "It starts by itself when its files change"
    if row.state in ("no", "changed") or is_recent:
        return f"{model}_arrivals requests it by itself; at once: airflow dags trigger {model}_arrivals"
    return (
        "It is older than the newest features.restate_days, so nothing rebuilds it by itself: airflow backfill create "
        f"--dag-id {model}_calendar --from-date {row.day} --to-date {row.day + timedelta(1)} "
        "--reprocess-behavior completed"
    )
