"""Fit, evaluate out of time, log and register: one version per run key, the same bytes from the same inputs.

The model is fitted here, with the config's parameters or with those a sweep has found (`--params`), or AutoML has
fitted it (`--automl-model`); from there on it is the same for all.

The registered version is the commit marker. Everything it needs (trees, evaluation, drift reference)
is logged before it, so a version that exists is complete, and whatever an earlier, broken attempt at
the run key left behind is superseded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ml import automl_model
from ml import config as configs
from ml.cli import StageError
from ml.config_training import Train

if TYPE_CHECKING:
    import lightgbm

    from ml.predictors import Predictor
    from ml.registry import Version
    from ml.training_rows import TrainingSet

log = logging.getLogger(__name__)

# What makes LightGBM give the same trees each time. The number of threads is a parameter of the
# config, fixed there too: it is written into the model's text.
FIXED: dict[str, str | bool | int] = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--training-set-version", type=int, required=True, help="Delta version to learn from")
    parser.add_argument("--run-key", required=True, help="what this training is asked for by; one version per key")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--params", help="JSON: parameters to fit with instead of, or beside, those of the config (a sweep's best)"
    )
    how.add_argument(
        "--automl-model", help="take this model instead of fitting one: AutoML's folder or model.onnx, local or az://"
    )
    parser.add_argument("--automl-job", default="", help="the AutoML job that made it; kept with the version")
    parser.add_argument("--automl-algorithm", default="", help="what that job called it; kept with the version")
    parser.add_argument(
        "--commit",
        default=os.environ.get("ML_COMMIT", "unknown"),
        help="commit of the code that trains (default: ML_COMMIT)",
    )


def fit(config: configs.Model, rows: TrainingSet) -> lightgbm.Booster:
    """Train on the 'train' part. Text columns are LightGBM categories; their values travel in the model's text."""
    from ml.frames import categories_of, frame, lightgbm_library

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
class Made:
    """A model before it is evaluated, and what is to be known of how it came about."""

    predictor: Predictor
    algorithm: str
    params: Mapping[str, Any]
    importance: list[dict[str, Any]]
    tags: Mapping[str, str]


def _fitted(config: configs.Model, rows: TrainingSet) -> Made:
    from ml.predictors import LightGBMPredictor

    booster = fit(config, rows)
    predictor = LightGBMPredictor("the model just trained", rows.features, booster)
    params = {**config.train.params, "seed": config.train.seed}
    return Made(predictor, config.train.algorithm, params, importance(booster), {})


def _by_automl(args: argparse.Namespace, rows: TrainingSet) -> Made:
    """AutoML's model, whose graph must take exactly the training set's features."""
    from ml.predictors import from_onnx

    content = automl_model.fetch(args.automl_model)
    predictor = from_onnx(content, f"AutoML's model at {args.automl_model}", rows.features)
    source = automl_model.told(args, content)
    return Made(predictor, args.automl_algorithm or "automl", {}, [], source)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train once per run key; a key that has its version gets that version back."""
    from ml import evaluate, registry

    started = time.monotonic()
    config = with_params(configs.load(args.model), args.params)
    version = registry.by_run_key(config.model, args.run_key)
    reused = version is not None
    if version is None:
        version = _train(config, args)
    registry.finish(version)
    found = json.loads(registry.artifact(version, evaluate.FILE))
    if reused:
        _refuse_another(args, config, version, found)
    return {
        "version": version.number,
        "run_id": version.run_id,
        "reused": reused,
        "training_set_version": found["training_set_version"],
        "algorithm": version.tags["algorithm"],
        "params": found["params"],
        "rows_train": found["rows_train"],
        "rows_test": found["rows"],
        "positives_test": found["positives"],
        "roc_auc": found["metrics"]["challenger"]["roc_auc"],
        "champion": found["champion"],
        "problems": found["problems"],
        "report": evaluate.publish(version),
        "page": registry.page(version, evaluate.PAGE),
        "seconds": round(time.monotonic() - started, 2),
    }


def with_params(config: configs.Model, given: str | None) -> configs.Model:
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


def _refuse_another(args: argparse.Namespace, config: configs.Model, version: Version, found: dict[str, Any]) -> None:
    """A run key stands for one training: its version is not what another training asks for."""
    made, asked = [], []
    if found["training_set_version"] != args.training_set_version:
        made.append(f"training set version {found['training_set_version']}")
        asked.append(f"{args.training_set_version}")
    if args.automl_model:
        digest = automl_model.told(args, automl_model.fetch(args.automl_model))[automl_model.DIGEST]
        if (other := version.tags.get(automl_model.DIGEST)) != digest:
            made.append(f"AutoML model {other}" if other else "a fit of its own")
            asked.append(f"AutoML model {digest}")
    elif found["params"] != {**config.train.params, "seed": config.train.seed}:
        made.append(f"parameters {found['params'] or 'of AutoML'}")
        asked.append(f"{config.train.params}")
    if made:
        raise StageError(
            f"run key {args.run_key!r} has already made {version} from {' and '.join(made)}, "
            f"not {' and '.join(asked)}: use a new run key"
        )


def _train(config: configs.Model, args: argparse.Namespace) -> Version:
    import mlflow

    from ml import drift, evaluate, production, registry, report_html
    from ml.training_rows import read

    rows = read(config, args.training_set_version)
    settings = config.model_dump_json()
    tags = {
        "commit": args.commit,
        "config_digest": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "training_set_version": str(rows.version),
        "trained_through": rows.trained_through.isoformat(),
        **{f"source.{name}": value for name, value in rows.sources.items()},
    }
    made = _by_automl(args, rows) if args.automl_model else None  # refused before there is a run
    with registry.training_run(config.experiment, args.run_key, tags) as run_id:
        made = made or _fitted(config, rows)
        tags |= {"algorithm": made.algorithm, **made.tags}
        champion = production.champion(config.model)
        facts = {
            "run_key": args.run_key,
            "commit": args.commit,
            "training_set_version": rows.version,
            "rows_train": rows.train.num_rows,
            "params": made.params,
            "importance": made.importance,
        }
        found = evaluate.measure_version(config, rows, made.predictor, facts, champion)
        counts = {"rows_train": rows.train.num_rows, "rows_test": rows.test.num_rows}
        mlflow.log_params({**made.params, **tags, **counts})
        mlflow.log_metrics(_flat(found["metrics"]["challenger"]))
        registry.log_files(
            run_id,
            {
                evaluate.FILE: evaluate.to_json(found),
                evaluate.PAGE: report_html.model_page(config, found),
                "reference.json": json.dumps(drift.reference(rows.train, rows.features, config.monitor.bins)).encode(),
                "config.json": settings.encode(),
            },
        )
        uri = registry.log_model(made.predictor)
        auc = found["metrics"]["challenger"]["roc_auc"]["value"]
        tags["roc_auc"] = "not measured" if auc is None else f"{auc:.4f}"
        version = registry.register_once(config.model, uri, args.run_key, tags)
        log.info("%s: AUC %s on %d out-of-time rows", version, auc, found["rows"])
        return version


def _flat(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """`roc_auc`, `roc_auc_low`, `roc_auc_high`, …: single numbers for MLflow's charts; unmeasured ones are left out."""
    return {
        name + ("" if part == "value" else f"_{part}"): value
        for name, found in metrics.items()
        for part, value in found.items()
        if value is not None
    }
