"""`python -m ml ingest`: loads landed days of a source from bronze into silver and quarantine (see `ml.ingest.load`).

A day that cannot be used is held, and the command fails in the end with every reason. A day of which nothing is
landed, or no longer, is left as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ml.config import load_source
from ml.console import parse_days
from ml.ingest.load import INGESTION_WAIT_SECONDS, ingest_days
from ml.storage import leases, stores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=parse_days, required=True, help="1998-06-28, or 1998-06-01..1998-06-30")
    parser.add_argument("--fingerprint", default="", help="of the day's landed files when they were copied")
    parser.add_argument("--listing", default="", help="the same of many days: the listing saved before the Copy")
    parser.add_argument("--copy-log", default="", help="folder in the lake where the Copy logged the rows it skipped")
    parser.add_argument("--follow", type=parse_days, help="days that later stages follow (default: all)")
    parser.add_argument("--run-key", required=True, help="recorded with the days that are ingested")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Ingest those of `args.days` that have landed of `args.source`.

    Facts: days, files, received, silver, quarantined, duplicates, reasons (refused rows by reason), corrected (rows),
    extra_columns and strays (what was found and not used), versions (of the tables written), seconds.
    Raises StageError with every reason of every held day, after the other days were written.
    """
    source = load_source(args.source)
    holder = f"ingest of {source.name} {args.days[0]}..{args.days[-1]}, run key {args.run_key}"
    name = f"{leases.FOLDER}/{source.name}"
    with (
        leases.hold(stores.lake(), name, holder, INGESTION_WAIT_SECONDS) as lease,
        TemporaryDirectory(prefix="ml-ingest-") as folder,
    ):
        return ingest_days(
            source,
            days=args.days,
            fingerprint=args.fingerprint,
            listing=args.listing,
            copy_log=args.copy_log,
            follow=args.follow,
            run_key=args.run_key,
            lease=lease,
            folder=Path(folder),
        )
