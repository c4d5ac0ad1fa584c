"""Evaluates a registered version again: on its own test rows, beside the present champion."""

from __future__ import annotations

import argparse
from typing import Any

from ml.config import load_model
from ml.evaluate import record
from ml.evaluate.measure import measure_version
from ml.registry import model_versions, pins, production

RECORDED_FACTS = ("run_key", "training_set_version", "commit", "importance", "rows_train", "params")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered version to evaluate again")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Replace a version's `evaluation.json` and report page by new ones, measured beside the present champion."""
    from ml.evaluate.report import page
    from ml.train.dataset import read_training_set

    version = model_versions.get_version(args.model, args.version)
    config = pins.trained_config(load_model(args.model), version)
    before = record.read(version)
    champion = production.get_champion(config.model)
    if champion is not None and champion.number == version.number:
        champion = None  # a champion is not its own challenger
    rows = read_training_set(config, int(before["training_set_version"]))
    predictor = model_versions.load(version)
    facts = {name: before[name] for name in RECORDED_FACTS}
    evaluation = measure_version(config, rows, predictor, facts, champion)
    model_versions.log_files(
        version.run_id, {record.FILE: record.to_json(evaluation), record.PAGE: page.model_page(config, evaluation)}
    )
    return {
        "version": version.number,
        "champion": evaluation["champion"],
        "problems": evaluation["problems"],
        "roc_auc": evaluation["metrics"]["challenger"]["roc_auc"],
        "report": record.publish(version),
    }
