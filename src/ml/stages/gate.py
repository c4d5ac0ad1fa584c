"""Decides whether a registered version may become champion; what was not measured counts as failed.

A rejection is a result, not an error.
"""

from __future__ import annotations

import argparse
from typing import Any

from ml.promote.gate_decision import decide_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered version to decide on")


def run(args: argparse.Namespace) -> dict[str, Any]:
    return decide_version(args.model, args.version)
