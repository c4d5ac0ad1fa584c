"""Features: the rows of a feature table as known at the end of a day, one partition per day."""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

from ml.config import load_feature_table, load_project_of
from ml.console import parse_days
from ml.features.build import build_days, check_inputs
from ml.storage import tables

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as-of", type=parse_days, required=True, help="D, D,D,... or D..D: the ends of these days")
    parser.add_argument("--run-key", required=True, help="identifies the request; kept in the journal")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Replace the partitions of the requested days, in one commit. Facts: those of `build_days`, last_ingested_day per
    table of facts, and seconds.
    """
    started = time.monotonic()
    table = load_feature_table(args.table)
    project = load_project_of(table)
    last = check_inputs(project, table, args.as_of)  # refused before the lease is taken
    with tables.hold(table.table_name, f"features, run key {args.run_key}") as lease:
        facts = build_days(project, table, as_of=args.as_of, run_key=args.run_key, lease=lease)
    facts["last_ingested_day"] = {name: day.isoformat() for name, day in last.items()}
    facts["seconds"] = round(time.monotonic() - started, 3)
    log.info("%s: %s", args.run_key, facts)
    return facts
