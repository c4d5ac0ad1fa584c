"""The algorithm families of AutoML jobs: FLAML's estimators and search spaces under Azure ML's names.

Every family is a scikit-learn pipeline: it prepares the columns (imputes, encodes, and scales where the family needs it),
then applies the classifier. Slow to import: imported only in the job's own process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from standins.azure_ml.automl.flaml import flaml_models, task_factory
from standins.azure_ml.automl.spec import Spec

VOTE, STACK = "VotingEnsemble", "StackEnsemble"
MAX_TEXTS = 1000  # distinct texts of a column at most; each becomes an encoded column


class UnusableDataError(ValueError):
    """The data cannot be used for training with these settings; the message says why."""


@dataclass(frozen=True)
class Family:
    """One of Azure ML's families. `start` is the point where its search starts.

    FLAML's own start (four trees of four leaves) is meant for searches of thousands of trials; a job of a dozen trials
    would end before it has a useful model.
    """

    estimator: type[Any]
    start: Mapping[str, Any]
    scaled: bool = False


_FOREST = {"n_estimators": 100, "max_features": 0.4, "max_leaves": 64, "criterion": "gini"}
_BOOST = {"n_estimators": 100, "learning_rate": 0.05, "reg_alpha": 0.001, "reg_lambda": 1.0, "colsample_bytree": 1.0}

FAMILIES: dict[str, Family] = {
    "LightGBM": Family(
        flaml_models.LGBMEstimator, {**_BOOST, "num_leaves": 7, "min_child_samples": 40, "log_max_bin": 8}
    ),
    "XGBoostClassifier": Family(
        flaml_models.XGBoostLimitDepthEstimator,
        {**_BOOST, "max_depth": 4, "min_child_weight": 1.0, "subsample": 1.0, "colsample_bylevel": 1.0},
    ),
    "RandomForest": Family(flaml_models.RandomForestEstimator, _FOREST),
    "ExtremeRandomTrees": Family(flaml_models.ExtraTreesEstimator, _FOREST),
    "LogisticRegression": Family(flaml_models.LRL2Classifier, {"C": 1.0}, scaled=True),
    "KNN": Family(flaml_models.KNeighborsEstimator, {"n_neighbors": 50}, scaled=True),
}

_TASK = task_factory("binary")


def space(family: str, shape: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """FLAML's search space of a family for data of this shape (rows, columns), and the start of the search."""
    flaml_space = FAMILIES[family].estimator.search_space(data_size=shape, task=_TASK)
    domains = {name: entry["domain"] for name, entry in flaml_space.items()}
    start = {name: value for name, value in FAMILIES[family].start.items() if name in domains}
    if family == "KNN":  # FLAML allows up to half of the rows, but a fit lacks the rows of one fold
        start["n_neighbors"] = min(start["n_neighbors"], max(1, shape[0] // 4))
    return domains, start


def classifier(family: str, config: Mapping[str, Any], threads: int, seed: int) -> Any:
    """The family's classifier with the parameters that FLAML derives from a point of its search space."""
    estimator = FAMILIES[family].estimator(task=_TASK, n_jobs=threads, **config)
    params = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in estimator.params.items()
    }
    if "random_state" in estimator.estimator_class().get_params():
        params["random_state"] = seed
    if family == "KNN":
        params["weights"] = (
            "uniform"  # with "distance", an exact match decides alone, and 32-bit rounding decides what is exact
        )
    if family == "LightGBM":
        params |= {"deterministic": True, "force_row_wise": True}
    return estimator.estimator_class(**params)


def pipeline(spec: Spec, columns: Columns, family: str, config: Mapping[str, Any], threads: int) -> Pipeline:
    """The preparation of the columns and a family's classifier."""
    return Pipeline(
        [
            *_preparation(spec, columns, FAMILIES[family].scaled),
            ("classifier", classifier(family, config, threads, spec.seed)),
        ]
    )


def ensemble(
    spec: Spec, columns: Columns, kind: str, members: Sequence[tuple[str, Mapping[str, Any]]], threads: int
) -> Pipeline:
    """scikit-learn's vote (mean of the members' probabilities) or stack (a logistic regression over them)."""
    from sklearn.ensemble import StackingClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression

    named = []
    for number, (family, config) in enumerate(members):
        member = classifier(family, config, threads, spec.seed)
        scaled = FAMILIES[family].scaled
        named.append(
            (f"m{number}", Pipeline([("scale", StandardScaler()), ("classifier", member)]) if scaled else member)
        )
    combined = (
        VotingClassifier(named, voting="soft", flatten_transform=False)
        if kind == VOTE
        else StackingClassifier(named, LogisticRegression(), cv=3, stack_method="predict_proba")
    )
    return Pipeline([*_preparation(spec, columns, False), ("classifier", combined)])


@dataclass(frozen=True)
class Columns:
    """The feature columns: numbers and texts, each in the table's order."""

    numbers: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.numbers, *self.texts)


def _preparation(spec: Spec, columns: Columns, scaled: bool) -> list[tuple[str, Any]]:
    """Imputers and encoders. A null number becomes the mean unless `spec.imputers` says otherwise; a null text is a
    category of its own.
    """
    if unknown := sorted(spec.imputers.keys() - set(columns.all)):
        raise UnusableDataError(f"featurization imputes {', '.join(unknown)}, which are not feature columns")
    groups: dict[tuple[str, Any], list[str]] = {}
    for name in columns.numbers:
        groups.setdefault(spec.imputers.get(name, ("mean", None)), []).append(name)
    parts: list[tuple[str, Any, list[str]]] = []
    for (strategy, fill), names in groups.items():
        try:
            value = None if strategy != "constant" else float(fill if fill is not None else 0)
        except (TypeError, ValueError):
            raise UnusableDataError(
                f"featurization fills {', '.join(names)}, which are numbers, with {fill!r}"
            ) from None
        imputer = SimpleImputer(strategy=strategy, fill_value=value, keep_empty_features=True)
        parts.append((f"numbers {strategy} {value}", imputer, names))
    if imputed := [name for name in columns.texts if name in spec.imputers]:
        raise NotImplementedError(
            f"imputing the text columns {', '.join(imputed)}: here a null text is a category of its own"
        )
    if columns.texts:
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
        parts.append(("texts", encoder, list(columns.texts)))
    steps: list[tuple[str, Any]] = [("prepare", ColumnTransformer(parts))]
    return [*steps, ("scale", StandardScaler())] if scaled else steps
