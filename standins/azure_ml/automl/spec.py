"""What an AutoML job is asked to do, read from its body: everything understood, refused as wrong, or not implemented.

Nothing that is asked for is passed over in silence: a setting that this stand-in does not know answers 501.
https://learn.microsoft.com/azure/templates/microsoft.machinelearningservices/workspaces/jobs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

Json = dict[str, Any]

FAMILIES = ("LightGBM", "XGBoostClassifier", "RandomForest", "ExtremeRandomTrees", "LogisticRegression", "KNN")
_OTHERS = (
    "BernoulliNaiveBayes", "DecisionTree", "GradientBoosting", "LinearSVM", "MultinomialNaiveBayes", "SGD", "SVM",
)  # fmt: skip
METRICS = ("AUCWeighted", "Accuracy", "NormMacroRecall", "AveragePrecisionScoreWeighted", "PrecisionScoreWeighted")
STRATEGIES = ("mean", "median", "most_frequent", "constant")

_DURATION = TypeAdapter(timedelta)
_EMPTY: tuple[Any, ...] = (None, "", [], {}, False, 0)


class WrongError(ValueError):
    """Asked for what cannot be; the message says what is allowed."""


class UnknownError(ValueError):
    """Asked for what the service can do and this stand-in cannot."""


@dataclass(frozen=True)
class Spec:
    """An AutoML classification job. Times in seconds. The service's defaults, where it has one for all data."""

    target: str
    metric: str
    folds: int | None  # None: the service chooses by the number of rows
    holdout: float | None  # share of the training data to validate on instead
    families: tuple[str, ...]
    max_trials: int = 1000
    concurrent: int = 1
    timeout: float = 6 * 3600
    trial_timeout: float = 30 * 60
    exit_score: float | None = None
    early_termination: bool = True
    vote: bool = True
    stack: bool = True
    imputers: Mapping[str, tuple[str, Any]] = field(default_factory=dict)  # column → strategy, constant
    own_splits: tuple[str, ...] = ()  # columns of the training data, one of each split: 1 to fit on, 0 to score on
    seed: int = 7  # the service has no setting for it: one search of one data set is always the same here

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        told = json.loads(text)
        told["families"] = tuple(told["families"])
        told["own_splits"] = tuple(told["own_splits"])
        told["imputers"] = {name: tuple(how) for name, how in told["imputers"].items()}
        return cls(**told)


def read_spec(asked: Json) -> Spec:
    """The job's `taskDetails`. Raises WrongError and UnknownError."""
    task = dict(asked.get("taskDetails") or {})
    if (kind := task.pop("taskType", None)) != "Classification":
        raise UnknownError(f"An AutoML job of type {kind!r}")
    task.pop("logVerbosity", None)  # there is one log
    for data in ("trainingData", "validationData"):
        task.pop(data, None)
    target = task.pop("targetColumnName", None)
    if not target:
        raise WrongError("targetColumnName is required")
    metric = task.pop("primaryMetric", None) or "AUCWeighted"
    if metric not in METRICS:
        raise WrongError(f"primaryMetric {metric!r}: one of {', '.join(METRICS)} is needed")
    folds = _folds(task.pop("nCrossValidations", None))
    share = task.pop("validationDataSize", None)
    if share is not None and not 0 < share < 1:
        raise WrongError(f"validationDataSize {share}: a share between 0 and 1 is needed")
    if share is not None and folds is not None:
        raise WrongError("nCrossValidations and validationDataSize: choose one")
    own = tuple(task.pop("cvSplitColumnNames", None) or ())
    if own and (share is not None or folds is not None):
        raise WrongError("cvSplitColumnNames, nCrossValidations and validationDataSize: choose one")
    limits = _limits(dict(task.pop("limitSettings", None) or {}))
    training = dict(task.pop("trainingSettings", None) or {})
    imputers = _imputers(dict(task.pop("featurizationSettings", None) or {}))
    _nothing_left(task, "taskDetails")
    onnx, families, vote, stack = (
        training.pop("enableOnnxCompatibleModels", None),
        _families(training.pop("allowedTrainingAlgorithms", None), training.pop("blockedTrainingAlgorithms", None)),
        training.pop("enableVoteEnsemble", None),
        training.pop("enableStackEnsemble", None),
    )
    if not onnx:
        raise UnknownError("AutoML without enableOnnxCompatibleModels: the model would be a pickle. Such a job")
    _nothing_left(training, "trainingSettings")
    return Spec(
        target, metric, folds, share, families,
        vote=vote is not False, stack=stack is not False, imputers=imputers, own_splits=own, **limits,
    )  # fmt: skip


