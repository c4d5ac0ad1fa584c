"""Puts an earlier champion into production again, because the current one is wrong."""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

from ml.console import current_user
from ml.promote.rollback import roll_back


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", required=True, help="why the champion is wrong; recorded with the decision")
    parser.add_argument("--version", help="an earlier champion (default: the last one that has scored a day)")
    parser.add_argument(
        "--run-key", help="identifies this rollback; the same key rolls back once (default: derived from --why)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    key = args.run_key or f"by-hand-{hashlib.sha256(args.why.encode()).hexdigest()[:12]}"
    return roll_back(args.model, args.why, version=args.version, run_key=key, by=current_user())
