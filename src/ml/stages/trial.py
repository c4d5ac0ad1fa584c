"""Trial: try parameters on the training part alone, for a sweep. Nothing is registered.

Measurements go to the MLflow run that `MLFLOW_RUN_ID` names, which a sweep sets, after each quarter of the rounds: a sweep
may stop a trial that is far behind. A sweep compares trials by the best of these values.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from ml.config import load_model
from ml.registry import model_versions
from ml.train.dataset import read_training_set
from ml.train.params import parse_pairs, parse_params, with_params
from ml.train.trial import OnMeasurement, run_trial

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--training-set-version", type=int, required=True, help="Delta version to learn from")
    parser.add_argument("--params", help="JSON: parameters beside, or instead of, those of the config")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one such parameter; may be given several times",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run one trial. Facts: those of `run_trial`, and seconds."""
    started = time.monotonic()
    params = {**parse_params(args.params or "{}"), **parse_pairs(args.set)}
    config = with_params(load_model(args.model), params)
    training_set = read_training_set(config, args.training_set_version)
    facts = run_trial(config, training_set, _measurement_log(os.environ.get("MLFLOW_RUN_ID")))
    return facts | {"seconds": round(time.monotonic() - started, 2)}


def _measurement_log(run_id: str | None) -> OnMeasurement:
    """Writes measurements to the log and, if there is one, to the trial's MLflow run."""
    tracking = model_versions.client() if run_id else None

    def write(rounds: int, values: Mapping[str, float]) -> None:
        log.info("after %d rounds: %s", rounds, ", ".join(f"{name} {value:.5f}" for name, value in values.items()))
        if tracking is not None and run_id:
            for name, value in values.items():
                tracking.log_metric(run_id, name, value, step=rounds)

    return write
