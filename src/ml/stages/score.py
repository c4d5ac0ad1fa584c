"""The champion's scores of a day's active customers, into `gold.customer_churn_scores`.

Alias and table version are resolved once, at the start: a champion that changes meanwhile does not
mix two models in one partition. Each row says which model, table version and run key made it; the journal
keeps what each earlier scoring of the day was made from, and why it was done again.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from ml import console
from ml.config import load_model
from ml.score.day import score_day

if TYPE_CHECKING:
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--day", type=console.parse_day, required=True, help="as_of of the features, and score_date")
    parser.add_argument("--run-key", required=True, help="what this scoring is asked for by; kept in each row")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score one day; the partition is replaced whole, so again gives the same."""
    from ml.storage import tables

    started = time.monotonic()
    config = load_model(args.model)
    with tables.hold(config.score.table, f"score of {args.day}, run key {args.run_key}") as lease:
        facts = score_day(config, args, lease)
    return facts if "skipped" in facts else facts | {"seconds": round(time.monotonic() - started, 2)}
