"""Put an approved version into production: one atomic write after the entry it was decided against (`ml.registry.production`).

What has died on the way is completed by whoever comes next: before that write nothing has happened, and after it
everything else follows from it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ml.console import current_user
from ml.promote.promotion import promote_version

if TYPE_CHECKING:
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered and approved version")
    parser.add_argument("--run-key", required=True, help="what this promotion is asked for by")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return promote_version(args.model, args.version, run_key=args.run_key, by=current_user())
