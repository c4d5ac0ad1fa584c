"""Validate: check what arrived, what became silver, or a training set against its expectations."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ml import console
from ml.config import list_names, load_model, load_source
from ml.errors import StageError
from ml.validate.validation import validate_days, validate_training_set


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", choices=["arrival", "silver", "training"], required=True)
    parser.add_argument("--source", help="of arrival and silver; may be left out when there is only one")
    parser.add_argument("--model", help="of training; may be left out when there is only one")
    parser.add_argument("--days", type=console.parse_days, default=(), help="of arrival and silver: D or D..D")
    parser.add_argument(
        "--fingerprint", default="", help="of the arrived files of one day, which are held when they fail"
    )
    parser.add_argument("--version", type=int, help="of the training set")
    parser.add_argument("--run-key", required=True, help="kept with the result")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Validate days of a source, or a version of a model's training set.

    Facts: passed (no critical failure), expectations, failed (a sentence each, warnings included), rows, report (its name
    in the reports store), seconds. Raises StageError with every critical failure and the report's name.
    """
    started = time.monotonic()
    if args.suite == "training":
        config = load_model(_pick(args.suite, "model", args.model, other="source", unused=args.source))
        if args.version is None:
            raise StageError("--suite training needs --version, that of the training set")
        facts = validate_training_set(config, args.version, run_key=args.run_key)
    else:
        source = load_source(_pick(args.suite, "source", args.source, other="model", unused=args.model))
        if not args.days:
            raise StageError(f"--suite {args.suite} needs --days")
        facts = validate_days(source, args.suite, args.days, fingerprint=args.fingerprint, run_key=args.run_key)
    return facts | {"seconds": round(time.monotonic() - started, 2)}


def _pick(suite: str, kind: str, name: str | None, *, other: str, unused: str | None) -> str:
    """The source or model that the suite is about: the given one, or the only one. Raises StageError."""
    if unused is not None:
        raise StageError(f"--suite {suite} is about a {kind}: leave out --{other}")
    names = list_names(kind)
    if name is None and len(names) != 1:
        raise StageError(f"--suite {suite} needs --{kind}; there are: {', '.join(names) or 'none'}")
    return name or names[0]
