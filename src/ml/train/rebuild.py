"""Fits a registered model again from its recorded inputs, and compares the two."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ml.config import ModelConfig
from ml.errors import StageError
from ml.models.frames import VERSION_SUFFIX
from ml.models.lightgbm import lightgbm_library
from ml.models.predictors import LightGBMPredictor
from ml.storage import tables
from ml.train import fit
from ml.train.training_set import rows_as_of

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.train.dataset import TrainingSet

MAX_SHOWN = 3  # differing values in a message


def refit(config: ModelConfig, training_set: TrainingSet) -> LightGBMPredictor:
    """Fit the model again; like a registered one, it is written as text and read back."""
    booster = fit.fit_booster(config, training_set)
    reread = lightgbm_library().Booster(model_str=booster.model_to_string())
    return LightGBMPredictor("the model fitted again", training_set.features, reread)


def differences(registered: LightGBMPredictor, refitted: LightGBMPredictor, training_set: TrainingSet) -> list[str]:
    """How two models differ, one sentence part each; empty when trees and all scores are the same to the bit."""
    if registered.features != refitted.features:
        return [
            f"it takes {[f.name for f in registered.features]}, and the inputs give {[f.name for f in refitted.features]}"
        ]
    reasons = []
    if registered.booster.model_to_string() != refitted.booster.model_to_string():
        reasons.append("other trees")
    for name, part in (("training", training_set.train), ("test", training_set.test)):
        moved = int((registered.predict(part) != refitted.predict(part)).sum())
        if moved:
            reasons.append(f"{moved} of {part.num_rows} {name} rows have other scores")
    return reasons


def check_against_source(config: ModelConfig, training_set: TrainingSet) -> None:
    """Raise StageError unless the recorded version of the source gives the training part again, row for row."""
    import pyarrow.compute as pc

    if config.label.export is not None:
        raise StageError(
            "the training set has labels of a labelling export, which may have changed since: rebuild it without "
            "--from-sources, from the stored training set"
        )
    source_version = training_set.sources.get(f"{tables.short_name(config.features.source)}{VERSION_SUFFIX}", "")
    if not source_version.isdigit():
        raise StageError(
            f"the training set names {training_set.sources}: one version of {config.features.source} is needed"
        )
    days = sorted(pc.unique(training_set.train["as_of"]).to_pylist())
    rebuilt = rows_as_of(config, days, int(source_version))
    columns = [*(feature.name for feature in training_set.features), config.features.key, "as_of", config.label.name]
    _require_same(training_set.train.select(columns), rebuilt.select(columns), source_version)


def _require_same(recorded: pa.Table, rebuilt: pa.Table, source_version: str) -> None:
    if recorded.num_rows != rebuilt.num_rows:
        raise StageError(
            f"the training set has {recorded.num_rows} rows, and version {source_version} of the source gives "
            f"{rebuilt.num_rows}"
        )
    recorded, rebuilt = recorded.combine_chunks(), rebuilt.combine_chunks()
    for name in recorded.column_names:
        before, after = recorded[name], rebuilt[name].cast(recorded[name].type)
        if before.combine_chunks().equals(after.combine_chunks()):
            continue
        pairs = [(a, b) for a, b in zip(before.to_pylist(), after.to_pylist(), strict=True) if a != b][:MAX_SHOWN]
        if pairs:
            raise StageError(
                f"{name} was trained on as {json.dumps([a for a, _ in pairs], default=str)} where the source gives "
                f"{json.dumps([b for _, b in pairs], default=str)}"
            )
