"""Train: fit, evaluate out of time, log and register. One version per run key, the same bytes from the same inputs.

The model is fitted here, with the config's parameters or with those a sweep has found (`--params`), or AutoML has fitted
it (`--automl-model`); all later steps are the same.

The registered version is the commit marker. Everything it needs (trees, evaluation, drift reference) is logged before
it, so a version that exists is complete, and what an earlier, broken attempt with the same run key left behind is
superseded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.evaluate import measure, record
from ml.evaluate.report import page
from ml.registry import model_versions, production
from ml.registry.model_versions import Version
from ml.train import automl
from ml.train.automl import AutomlModel
from ml.train.dataset import read_training_set
from ml.train.fit import adopt_automl_model, fit_model
from ml.train.params import parse_params, with_params

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--training-set-version", type=int, required=True, help="Delta version to learn from")
    parser.add_argument("--run-key", required=True, help="identifies the request; one version per key")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--params", help="JSON: parameters to fit with instead of, or beside, those of the config (a sweep's best)"
    )
    source.add_argument(
        "--automl-model", help="take this model instead of fitting one: AutoML's folder or model.onnx, local or az://"
    )
    parser.add_argument("--automl-job", default="", help="the AutoML job that fitted it; kept with the version")
    parser.add_argument("--automl-algorithm", default="", help="the algorithm that job reported; kept with the version")
    parser.add_argument(
        "--commit",
        default=os.environ.get("ML_COMMIT", "unknown"),
        help="commit of the code that trains (default: ML_COMMIT)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train once per run key; a run key that has a version returns that version.

    Raises StageError for a training set unfit for training, for parameters or a model that do not fit it, and for a run
    key that was used for another training.
    """
    started = time.monotonic()
    config = load_model(args.model)
    if args.params is not None:
        config = with_params(config, parse_params(args.params))
    automl_model = None
    if args.automl_model:
        automl_model = AutomlModel(args.automl_model, job=args.automl_job, algorithm=args.automl_algorithm)
    version = model_versions.find_by_run_key(config.model, args.run_key)
    reused = version is not None
    if version is None:
        version = _train_version(
            config,
            training_set_version=args.training_set_version,
            run_key=args.run_key,
            commit=args.commit,
            automl_model=automl_model,
        )
    model_versions.finish_run(version)
    evaluation = record.read(version)
    if reused:
        _refuse_other_training(
            config,
            version,
            evaluation,
            training_set_version=args.training_set_version,
            run_key=args.run_key,
            automl_model=automl_model,
        )
    return {
        "version": version.number,
        "run_id": version.run_id,
        "reused": reused,
        "training_set_version": evaluation["training_set_version"],
        "algorithm": version.tags["algorithm"],
        "params": evaluation["params"],
        "rows_train": evaluation["rows_train"],
        "rows_test": evaluation["rows"],
        "positives_test": evaluation["positives"],
        "roc_auc": evaluation["metrics"]["challenger"]["roc_auc"],
        "champion": evaluation["champion"],
        "problems": evaluation["problems"],
        "report": record.publish(version),
        "page": model_versions.artifact_url(version, record.PAGE),
        "seconds": round(time.monotonic() - started, 2),
    }


def _refuse_other_training(
    config: ModelConfig,
    version: Version,
    evaluation: Mapping[str, Any],
    *,
    training_set_version: int,
    run_key: str,
    automl_model: AutomlModel | None,
) -> None:
    """Raise StageError unless the version of this run key has the requested training set, and parameters or model."""
    recorded, requested = [], []
    if evaluation["training_set_version"] != training_set_version:
        recorded.append(f"training set version {evaluation['training_set_version']}")
        requested.append(f"{training_set_version}")
    if automl_model is not None:
        digest = automl.digest(automl.fetch(automl_model.location))
        if (other := version.tags.get(automl.DIGEST)) != digest:
            recorded.append(f"AutoML model {other}" if other else "a fit of its own")
            requested.append(f"AutoML model {digest}")
    elif evaluation["params"] != {**config.train.params, "seed": config.train.seed}:
        recorded.append(f"parameters {evaluation['params'] or 'of AutoML'}")
        requested.append(f"{config.train.params}")
    if recorded:
        raise StageError(
            f"run key {run_key!r} already has {version}, trained with {' and '.join(recorded)}, "
            f"not {' and '.join(requested)}: use a new run key"
        )


def _train_version(
    config: ModelConfig,
    *,
    training_set_version: int,
    run_key: str,
    commit: str,
    automl_model: AutomlModel | None,
) -> Version:
    """Fit (or adopt AutoML's model), evaluate, log and register under the run key."""
    import mlflow

    from ml.monitor import drift

    training_set = read_training_set(config, training_set_version)
    config_json = config.model_dump_json()
    tags = {
        "commit": commit,
        "config_digest": hashlib.sha256(config_json.encode()).hexdigest()[:16],
        "training_set_version": str(training_set.version),
        "trained_through": training_set.trained_through.isoformat(),
        **{f"source.{name}": value for name, value in training_set.sources.items()},
    }
    adopted = adopt_automl_model(training_set, automl_model) if automl_model else None  # refused before a run exists
    with model_versions.training_run(config.experiment, run_key, tags) as run_id:
        fitted = adopted or fit_model(config, training_set)
        tags |= {"algorithm": fitted.algorithm, **fitted.tags}
        champion = production.get_champion(config.model)
        facts = {
            "run_key": run_key,
            "commit": commit,
            "training_set_version": training_set.version,
            "rows_train": training_set.train.num_rows,
            "params": fitted.params,
            "importance": fitted.importance,
        }
        evaluation = measure.measure_version(config, training_set, fitted.predictor, facts, champion)
        counts = {"rows_train": training_set.train.num_rows, "rows_test": training_set.test.num_rows}
        mlflow.log_params({**fitted.params, **tags, **counts})
        mlflow.log_metrics(_flat_metrics(evaluation["metrics"]["challenger"]))
        reference = drift.build_reference(training_set.train, training_set.features, config.monitor.bins)
        model_versions.log_files(
            run_id,
            {
                record.FILE: record.to_json(evaluation),
                record.PAGE: page.model_page(config, evaluation),
                "reference.json": json.dumps(reference).encode(),
                "config.json": config_json.encode(),
            },
        )
        uri = model_versions.log_model(fitted.predictor)
        auc = evaluation["metrics"]["challenger"]["roc_auc"]["value"]
        tags["roc_auc"] = "not measured" if auc is None else f"{auc:.4f}"
        version = model_versions.register_once(config.model, uri, run_key, tags)
        log.info("%s: AUC %s on %d out-of-time rows", version, auc, evaluation["rows"])
        return version


def _flat_metrics(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """`roc_auc`, `roc_auc_low`, `roc_auc_high`, …: single numbers for MLflow's charts, without unmeasured ones."""
    return {
        name + ("" if part == "value" else f"_{part}"): value
        for name, parts in metrics.items()
        for part, value in parts.items()
        if value is not None
    }
