"""Fits a model, or adopts the one that AutoML has fitted."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ml.config import ModelConfig
from ml.config.train import Train
from ml.errors import StageError
from ml.train import automl

if TYPE_CHECKING:
    import lightgbm

    from ml.models.predictors import Predictor
    from ml.train.dataset import TrainingSet

log = logging.getLogger(__name__)

# What makes LightGBM give the same trees each time. The number of threads is a parameter of the
# config, fixed there too: it is written into the model's text.
FIXED: dict[str, str | bool | int] = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def fit(config: ModelConfig, rows: TrainingSet) -> lightgbm.Booster:
    """Train on the 'train' part. Text columns are LightGBM categories; their values travel in the model's text."""
    from ml.models.frames import categories_of, frame
    from ml.models.lightgbm import lightgbm_library

    lightgbm = lightgbm_library()
    table = frame(rows.train, rows.features, categories_of(rows.train, rows.features))
    params = {name: value for name, value in config.train.params.items() if name != "n_estimators"}
    params |= {**FIXED, "seed": config.train.seed}
    rounds = int(config.train.params["n_estimators"])
    data = lightgbm.Dataset(table, rows.train[config.label.name].to_numpy(), params=params, free_raw_data=True)
    return lightgbm.train(params, data, rounds)


def importance(booster: lightgbm.Booster) -> list[dict[str, Any]]:
    """Each feature's share of the total gain of all splits, largest first."""
    gains = booster.feature_importance("gain")
    total = float(gains.sum()) or 1.0
    ranked = sorted(zip(booster.feature_name(), gains, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return [{"feature": name, "gain": round(float(gain) / total, 6)} for name, gain in ranked]


@dataclass(frozen=True)
class FittedModel:
    """A model before it is evaluated, and what is to be known of how it came about."""

    predictor: Predictor
    algorithm: str
    params: Mapping[str, Any]
    importance: list[dict[str, Any]]
    tags: Mapping[str, str]


def fit_model(config: ModelConfig, rows: TrainingSet) -> FittedModel:
    from ml.models.predictors import LightGBMPredictor

    booster = fit(config, rows)
    predictor = LightGBMPredictor("the model just trained", rows.features, booster)
    params = {**config.train.params, "seed": config.train.seed}
    return FittedModel(predictor, config.train.algorithm, params, importance(booster), {})


def adopt_automl_model(args: argparse.Namespace, rows: TrainingSet) -> FittedModel:
    """AutoML's model, whose graph must take exactly the training set's features."""
    from ml.models.predictors import from_onnx

    content = automl.fetch(args.automl_model)
    predictor = from_onnx(content, f"AutoML's model at {args.automl_model}", rows.features)
    source = automl.provenance(args, content)
    return FittedModel(predictor, args.automl_algorithm or "automl", {}, [], source)


def with_params(config: ModelConfig, given: str | None) -> ModelConfig:
    """The config with these parameters (JSON) beside or instead of its own. Raises StageError for what it would refuse."""
    if given is None:
        return config
    try:
        params = json.loads(given)
    except ValueError as error:
        raise StageError(f"--params is no JSON: {error}; found {given[:200]!r}") from error
    if not isinstance(params, dict):
        raise StageError(f"--params: a JSON object of parameters is needed; found {given[:200]!r}")
    train = config.train
    try:
        checked = Train.model_validate({**dict(train), "params": {**train.params, **params}})
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
        raise StageError(f"--params does not fit config train.params: {told}") from error
    return config.model_copy(update={"train": checked})
