"""One trial of a parameter sweep: fits on one part of the training rows and measures on another. Nothing is registered.

The rows of the newest training cut-off measure, and those of the cut-offs whose labels end before it are fitted: out of
time, as the test is, and without reading the test. When they are too few, entities are split into folds instead (all rows
of one are on one side), and the facts say so. Examples are split by day or by key, as their test is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.errors import StageError
from ml.models.frames import categories_of, frame
from ml.models.lightgbm import lightgbm_library
from ml.train.examples import newest_days
from ml.train.fit import FIXED_PARAMS

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.train.dataset import TrainingSet

METRIC = "validation_roc_auc"
LOSS = "validation_log_loss"
FOLDS = 3
MEASUREMENTS = 4  # per trial: one after each quarter of the rounds
_NAMES_BY_LIGHTGBM = {"auc": METRIC, "binary_logloss": LOSS}

# Called with the number of rounds and the values by metric.
OnMeasurement = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Split:
    """Pairs of rows to fit and rows to measure on, and a sentence part that says how they were chosen."""

    method: str
    pairs: tuple[tuple[pa.Table, pa.Table], ...]


def run_trial(config: ModelConfig, training_set: TrainingSet, on_measurement: OnMeasurement) -> dict[str, Any]:
    """Fit with the config's parameters and measure after each quarter of the rounds, `on_measurement` each time.

    Facts: training_set_version, params, metric, value (at the end), the log loss, curve (value by rounds), validation
    (how the rows were split), rows_fit, rows_judged.
    """
    split = split_training_rows(config, training_set)
    if len(split.pairs) == 1:
        curves = [_fit(config, training_set, *split.pairs[0], on_measurement)]
    else:  # of folds only the mean is reported, when all are fitted
        curves = [_fit(config, training_set, *pair, lambda *_: None) for pair in split.pairs]
    curve = {
        rounds: {name: _mean([c[rounds][name] for c in curves]) for name in (METRIC, LOSS)} for rounds in curves[0]
    }
    if len(split.pairs) > 1:
        for rounds, values in curve.items():
            on_measurement(rounds, values)
    last = max(curve)
    return {
        "training_set_version": training_set.version,
        "params": {**config.train.params, "seed": config.train.seed},
        "metric": METRIC,
        "value": round(curve[last][METRIC], 6),
        LOSS: round(curve[last][LOSS], 6),
        "curve": {rounds: round(values[METRIC], 6) for rounds, values in curve.items()},
        "validation": split.method,
        "rows_fit": sum(fitted.num_rows for fitted, _ in split.pairs),
        "rows_judged": sum(measured.num_rows for _, measured in split.pairs),
    }


def split_training_rows(config: ModelConfig, training_set: TrainingSet) -> Split:
    """Split the training part, in time or by entity. Raises StageError when one side would have one class only."""
    import pyarrow.compute as pc

    split = _split_examples(config, training_set) if config.examples else _split_cutoffs(config, training_set)
    label = config.label.name
    for fitted, measured in split.pairs:
        if any(len(pc.unique(part[label])) < 2 for part in (fitted, measured)):
            raise StageError(
                f"training set version {training_set.version}: {fitted.num_rows} rows to fit and {measured.num_rows} to "
                f"measure on ({split.method}), and one side has one class of {label} only: nothing can be measured"
            )
    return split


def _split_cutoffs(config: ModelConfig, training_set: TrainingSet) -> Split:
    """The rows of the newest cut-off measure, those whose labels end before it are fitted; folds when these are few."""
    newest = training_set.trained_through
    # labels of these cut-offs end before the newest
    labelled_before = newest - timedelta(days=config.label.horizon_days or 1)
    older, measured = _until(training_set.train, labelled_before), _from(training_set.train, newest)
    if older.num_rows >= config.train.min_train_rows:
        return Split(
            f"out of time: fitted on cut-offs up to {labelled_before}, measured on {newest}", ((older, measured),)
        )
    few = f"{older.num_rows} rows at cut-offs up to {labelled_before}"
    return _split_into_folds(
        config, training_set, f"{few}, train.min_train_rows requires {config.train.min_train_rows}"
    )


def _split_examples(config: ModelConfig, training_set: TrainingSet) -> Split:
    """As the test is chosen: the newest days measure, or folds of keys."""
    import pyarrow.compute as pc

    assert config.examples is not None
    if config.examples.split.by == "key":
        return _split_into_folds(config, training_set, "the test is split by key, too")
    days = sorted(pc.unique(training_set.train["as_of"]).to_pylist())
    if len(days) < 2:
        return _split_into_folds(config, training_set, f"all training rows are of {days[0]}")
    first = newest_days(days, config.examples.split.test_share)[0]
    older, measured = _until(training_set.train, first - timedelta(1)), _from(training_set.train, first)
    if older.num_rows >= config.train.min_train_rows:
        return Split(f"out of time: fitted on days before {first}, measured from it on", ((older, measured),))
    few = f"{older.num_rows} rows of days before {first}"
    return _split_into_folds(
        config, training_set, f"{few}, train.min_train_rows requires {config.train.min_train_rows}"
    )


def _split_into_folds(config: ModelConfig, training_set: TrainingSet, reason: str) -> Split:
    import pyarrow as pa
    import pyarrow.compute as pc

    train, fold = training_set.train, pa.array(training_set.folds(config.entity, FOLDS))
    pairs = tuple((train.filter(pc.not_equal(fold, n)), train.filter(pc.equal(fold, n))) for n in range(FOLDS))
    return Split(f"{FOLDS} folds of {config.entity}, not out of time: {reason}", pairs)


def _until(rows: pa.Table, last: date) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    return rows.filter(pc.less_equal(rows["as_of"], pa.scalar(last, pa.date32())))


def _from(rows: pa.Table, first: date) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    return rows.filter(pc.greater_equal(rows["as_of"], pa.scalar(first, pa.date32())))


def _fit(
    config: ModelConfig,
    training_set: TrainingSet,
    fitted: pa.Table,
    measured: pa.Table,
    on_measurement: OnMeasurement,
) -> dict[int, dict[str, float]]:
    """The measured values, by number of rounds."""
    lightgbm = lightgbm_library()
    rounds = int(config.train.params["n_estimators"])
    measured_after = {max(1, rounds * n // MEASUREMENTS) for n in range(1, MEASUREMENTS + 1)}
    curve: dict[int, dict[str, float]] = {}

    def measure(env: Any) -> None:
        if env.iteration + 1 in measured_after:
            values = {_NAMES_BY_LIGHTGBM[result[1]]: float(result[2]) for result in env.evaluation_result_list}
            curve[env.iteration + 1] = values
            on_measurement(env.iteration + 1, values)

    params = {name: value for name, value in config.train.params.items() if name != "n_estimators"}
    params |= {**FIXED_PARAMS, "seed": config.train.seed, "metric": ",".join(_NAMES_BY_LIGHTGBM)}
    features, label = training_set.features, config.label.name
    categories = categories_of(fitted, features)
    data = lightgbm.Dataset(frame(fitted, features, categories), fitted[label].to_numpy(), params=params)
    valid = lightgbm.Dataset(frame(measured, features, categories), measured[label].to_numpy(), reference=data)
    lightgbm.train(params, data, rounds, valid_sets=[valid], callbacks=[measure])
    return curve


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
