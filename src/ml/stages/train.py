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
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_model
from ml.errors import StageError
from ml.train import automl
from ml.train.fit import adopt_automl_model, fit_model, with_params

if TYPE_CHECKING:
    from ml.registry.model_versions import Version

log = logging.getLogger(__name__)


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


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train once per run key; a key that has its version gets that version back."""
    from ml.evaluate import record
    from ml.registry import model_versions

    started = time.monotonic()
    config = with_params(load_model(args.model), args.params)
    version = model_versions.by_run_key(config.model, args.run_key)
    reused = version is not None
    if version is None:
        version = _train(config, args)
    model_versions.finish(version)
    found = json.loads(model_versions.artifact(version, record.FILE))
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
        "report": record.publish(version),
        "page": model_versions.page(version, record.PAGE),
        "seconds": round(time.monotonic() - started, 2),
    }


def _refuse_another(args: argparse.Namespace, config: ModelConfig, version: Version, found: dict[str, Any]) -> None:
    """A run key stands for one training: its version is not what another training asks for."""
    made, asked = [], []
    if found["training_set_version"] != args.training_set_version:
        made.append(f"training set version {found['training_set_version']}")
        asked.append(f"{args.training_set_version}")
    if args.automl_model:
        digest = automl.provenance(args, automl.fetch(args.automl_model))[automl.DIGEST]
        if (other := version.tags.get(automl.DIGEST)) != digest:
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


def _train(config: ModelConfig, args: argparse.Namespace) -> Version:
    import mlflow

    from ml.evaluate import measure, record
    from ml.evaluate.report import page
    from ml.monitor import drift
    from ml.registry import model_versions, production
    from ml.train.dataset import read

    rows = read(config, args.training_set_version)
    settings = config.model_dump_json()
    tags = {
        "commit": args.commit,
        "config_digest": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "training_set_version": str(rows.version),
        "trained_through": rows.trained_through.isoformat(),
        **{f"source.{name}": value for name, value in rows.sources.items()},
    }
    made = adopt_automl_model(args, rows) if args.automl_model else None  # refused before there is a run
    with model_versions.training_run(config.experiment, args.run_key, tags) as run_id:
        made = made or fit_model(config, rows)
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
        found = measure.measure_version(config, rows, made.predictor, facts, champion)
        counts = {"rows_train": rows.train.num_rows, "rows_test": rows.test.num_rows}
        mlflow.log_params({**made.params, **tags, **counts})
        mlflow.log_metrics(_flat(found["metrics"]["challenger"]))
        model_versions.log_files(
            run_id,
            {
                record.FILE: record.to_json(found),
                record.PAGE: page.model_page(config, found),
                "reference.json": json.dumps(drift.reference(rows.train, rows.features, config.monitor.bins)).encode(),
                "config.json": settings.encode(),
            },
        )
        uri = model_versions.log_model(made.predictor)
        auc = found["metrics"]["challenger"]["roc_auc"]["value"]
        tags["roc_auc"] = "not measured" if auc is None else f"{auc:.4f}"
        version = model_versions.register_once(config.model, uri, args.run_key, tags)
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