def _folds(given: Json | None) -> int | None:
    if not given or given.get("mode") == "Auto":
        return None
    value = given.get("value")
    if not isinstance(value, int) or not 2 <= value <= 25:
        raise WrongError(f"nCrossValidations {value!r}: a number of folds from 2 to 25 is needed")
    return value


def _families(allowed: list[str] | None, blocked: list[str] | None) -> tuple[str, ...]:
    for name in [*(allowed or []), *(blocked or [])]:
        if name not in (*FAMILIES, *_OTHERS):
            raise WrongError(
                f"training algorithm {name!r}: one of {', '.join(sorted((*FAMILIES, *_OTHERS)))} is needed"
            )
    if both := sorted(set(allowed or []) & set(blocked or [])):
        raise WrongError(f"training algorithms {', '.join(both)} are both allowed and blocked")
    if missing := [name for name in allowed or [] if name in _OTHERS]:
        raise UnknownError(f"AutoML with {', '.join(missing)} (this stand-in has {', '.join(FAMILIES)})")
    chosen = tuple(name for name in FAMILIES if name in (allowed or FAMILIES) and name not in (blocked or []))
    if not chosen:
        raise WrongError(
            f"no training algorithm is left: of {', '.join(FAMILIES)}, {', '.join(blocked or [])} are blocked"
        )
    return chosen


def _limits(given: Json) -> Json:
    names = {"maxTrials": "max_trials", "maxConcurrentTrials": "concurrent", "exitScore": "exit_score"}
    found = {ours: given.pop(theirs) for theirs, ours in names.items() if given.get(theirs) is not None}
    for name in ("max_trials", "concurrent"):
        if name in found and (not isinstance(found[name], int) or found[name] < 1):
            raise WrongError(f"limitSettings.{name} {found[name]!r}: a number from 1 is needed")
    for theirs, ours in (("timeout", "timeout"), ("trialTimeout", "trial_timeout")):
        if (text := given.pop(theirs, None)) is not None:
            try:
                found[ours] = _DURATION.validate_python(text).total_seconds()
            except ValidationError:
                raise WrongError(
                    f"limitSettings.{theirs} {text!r}: an ISO 8601 duration such as PT1H is needed"
                ) from None
    if (early := given.pop("enableEarlyTermination", None)) is not None:
        found["early_termination"] = early
    _nothing_left(given, "limitSettings")
    return found


def _imputers(given: Json) -> dict[str, tuple[str, Any]]:
    mode = str(given.pop("mode", None) or "auto").lower()
    if mode == "off":
        raise UnknownError("AutoML with featurization off")
    if mode not in ("auto", "custom"):
        raise WrongError(f"featurizationSettings.mode {mode!r}: auto, custom or off is needed")
    found: dict[str, tuple[str, Any]] = {}
    transformers = dict(given.pop("transformerParams", None) or {})
    for name in list(transformers):
        if name.lower() != "imputer":
            raise UnknownError(f"AutoML with parameters for the transformer {name!r}")
        for entry in transformers[name] or []:
            params = dict(entry.get("parameters") or {})
            strategy, fill = params.pop("strategy", "mean"), params.pop("fill_value", None)
            if strategy not in STRATEGIES:
                raise WrongError(f"imputer strategy {strategy!r}: one of {', '.join(STRATEGIES)} is needed")
            _nothing_left(params, "imputer parameters")
            for column in entry.get("fields") or []:
                if column in found:
                    raise WrongError(f"column {column} has two imputers")
                found[column] = (strategy, fill)
    _nothing_left(given, "featurizationSettings")
    return found


def _nothing_left(given: Json, where: str) -> None:
    if left := sorted(name for name, value in given.items() if value not in _EMPTY):
        raise UnknownError(f"AutoML with {where}.{f', {where}.'.join(left)}")
