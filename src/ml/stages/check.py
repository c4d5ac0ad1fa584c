"""Check all config files, queries and expectations against each other, on generated rows: before a commit and a deployment.

Reports everything that is wrong at once, each in one sentence with file and key. Reads no lake and writes nothing.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from ml.check import check_project
from ml.errors import StageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", help="report only what concerns these files of config, SQL or expectations")
    parser.add_argument("--no-spark", action="store_true", help="run the queries on DuckDB only")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Facts: files, queries, engines, not_checked, seconds. Raises StageError with every problem."""
    started = time.monotonic()
    checked = check_project(args.files, spark=not args.no_spark)
    for note in checked.notes:
        print(f"not checked: {note}")
    if checked.problems:
        count = len(checked.problems)
        listed = "\n  ".join(map(str, checked.problems))
        raise StageError(f"{count} problem{'s' if count > 1 else ''} found:\n  {listed}")
    return {
        "files": checked.files,
        "queries": checked.queries,
        "engines": list(checked.engines),
        "not_checked": list(checked.notes),
        "seconds": round(time.monotonic() - started, 1),
    }
