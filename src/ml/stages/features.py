"""Features: every customer as known at the end of a day, in the model's feature table, one partition per day.

`include/sql/<features.query>.sql` says what each feature is. A day's partition is computed from `features.source`
up to that day and from nothing later, so computing it again, today or in a year, gives the same rows, unless a
day up to it was corrected since: corrections count whenever they came, facts of later days never.
What the day was made from is noted in the journal, after the partition is written.
"""

from __future__ import annotations

import argparse
import logging
import time
from typing import TYPE_CHECKING, Any

from ml.config import load_model
from ml.console import parse_days
from ml.features.build import build_days, last_ingested
from ml.storage import tables

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as-of", type=parse_days, required=True, help="D, D,D,... or D..D: the ends of these days")
    parser.add_argument("--run-key", required=True, help="what this run is for; it stands in the journal")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Replace the partitions of the asked days, in one commit.

    Facts: as_of, customers and active (of all asked days together), feature_table_version,
    source_version, last_ingested_day, because (why each day is new or again), seconds.
    """
    start = time.monotonic()
    model = load_model(args.model)
    last = last_ingested(model, args.as_of)
    with tables.hold(model.features.table, f"features, run key {args.run_key}") as lease:
        facts = build_days(model, args, last, lease)
    facts["seconds"] = round(time.monotonic() - start, 3)
    log.info("%s: %s", args.run_key, facts)
    return facts
