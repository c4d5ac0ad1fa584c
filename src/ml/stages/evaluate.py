"""What a model is worth: challenger and champion measured on the same out-of-time rows.

`evaluation` is pure and gives what is logged as `evaluation.json`; NaN ("not measured") is null
there, and every NaN has its sentence in `problems`. As a stage it measures a registered version
again, against the champion of now.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ml.config import load_model
from ml.evaluate.measure import measure_version
from ml.evaluate.record import FILE, PAGE, publish, to_json

if TYPE_CHECKING:
    pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered version to measure again")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure a registered version on its own test rows again, against the champion of now."""
    from ml.evaluate.report import page
    from ml.registry import model_versions, production
    from ml.train.dataset import read

    config = load_model(args.model)
    version = model_versions.version(config.model, args.version)
    before = json.loads(model_versions.artifact(version, FILE))
    champion = production.champion(config.model)
    if champion is not None and champion.number == version.number:
        champion = None  # a champion is not its own challenger
    rows = read(config, int(before["training_set_version"]))
    predictor = model_versions.load(version)
    kept = ("run_key", "training_set_version", "commit", "importance", "rows_train", "params")
    found = measure_version(config, rows, predictor, {name: before[name] for name in kept}, champion)
    model_versions.log_files(version.run_id, {FILE: to_json(found), PAGE: page.model_page(config, found)})
    return {
        "version": version.number,
        "champion": found["champion"],
        "problems": found["problems"],
        "roc_auc": found["metrics"]["challenger"]["roc_auc"],
        "report": publish(version),
    }
