"""AutoML data: the training part of one training set version, as a data table of Azure ML."""

from __future__ import annotations

import argparse
from typing import Any

from ml.config import load_model
from ml.train.automl_data import export_training_rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--training-set-version", type=int, required=True, help="Delta version to export")
    parser.add_argument("--run-key", required=True, help="identifies the request; part of the folder's name")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Export once per run key and version; facts are those of `export_training_rows`."""
    config = load_model(args.model)
    return export_training_rows(config, training_set_version=args.training_set_version, run_key=args.run_key)
