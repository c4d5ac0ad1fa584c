"""Scores a day's rows, into the model's score table (`score.table`).

A day that was scored before is scored by the same version again, unless that one was rolled back; see
`ml.ops.scoring_rule`. `--champion` requests the version in production instead.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from ml.config import load_model
from ml.console import current_user, parse_day
from ml.ops import production_log
from ml.score.day import score_day
from ml.score.requests import request_days
from ml.storage import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--day", type=parse_day, required=True, help="the day of the rows, and score_date")
    parser.add_argument("--run-key", required=True, help="identifies this request; written to each row")
    parser.add_argument(
        "--champion",
        action="store_true",
        help="let the champion of now score the day, whichever version scored it before; recorded as a request",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score one day; its whole partition is replaced, so a repetition gives the same rows."""
    started = time.monotonic()
    config = load_model(args.model)
    with tables.hold(config.score.table, f"score of {args.day}, run key {args.run_key}") as lease:
        champion = production_log.current_entry(config.model) if args.champion else None
        if champion is not None:
            why = f"by {current_user()}"
            request_days(config.model, [args.day], champion, run_key=args.run_key, why=why)
        facts = score_day(config, day=args.day, run_key=args.run_key, lease=lease)
    return facts if "skipped" in facts else facts | {"seconds": round(time.monotonic() - started, 2)}
