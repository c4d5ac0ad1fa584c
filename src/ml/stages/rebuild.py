"""Rebuild: is the registered version what its recorded inputs give, tree for tree?

An auditor asks this a year later. The training set is read at the recorded Delta version (`--from-sources`: it is also
computed again from the recorded version of its source and compared row by row), fitted with the recorded configuration,
and compared with the registered model. Nothing is written.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from pydantic import ValidationError

from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.models.predictors import LightGBMPredictor
from ml.registry import model_versions
from ml.registry.model_versions import Version
from ml.train import rebuild
from ml.train.dataset import read_training_set

CONFIG_FILE = "config.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", required=True, help="registered version to train again")
    parser.add_argument("--from-sources", action="store_true", help="compute the training set again, too, and compare")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Facts: version, same (true), training_set_version, rows, sources, from_sources, commit (recorded, now), seconds.

    Raises StageError naming each difference, or the recorded input that no longer exists.
    """
    started = time.monotonic()
    version = model_versions.get_version(load_model(args.model).model, args.version)
    config = read_recorded_config(version)
    registered = model_versions.load(version)
    if not isinstance(registered, LightGBMPredictor):
        raise StageError(
            f"{version} was found by {version.tags.get('algorithm', 'AutoML')} in a search with a time limit, so the search "
            f"cannot be repeated ({version.tags.get('automl_job', 'its job is not recorded')}). The model is stored; its "
            "scores can be computed again"
        )
    training_set = read_training_set(config, int(version.tags["training_set_version"]))
    if args.from_sources:
        rebuild.check_against_source(config, training_set)
    differences = rebuild.differences(registered, rebuild.refit(config, training_set), training_set)
    commit = {"recorded": version.tags.get("commit", "unknown"), "now": os.environ.get("ML_COMMIT", "unknown")}
    if differences:
        raise StageError(
            f"{version} is not what its inputs give: {'; '.join(differences)}. It was trained by commit "
            f"{commit['recorded']}; this is {commit['now']}: another LightGBM or other code gives other trees"
        )
    return {
        "version": version.number,
        "same": True,
        "training_set_version": training_set.version,
        "rows": training_set.train.num_rows,
        "sources": training_set.sources,
        "from_sources": args.from_sources,
        "commit": commit,
        "seconds": round(time.monotonic() - started, 2),
    }


def read_recorded_config(version: Version) -> ModelConfig:
    """The configuration that a version was trained with. Raises StageError when this code cannot read it."""
    try:
        return ModelConfig.model_validate_json(model_versions.read_artifact(version, CONFIG_FILE))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise StageError(
            f"{version}: its {CONFIG_FILE} does not fit this code ({problems}): check out commit "
            f"{version.tags.get('commit', 'unknown')} and rebuild the version there"
        ) from error
