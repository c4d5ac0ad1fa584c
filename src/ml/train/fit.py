"""Fits a model, or adopts the one that AutoML has fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.models.frames import categories_of, frame
from ml.models.lightgbm import lightgbm_library
from ml.models.predictors import LightGBMPredictor, Predictor, from_onnx
from ml.train import automl
from ml.train.automl import AutomlModel

if TYPE_CHECKING:
    import lightgbm

    from ml.train.dataset import TrainingSet

# With these LightGBM grows the same trees each time. The number of threads is fixed too, as a parameter of the
# config: it is written into the model's text.
FIXED_PARAMS: dict[str, str | bool | int] = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True)
class FittedModel:
    """A model before its evaluation, and where it came from."""

    predictor: Predictor
    algorithm: str
    params: Mapping[str, Any]  # empty for AutoML's model
    importance: list[dict[str, Any]]  # empty for AutoML's model
    tags: Mapping[str, str]  # of the registered version


def fit_booster(config: ModelConfig, training_set: TrainingSet) -> lightgbm.Booster:
    """Fit the 'train' part. Text columns become LightGBM categories; the model's text holds their values."""
    lightgbm = lightgbm_library()
    train, features = training_set.train, training_set.features
    table = frame(train, features, categories_of(train, features))
    params = {name: value for name, value in config.train.params.items() if name != "n_estimators"}
    params |= {**FIXED_PARAMS, "seed": config.train.seed}
    rounds = int(config.train.params["n_estimators"])
    data = lightgbm.Dataset(table, train[config.label.name].to_numpy(), params=params, free_raw_data=True)
    return lightgbm.train(params, data, rounds)


def gain_importance(booster: lightgbm.Booster) -> list[dict[str, Any]]:
    """Each feature's share of the total gain of all splits, largest first."""
    gains = booster.feature_importance("gain")
    total = float(gains.sum()) or 1.0
    ranked = sorted(zip(booster.feature_name(), gains, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return [{"feature": name, "gain": round(float(gain) / total, 6)} for name, gain in ranked]


def fit_model(config: ModelConfig, training_set: TrainingSet) -> FittedModel:
    """Fit LightGBM with the config's parameters."""
    booster = fit_booster(config, training_set)
    predictor = LightGBMPredictor("the model just trained", training_set.features, booster)
    params = {**config.train.params, "seed": config.train.seed}
    return FittedModel(predictor, config.train.algorithm, params, gain_importance(booster), {})


def adopt_automl_model(training_set: TrainingSet, model: AutomlModel) -> FittedModel:
    """AutoML's model. Raises StageError unless its graph takes exactly the training set's features."""
    content = automl.fetch(model.location)
    predictor = from_onnx(content, f"AutoML's model at {model.location}", training_set.features)
    return FittedModel(predictor, model.algorithm or "automl", {}, [], automl.provenance(content, model.job))
