"""Rebuild: is the registered version what its recorded inputs give, tree for tree?

An auditor asks this a year later. The training set is read at the recorded Delta version (`--from-sources`: it is also
computed again from the recorded versions of its tables in silver and compared row by row), fitted with the recorded configuration,
and compared with the registered model. Nothing is written.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

from ml.config import ModelConfig, load_model, load_project_of
from ml.errors import StageError
from ml.models.predictors import LightGBMPredictor
from ml.registry import model_versions
from ml.registry.model_versions import Version
from ml.train import rebuild, recorded_config
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
    registered = model_versions.load(version)
    config, is_before_0_3 = read_recorded_config(version, [feature.name for feature in registered.features])
    if not isinstance(registered, LightGBMPredictor):
        raise StageError(
            f"{version} was found by {version.tags.get('algorithm', 'AutoML')} in a search with a time limit, so the search "
            f"cannot be repeated ({version.tags.get('automl_job', 'its job is not recorded')}). The model is stored; its "
            "scores can be computed again"
        )
    training_set = read_training_set(config, int(version.tags["training_set_version"]))
    if args.from_sources:
        if is_before_0_3:
            raise StageError(
                f"{version} was trained by a release before 0.3, whose queries these are not: check out commit "
                f"{version.tags.get('commit', 'unknown')} and rebuild it from its sources there. Its stored training set "
                "can be used here: leave --from-sources out"
            )
        rebuild.check_against_sources(config, load_project_of(load_model(args.model)), training_set)
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


def read_recorded_config(version: Version, features: Sequence[str]) -> tuple[ModelConfig, bool]:
    """The config that a version was trained with, and whether a release before 0.3 trained it.

    `features` are the columns that its model takes. Raises StageError when this code cannot read it.
    """
    try:
        return recorded_config.parse(model_versions.read_artifact(version, CONFIG_FILE), features)
    except ValueError as error:
        raise StageError(
            f"{version}: its {CONFIG_FILE} does not fit this code ({error}): check out commit "
            f"{version.tags.get('commit', 'unknown')} and rebuild the version there"
        ) from error
