"""Compares a day's features with the training reference of its model: the drift table (`monitor.table`) and a page."""

from __future__ import annotations

import argparse
from typing import Any

from ml.config import load_model
from ml.console import parse_day
from ml.monitor.day import measure_day
from ml.storage import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--day", type=parse_day, required=True, help="the day of the rows to compare")
    parser.add_argument("--run-key", required=True, help="identifies this request; written to each row")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compare one day; its partition and its page are replaced whole."""
    config = load_model(args.model)
    with tables.hold(config.monitor.table, f"monitor of {args.day}, run key {args.run_key}") as lease:
        return measure_day(config, day=args.day, run_key=args.run_key, lease=lease)
