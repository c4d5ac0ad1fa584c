"""Try parameters on the training part alone: what a sweep's trials run. Nothing is registered.

The newest training cut-off is what parameters are judged by, and the cut-offs whose labels end before it are what a trial
fits: out of time, as the test will be, and without a look at the test. With too few cut-offs for that, customers are
split into folds instead (a customer's rows never on both sides), and the facts say so.

What is measured goes to the MLflow run that `MLFLOW_RUN_ID` names, as a sweep sets it, after each quarter of the rounds:
a sweep may end a trial that is far behind. A sweep judges a trial by the best of these values.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_model
from ml.errors import StageError

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.train.dataset import TrainingSet

log = logging.getLogger(__name__)

METRIC = "validation_roc_auc"
LOSS = "validation_log_loss"
FOLDS = 3
LOOKS = 4  # at a trial on its way: rounds are looked at after each quarter
_OF_LIGHTGBM = {"auc": METRIC, "binary_logloss": LOSS}


@dataclass(frozen=True)
class Split:
    """Rows to fit and rows to judge by, and how they were told apart."""

    how: str
    pairs: tuple[tuple[pa.Table, pa.Table], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--training-set-version", type=int, required=True, help="Delta version to learn from")
    parser.add_argument("--params", help="JSON: parameters beside, or instead of, those of the config")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one such parameter; may be given several times",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Fit and judge. Facts: params, value of the metric at the end and after each quarter, rows, how it was judged."""
    from ml.train.dataset import read
    from ml.train.fit import with_params

    started = time.monotonic()
    config = with_params(load_model(args.model), json.dumps({**_params(args.params), **_pairs(args.set)}))
    rows = read(config, args.training_set_version)
    chosen = split(config, rows)
    tell = _teller()
    if len(chosen.pairs) == 1:
        curves = [_fit(config, rows, *chosen.pairs[0], tell)]
    else:  # of folds only their mean says something: it is told when all are fitted
        curves = [_fit(config, rows, *pair, lambda *_: None) for pair in chosen.pairs]
    curve = {step: {name: _mean([c[step][name] for c in curves]) for name in (METRIC, LOSS)} for step in curves[0]}
    if len(chosen.pairs) > 1:
        for step, values in curve.items():
            tell(step, values)
    last = max(curve)
    return {
        "training_set_version": rows.version,
        "params": {**config.train.params, "seed": config.train.seed},
        "metric": METRIC,
        "value": round(curve[last][METRIC], 6),
        LOSS: round(curve[last][LOSS], 6),
        "curve": {step: round(values[METRIC], 6) for step, values in curve.items()},
        "validation": chosen.how,
        "rows_fit": sum(fitted.num_rows for fitted, _ in chosen.pairs),
        "rows_judged": sum(judged.num_rows for _, judged in chosen.pairs),
        "seconds": round(time.monotonic() - started, 2),
    }


def split(config: ModelConfig, rows: TrainingSet) -> Split:
    """How the training part is split. Raises StageError when one side would hold one class only."""
    import pyarrow as pa
    import pyarrow.compute as pc

    train, newest = rows.train, rows.trained_through
    known = newest - timedelta(days=config.label.horizon_days)  # labels of cut-offs up to here end before the newest
    older = train.filter(pc.less_equal(train["as_of"], pa.scalar(known, pa.date32())))
    if older.num_rows >= config.train.min_train_rows:
        judged = train.filter(pc.equal(train["as_of"], pa.scalar(newest, pa.date32())))
        chosen = Split(f"out of time: fitted on cut-offs up to {known}, judged on {newest}", ((older, judged),))
    else:
        fold = pa.array(rows.folds(config.features.key, FOLDS))
        pairs = tuple((train.filter(pc.not_equal(fold, n)), train.filter(pc.equal(fold, n))) for n in range(FOLDS))
        why = (
            f"{older.num_rows} rows at cut-offs up to {known}, train.min_train_rows asks {config.train.min_train_rows}"
        )
        chosen = Split(f"{FOLDS} folds of customers, not out of time: {why}", pairs)
    label = config.label.name
    for fitted, judged in chosen.pairs:
        if any(len(pc.unique(part[label])) < 2 for part in (fitted, judged)):
            raise StageError(
                f"training set version {rows.version}: {fitted.num_rows} rows to fit and {judged.num_rows} to judge by "
                f"({chosen.how}), and one side has one class of {label} only: nothing can be told from it"
            )
    return chosen


def _fit(
    config: ModelConfig,
    rows: TrainingSet,
    fitted: pa.Table,
    judged: pa.Table,
    tell: Callable[[int, Mapping[str, float]], None],
) -> dict[int, dict[str, float]]:
    """What was measured, by the number of rounds."""
    from ml.models.frames import categories_of, frame
    from ml.models.lightgbm import lightgbm_library
    from ml.train.fit import FIXED

    lightgbm = lightgbm_library()
    rounds = int(config.train.params["n_estimators"])
    looks = {max(1, rounds * quarter // LOOKS) for quarter in range(1, LOOKS + 1)}
    curve: dict[int, dict[str, float]] = {}

    def look(env: Any) -> None:
        if env.iteration + 1 in looks:
            found = {_OF_LIGHTGBM[told[1]]: float(told[2]) for told in env.evaluation_result_list}
            curve[env.iteration + 1] = found
            tell(env.iteration + 1, found)

    params = {name: value for name, value in config.train.params.items() if name != "n_estimators"}
    params |= {**FIXED, "seed": config.train.seed, "metric": ",".join(_OF_LIGHTGBM)}
    categories, label = categories_of(fitted, rows.features), config.label.name
    data = lightgbm.Dataset(frame(fitted, rows.features, categories), fitted[label].to_numpy(), params=params)
    against = lightgbm.Dataset(frame(judged, rows.features, categories), judged[label].to_numpy(), reference=data)
    lightgbm.train(params, data, rounds, valid_sets=[against], callbacks=[look])
    return curve


def _teller() -> Callable[[int, Mapping[str, float]], None]:
    """What tells a measurement: to the MLflow run of the trial, if there is one, and to the log."""
    run = os.environ.get("MLFLOW_RUN_ID")
    tracking: Any = None
    if run:
        from ml.registry import model_versions

        tracking = model_versions.client()

    def tell(step: int, values: Mapping[str, float]) -> None:
        log.info("after %d rounds: %s", step, ", ".join(f"{name} {value:.5f}" for name, value in values.items()))
        for name, value in values.items() if tracking else ():
            tracking.log_metric(run, name, value, step=step)

    return tell


def _params(given: str | None) -> dict[str, Any]:
    try:
        params = json.loads(given or "{}")
    except ValueError as error:
        raise StageError(f"--params is no JSON: {error}; found {str(given)[:200]!r}") from error
    if not isinstance(params, dict):
        raise StageError(f"--params: a JSON object of parameters is needed; found {str(given)[:200]!r}")
    return params


def _pairs(given: Sequence[str]) -> dict[str, Any]:
    """`num_leaves=7` and the like: a number or a truth value where it reads as one, else a text."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise StageError(f"--set {pair!r}: NAME=VALUE is needed")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
