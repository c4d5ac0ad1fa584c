"""The specification of an AutoML job, parsed from its definition.

No setting is ignored silently: each is either applied, rejected as invalid (400) or reported as not implemented (501).
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
_UNSUPPORTED_FAMILIES = (
    "BernoulliNaiveBayes", "DecisionTree", "GradientBoosting", "LinearSVM", "MultinomialNaiveBayes", "SGD", "SVM",
)  # fmt: skip
METRICS = ("AUCWeighted", "Accuracy", "NormMacroRecall", "AveragePrecisionScoreWeighted", "PrecisionScoreWeighted")
STRATEGIES = ("mean", "median", "most_frequent", "constant")

_DURATION = TypeAdapter(timedelta)
_EMPTY: tuple[Any, ...] = (None, "", [], {}, False, 0)


class InvalidSpecError(ValueError):
    """A setting is invalid; the message says what is allowed."""


class UnsupportedSpecError(ValueError):
    """A setting that the service supports and this stand-in does not."""


@dataclass(frozen=True)
class Spec:
    """An AutoML classification job. Times in seconds. Defaults are the service's, unless they depend on the data."""

    target: str
    metric: str
    folds: int | None  # None: the service chooses by the number of rows
    holdout: float | None  # share of the training data to validate on, instead of folds
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
    own_splits: tuple[str, ...] = ()  # columns of the training data, one per split: 1 = fit, 0 = score
    seed: int = 7  # not a setting of the service; here the search is deterministic

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Spec:
        fields = json.loads(text)
        fields["families"] = tuple(fields["families"])
        fields["own_splits"] = tuple(fields["own_splits"])
        fields["imputers"] = {column: tuple(imputer) for column, imputer in fields["imputers"].items()}
        return cls(**fields)


def read_spec(definition: Json) -> Spec:
    """Parse the job's `taskDetails`. Raises InvalidSpecError and UnsupportedSpecError."""
    task = dict(definition.get("taskDetails") or {})
    if (kind := task.pop("taskType", None)) != "Classification":
        raise UnsupportedSpecError(f"An AutoML job of type {kind!r}")
    task.pop("logVerbosity", None)  # there is only one log
    for data in ("trainingData", "validationData"):
        task.pop(data, None)
    target = task.pop("targetColumnName", None)
    if not target:
        raise InvalidSpecError("targetColumnName is required")
    metric = task.pop("primaryMetric", None) or "AUCWeighted"
    if metric not in METRICS:
        raise InvalidSpecError(f"primaryMetric {metric!r}: one of {', '.join(METRICS)} is needed")
    folds = _folds(task.pop("nCrossValidations", None))
    share = task.pop("validationDataSize", None)
    if share is not None and not 0 < share < 1:
        raise InvalidSpecError(f"validationDataSize {share}: a share between 0 and 1 is needed")
    if share is not None and folds is not None:
        raise InvalidSpecError("nCrossValidations and validationDataSize: choose one")
    split_columns = tuple(task.pop("cvSplitColumnNames", None) or ())
    if split_columns and (share is not None or folds is not None):
        raise InvalidSpecError("cvSplitColumnNames, nCrossValidations and validationDataSize: choose one")
    limits = _limits(dict(task.pop("limitSettings", None) or {}))
    training = dict(task.pop("trainingSettings", None) or {})
    imputers = _imputers(dict(task.pop("featurizationSettings", None) or {}))
    _refuse_unknown(task, "taskDetails")
    onnx, families, vote, stack = (
        training.pop("enableOnnxCompatibleModels", None),
        _families(training.pop("allowedTrainingAlgorithms", None), training.pop("blockedTrainingAlgorithms", None)),
        training.pop("enableVoteEnsemble", None),
        training.pop("enableStackEnsemble", None),
    )
    if not onnx:
        raise UnsupportedSpecError("AutoML without enableOnnxCompatibleModels: the model would be a pickle. Such a job")
    _refuse_unknown(training, "trainingSettings")
    return Spec(
        target, metric, folds, share, families,
        vote=vote is not False, stack=stack is not False, imputers=imputers, own_splits=split_columns, **limits,
    )  # fmt: skip


