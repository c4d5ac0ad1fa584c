"""Features: every customer as known at the end of a day, in `features.customers`, one partition per day.

`include/sql/features.sql` says what each feature is. A day's partition is computed from `silver.customer_days`
up to that day and from nothing later, so computing it again, today or in a year, gives the same rows.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ml import config, lake
from ml.cli import StageError, some_days
from ml.engine import Engine, QueryError, open_engine
from ml.land import ingested_fingerprints

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

log = logging.getLogger(__name__)

CUSTOMER_DAYS = "silver.customer_days"


@dataclass(frozen=True)
class Built:
    """Partitions of the feature table that were just written."""

    rows: pa.Table
    version: int  # of the feature table that holds them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--as-of", type=some_days, required=True, help="D, D,D,... or D..D: the ends of these days")
    parser.add_argument("--run-key", required=True, help="what this run is for; it stands in the log")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Replace the partitions of the asked days, in one commit.

    Facts: as_of, customers and active (of all asked days together), feature_table_version,
    customer_days_version, last_ingested_day, seconds.
    """
    import pyarrow.compute as pc

    start = time.monotonic()
    model = config.load(args.model)
    last = last_ingested(args.as_of)
    source = lake.table(CUSTOMER_DAYS).version()
    built = build(open_engine(), model, args.as_of, source)
    facts = {
        "as_of": [day.isoformat() for day in args.as_of],
        "customers": built.rows.num_rows,
        "active": pc.sum(built.rows["active"]).as_py() or 0,
        "feature_table_version": built.version,
        "customer_days_version": source,
        "last_ingested_day": last.isoformat(),
        "seconds": round(time.monotonic() - start, 3),
    }
    log.info("%s: %s", args.run_key, facts)
    return facts


def last_ingested(as_of: Sequence[date]) -> date:
    """The newest ingested day up to the newest of these.

    A day without files has none, so features of a day that was not ingested are computed, with a warning
    in the log. Raises StageError for a day before anything was ingested: there is nothing to know.
    """
    ingested = sorted(ingested_fingerprints())
    for day in as_of:
        if not ingested or ingested[0] > day:
            there = f"the first ingested day is {ingested[0]}" if ingested else "no day is ingested at all"
            raise StageError(f"no features as of {day}: {there}. Ingest the days up to {day} first")
        if day not in ingested:
            log.warning("%s itself is not ingested: its features know nothing of that day", day)
    return max(day for day in ingested if day <= max(as_of))


def build(engine: Engine, model: config.Model, as_of: Sequence[date], customer_days_version: int) -> Built:
    """Compute the features of these days from one version of `silver.customer_days` and replace their partitions."""
    import pyarrow as pa

    try:
        parts = [
            engine.run(
                "features",
                {"customer_days": known_on(day, customer_days_version)},
                {"as_of": day, "active_days": model.features.active_days},
            )
            for day in as_of
        ]
    except QueryError as error:
        raise StageError(str(error)) from error
    rows = pa.concat_tables(parts)
    version = lake.replace(model.features.table, rows, lake.day_predicate("as_of", as_of), partition_by=["as_of"])
    return Built(rows, version)


def known_on(day: date, version: int) -> ds.Dataset:
    """`silver.customer_days` up to `day`, lazily: later months are not opened, later days not read."""
    import pyarrow.dataset as ds

    field = ds.field
    return lake.dataset(CUSTOMER_DAYS, version).filter((field("month") <= day.replace(day=1)) & (field("day") <= day))
