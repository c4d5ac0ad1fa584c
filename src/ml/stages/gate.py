"""May this version become champion? Every rule is tried and every reason told; what was not measured has failed.

`decide` is pure. The stage binds a decision to the evaluation it read, to the rules of the config and
to the champion of that moment, and keeps it in `ops.decisions` (see `ml.ops.decisions`) and as a tag of the version. A
rejection is a result, not an error.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ml.promote.gate_decision import decide_version

if TYPE_CHECKING:
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered version to decide on")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return decide_version(args.model, args.version)
