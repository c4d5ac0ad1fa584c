"""Training set: features and matured labels at past cut-offs, or labelled examples."""

from __future__ import annotations

import argparse
import logging
import time
from typing import Any

from ml.config import load_model, load_project_of
from ml.console import parse_day
from ml.train.training_set import build_training_set

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--through", type=parse_day, required=True, help="the last complete day")
    parser.add_argument("--run-key", required=True, help="identifies the request in the log")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Replace the whole training set. Facts: those of `build_training_set`, and seconds."""
    started = time.monotonic()
    config = load_model(args.model)
    facts = build_training_set(config, load_project_of(config), through=args.through, run_key=args.run_key)
    facts["seconds"] = round(time.monotonic() - started, 3)
    log.info("%s: %s", args.run_key, facts)
    return facts
