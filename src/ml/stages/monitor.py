"""Drift of a day's features against what the champion learnt: `gold.drift`, and a page for people.

One row per feature with its PSI, and the row 'overall' whose value is the share of features that
have drifted (the column `measure` says which of the two a row holds). A feature has drifted when its
PSI is above the threshold and above what chance gives on that few rows.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ml import console
from ml.config import load_model
from ml.monitor.day import measure_day

if TYPE_CHECKING:
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--day", type=console.parse_day, required=True, help="as_of of the features to compare")
    parser.add_argument("--run-key", required=True, help="what this comparison is asked for by; kept in each row")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compare one day; the partition and the page are replaced whole."""
    from ml.storage import tables

    config = load_model(args.model)
    with tables.hold(config.monitor.table, f"monitor of {args.day}, run key {args.run_key}") as lease:
        return measure_day(config, args, lease)
