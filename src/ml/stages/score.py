"""Scores a day's active customers with the champion, into the model's score table (`score.table`)."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ml.config import load_model
from ml.console import parse_day
from ml.score.day import score_day
from ml.storage import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--day", type=parse_day, required=True, help="as_of of the features, and score_date")
    parser.add_argument("--run-key", required=True, help="identifies this request; written to each row")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score one day; its whole partition is replaced, so a repetition gives the same rows."""
    started = time.monotonic()
    config = load_model(args.model)
    with tables.hold(config.score.table, f"score of {args.day}, run key {args.run_key}") as lease:
        facts = score_day(config, day=args.day, run_key=args.run_key, lease=lease)
    return facts if "skipped" in facts else facts | {"seconds": round(time.monotonic() - started, 2)}
