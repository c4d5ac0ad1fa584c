"""Fit, evaluate out of time, log and register: one version per run key, the same bytes from the same inputs.

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
from typing import TYPE_CHECKING, Any

from ml import config as configs

if TYPE_CHECKING:
    import lightgbm

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


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train once per run key; a key that has its version gets that version back."""
    from ml import evaluate, registry

    started = time.monotonic()
    config = configs.load(args.model)
    version = registry.by_run_key(config.model, args.run_key)
    reused = version is not None
    if version is None:
        version = _train(config, args.training_set_version, args.run_key, args.commit)
    registry.finish(version)
    found = json.loads(registry.artifact(version, evaluate.FILE))
    if reused and found["training_set_version"] != args.training_set_version:
        from ml.cli import StageError

        raise StageError(
            f"run key {args.run_key!r} has already made {version} from training set version "
            f"{found['training_set_version']}, not {args.training_set_version}: use a new run key"
        )
    return {
        "version": version.number,
        "run_id": version.run_id,
        "reused": reused,
        "training_set_version": found["training_set_version"],
        "rows_train": found["rows_train"],
        "rows_test": found["rows"],
        "positives_test": found["positives"],
        "roc_auc": found["metrics"]["challenger"]["roc_auc"],
        "champion": found["champion"],
        "problems": found["problems"],
        "report": evaluate.publish(version),
        "seconds": round(time.monotonic() - started, 2),
    }


def _train(config: configs.Model, table_version: int, run_key: str, commit: str) -> Version:
    import mlflow

    from ml import drift, evaluate, registry, report_html
    from ml.predictors import LightGBMPredictor
    from ml.training_rows import read

    rows = read(config, table_version)
    settings = config.model_dump_json()
    tags = {
        "algorithm": config.train.algorithm,
        "commit": commit,
        "config_digest": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "training_set_version": str(rows.version),
        "trained_through": rows.trained_through.isoformat(),
        **{f"source.{name}": value for name, value in rows.sources.items()},
    }
    with registry.training_run(config.experiment, run_key, tags) as run_id:
        booster = fit(config, rows)
        challenger = LightGBMPredictor("the model just trained", rows.features, booster)
        champion = registry.aliased(config.model)
        facts = {
            "run_key": run_key,
            "commit": commit,
            "training_set_version": rows.version,
            "rows_train": rows.train.num_rows,
            "params": {**config.train.params, "seed": config.train.seed},
            "importance": importance(booster),
        }
        found = evaluate.measure_version(config, rows.test, challenger.predict, facts, champion)
        counts = {"rows_train": rows.train.num_rows, "rows_test": rows.test.num_rows}
        mlflow.log_params({**facts["params"], **tags, **counts})
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
        uri = registry.log_model(challenger)
        auc = found["metrics"]["challenger"]["roc_auc"]["value"]
        tags["roc_auc"] = "not measured" if auc is None else f"{auc:.4f}"
        version = registry.register_once(config.model, uri, run_key, tags)
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
