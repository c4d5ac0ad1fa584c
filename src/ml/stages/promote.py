"""Puts an approved version into production."""

from __future__ import annotations

import argparse
from typing import Any

from ml.console import current_user
from ml.promote.promotion import promote_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered and approved version")
    parser.add_argument("--run-key", required=True, help="identifies this promotion; the same key promotes once")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return promote_version(args.model, args.version, run_key=args.run_key, by=current_user())
