"""Features: every customer as known at the end of a day, in the model's feature table, one partition per day."""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

from ml.config import load_model
from ml.console import parse_days
from ml.features.build import build_days, find_last_ingested_day
from ml.storage import tables

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as-of", type=parse_days, required=True, help="D, D,D,... or D..D: the ends of these days")
    parser.add_argument("--run-key", required=True, help="identifies the request; kept in the journal")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Replace the partitions of the requested days, in one commit. Facts: those of `build_days`, and seconds."""
    started = time.monotonic()
    config = load_model(args.model)
    last = find_last_ingested_day(config, args.as_of)  # refused before the lease is taken
    with tables.hold(config.features.table, f"features, run key {args.run_key}") as lease:
        facts = build_days(config, as_of=args.as_of, run_key=args.run_key, last_ingested=last, lease=lease)
    facts["seconds"] = round(time.monotonic() - started, 3)
    log.info("%s: %s", args.run_key, facts)
    return facts
