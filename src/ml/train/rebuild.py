"""Fits a registered model again from its recorded inputs, and compares the two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from ml.config import ModelConfig, Project
from ml.errors import StageError
from ml.features.compare import align
from ml.features.rows import examples_until
from ml.models.lightgbm import lightgbm_library
from ml.models.predictors import LightGBMPredictor
from ml.train import fit
from ml.train.cutoffs import optional_tables
from ml.train.examples import require_labels
from ml.train.training_set import input_tables, rows_of_cutoffs

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


def check_against_sources(config: ModelConfig, project: Project, training_set: TrainingSet) -> None:
    """Raise StageError unless the recorded versions of the tables in silver give the training part again, row for row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if config.label.export is not None:
        raise StageError(
            "the training set has labels of a labelling export, which may have changed since: rebuild it without "
            "--from-sources, from the stored training set"
        )
    recorded = {name: int(version) for name, version in training_set.sources.items() if version.isdigit()}
    needed = [name for name in input_tables(config, project) if name not in optional_tables(config, project)]
    if missing := [name for name in needed if name not in recorded]:
        raise StageError(
            f"the training set names {training_set.sources}: one version of each of {', '.join(missing)} is needed"
        )
    train = training_set.train
    days = sorted(pc.unique(train["as_of"]).to_pylist())
    if config.examples is not None:
        rebuilt, _ = require_labels(config, examples_until(config, days[-1], recorded[config.examples.table]))
        if config.examples.split.by == "key":  # of a day, the other keys are in the test
            rebuilt = pa.concat_tables([_rows_of_keys(train, rebuilt, config.entity, day) for day in days])
    else:
        rebuilt = rows_of_cutoffs(config, project, tuple(days), recorded)
    columns = [*(feature.name for feature in training_set.features), config.entity, "as_of", config.label.name]
    _require_same(train.select(columns), rebuilt.select(columns), recorded)


def _rows_of_keys(train: pa.Table, rows: pa.Table, entity: str, day: date) -> pa.Table:
    """The rows of a day whose key is in the training part."""
    import pyarrow.compute as pc

    of_day = rows.filter(pc.equal(rows["as_of"], day))
    return of_day.filter(~align(of_day, train.filter(pc.equal(train["as_of"], day)), entity)[1])


def _require_same(recorded: pa.Table, rebuilt: pa.Table, versions: Mapping[str, int]) -> None:
    sources = ", ".join(f"{name} version {version}" for name, version in versions.items())
    if recorded.num_rows != rebuilt.num_rows:
        raise StageError(
            f"the training set has {recorded.num_rows} rows, and its sources ({sources}) give {rebuilt.num_rows}"
        )
    recorded, rebuilt = recorded.combine_chunks(), rebuilt.combine_chunks()
    for name in recorded.column_names:
        before, after = recorded[name], rebuilt[name].cast(recorded[name].type)
        if before.combine_chunks().equals(after.combine_chunks()):
            continue
        pairs = [(a, b) for a, b in zip(before.to_pylist(), after.to_pylist(), strict=True) if a != b][:MAX_SHOWN]
        if pairs:
            raise StageError(
                f"{name} was trained on as {json.dumps([a for a, _ in pairs], default=str)} where the sources give "
                f"{json.dumps([b for _, b in pairs], default=str)} ({sources})"
            )