def _folds(setting: Json | None) -> int | None:
    if not setting or setting.get("mode") == "Auto":
        return None
    value = setting.get("value")
    if not isinstance(value, int) or not 2 <= value <= 25:
        raise InvalidSpecError(f"nCrossValidations {value!r}: a number of folds from 2 to 25 is needed")
    return value


def _families(allowed: list[str] | None, blocked: list[str] | None) -> tuple[str, ...]:
    for name in [*(allowed or []), *(blocked or [])]:
        if name not in (*FAMILIES, *_UNSUPPORTED_FAMILIES):
            raise InvalidSpecError(
                f"training algorithm {name!r}: one of {', '.join(sorted((*FAMILIES, *_UNSUPPORTED_FAMILIES)))} is needed"
            )
    if both := sorted(set(allowed or []) & set(blocked or [])):
        raise InvalidSpecError(f"training algorithms {', '.join(both)} are both allowed and blocked")
    if unsupported := [name for name in allowed or [] if name in _UNSUPPORTED_FAMILIES]:
        raise UnsupportedSpecError(f"AutoML with {', '.join(unsupported)} (this stand-in has {', '.join(FAMILIES)})")
    chosen = tuple(name for name in FAMILIES if name in (allowed or FAMILIES) and name not in (blocked or []))
    if not chosen:
        raise InvalidSpecError(
            f"no training algorithm is left: blocked are {', '.join(blocked or [])} of {', '.join(FAMILIES)}"
        )
    return chosen


def _limits(settings: Json) -> Json:
    names = {"maxTrials": "max_trials", "maxConcurrentTrials": "concurrent", "exitScore": "exit_score"}
    limits = {option: settings.pop(name) for name, option in names.items() if settings.get(name) is not None}
    for name in ("max_trials", "concurrent"):
        if name in limits and (not isinstance(limits[name], int) or limits[name] < 1):
            raise InvalidSpecError(f"limitSettings.{name} {limits[name]!r}: a number from 1 is needed")
    for name, option in (("timeout", "timeout"), ("trialTimeout", "trial_timeout")):
        if (text := settings.pop(name, None)) is not None:
            try:
                limits[option] = _DURATION.validate_python(text).total_seconds()
            except ValidationError:
                raise InvalidSpecError(
                    f"limitSettings.{name} {text!r}: an ISO 8601 duration such as PT1H is needed"
                ) from None
    if (early := settings.pop("enableEarlyTermination", None)) is not None:
        limits["early_termination"] = early
    _refuse_unknown(settings, "limitSettings")
    return limits


def _imputers(settings: Json) -> dict[str, tuple[str, Any]]:
    mode = str(settings.pop("mode", None) or "auto").lower()
    if mode == "off":
        raise UnsupportedSpecError("AutoML with featurization off")
    if mode not in ("auto", "custom"):
        raise InvalidSpecError(f"featurizationSettings.mode {mode!r}: auto, custom or off is needed")
    imputers: dict[str, tuple[str, Any]] = {}
    transformers = dict(settings.pop("transformerParams", None) or {})
    for name in list(transformers):
        if name.lower() != "imputer":
            raise UnsupportedSpecError(f"AutoML with parameters for the transformer {name!r}")
        for entry in transformers[name] or []:
            params = dict(entry.get("parameters") or {})
            strategy, fill = params.pop("strategy", "mean"), params.pop("fill_value", None)
            if strategy not in STRATEGIES:
                raise InvalidSpecError(f"imputer strategy {strategy!r}: one of {', '.join(STRATEGIES)} is needed")
            _refuse_unknown(params, "imputer parameters")
            for column in entry.get("fields") or []:
                if column in imputers:
                    raise InvalidSpecError(f"column {column} has two imputers")
                imputers[column] = (strategy, fill)
    _refuse_unknown(settings, "featurizationSettings")
    return imputers


def _refuse_unknown(settings: Json, section: str) -> None:
    if unknown := sorted(name for name, value in settings.items() if value not in _EMPTY):
        raise UnsupportedSpecError(f"AutoML with {section}.{f', {section}.'.join(unknown)}")
