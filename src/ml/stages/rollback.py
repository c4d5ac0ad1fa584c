"""Back to the version that served before: the champion was wrong, and a person says so.

The gate is not asked: that version passed it, and has scored days. It is one atomic write as a promotion is
(`ml.registry.production`), under a run key, so that twice is once; the version that was wrong is not promoted again.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import TYPE_CHECKING, Any

from ml.console import current_user
from ml.promote.rollback import roll_back

if TYPE_CHECKING:
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", required=True, help="why the champion is wrong; it is kept with the decision")
    parser.add_argument("--version", help="an earlier champion (default: the last one that has scored a day)")
    parser.add_argument(
        "--run-key", help="a name of this decision: the same again is not done twice (default: the why)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    key = args.run_key or f"by-hand-{hashlib.sha256(args.why.encode()).hexdigest()[:12]}"
    return roll_back(args.model, args.why, version=args.version, run_key=key, by=current_user())
