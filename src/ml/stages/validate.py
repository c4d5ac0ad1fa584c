"""Validate: check what arrived, what became silver, or a training set against its expectations."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ml import console
from ml.config import load_model
from ml.errors import StageError
from ml.validate.validation import validate_days, validate_training_set


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", choices=["arrival", "silver", "training"], required=True)
    parser.add_argument("--days", type=console.parse_days, default=(), help="of arrival and silver: D or D..D")
    parser.add_argument(
        "--fingerprint", default="", help="of the arrived files of one day, which are held when they fail"
    )
    parser.add_argument("--version", type=int, help="of the training set")
    parser.add_argument("--run-key", required=True, help="kept with the result")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Validate the days, or the version of the training set.

    Facts: passed (no critical failure), expectations, failed (a sentence each, warnings included), rows, report (its name
    in the reports store), seconds. Raises StageError with every critical failure and the report's name.
    """
    started = time.monotonic()
    config = load_model(args.model)
    if args.suite == "training":
        if args.version is None:
            raise StageError("--suite training needs --version, that of the training set")
        facts = validate_training_set(config, args.version, run_key=args.run_key)
    else:
        if not args.days:
            raise StageError(f"--suite {args.suite} needs --days")
        facts = validate_days(config, args.suite, args.days, fingerprint=args.fingerprint, run_key=args.run_key)
    return facts | {"seconds": round(time.monotonic() - started, 2)}
