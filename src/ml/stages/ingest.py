"""Bronze into silver and quarantine, day by day, every row accounted for.

`received = silver + quarantined + exact duplicates` holds for every day, or nothing is written. Each
table's write replaces exactly the landed ones of the given days; the day's row in `ops.ingested_days`
is written last, so a day without it, or with another fingerprint, is a day to run again. A day that
cannot be used is held: its silver stays what it was, the other days go on, and the stage fails in the
end with every reason. A day of which nothing is landed (any more) is left as it is.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ml import console
from ml.config import load_model
from ml.ingest.load import ingest_days
from ml.ingest.tables import LEASE_WAIT, LEASES
from ml.storage import leases, stores

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=console.parse_days, required=True, help="1998-06-28, or 1998-06-01..1998-06-30")
    parser.add_argument("--fingerprint", default="", help="of the day's landed files when they were copied")
    parser.add_argument(
        "--listing", default="", help="the same of many days: what land.note_listing wrote before a Copy"
    )
    parser.add_argument("--copy-log", default="", help="folder in the lake where the Copy logged the rows it skipped")
    parser.add_argument("--follow", type=console.parse_days, help="days that features and scores follow (default: all)")
    parser.add_argument("--run-key", required=True, help="kept with the days that are ingested")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Ingest the landed ones of `args.days`.

    Facts: days, files, received, silver, quarantined, duplicates, reasons (refused rows by reason),
    extra_columns and strays (what was found and not used), versions (of the tables written), seconds.
    Raises StageError with every reason of every held day, after the other days were written.
    """
    model = load_model(args.model)
    who = f"ingest of {args.days[0]}..{args.days[-1]}, run key {args.run_key}"
    lock = f"{LEASES}/{model.landing.table}"
    with leases.hold(stores.lake(), lock, who, LEASE_WAIT) as lease, TemporaryDirectory(prefix="ml-ingest-") as folder:
        return ingest_days(model, args, lease, Path(folder))
