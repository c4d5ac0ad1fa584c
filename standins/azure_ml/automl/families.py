"""The algorithm families of AutoML jobs: FLAML's estimators and search spaces, by the names Azure ML gives them.

Every family is a scikit-learn pipeline: the columns prepared (imputed, encoded, scaled where the family needs
it), then the classifier. Heavy: imported only by the job's own process.
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
MAX_TEXTS = 1000  # different texts in a column that are encoded, a number each


class UnusableError(ValueError):
    """The data cannot be learnt from as it is asked for; the message says why."""


@dataclass(frozen=True)
class Family:
    """One of Azure ML's families. `start` is where its search starts.

    FLAML's own start (four trees of four leaves) is meant for searches of thousands of trials; a job of a dozen
    would end before it has a model worth the name.
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
    """FLAML's search space of a family for data of this shape, and where the search starts in it."""
    found = FAMILIES[family].estimator.search_space(data_size=shape, task=_TASK)
    domains = {name: entry["domain"] for name, entry in found.items()}
    start = {name: value for name, value in FAMILIES[family].start.items() if name in domains}
    if family == "KNN":  # its space ends at half of the rows, of which one fold is left out
        start["n_neighbors"] = min(start["n_neighbors"], max(1, shape[0] // 4))
    return domains, start


def classifier(family: str, config: Mapping[str, Any], threads: int, seed: int) -> Any:
    """The family's classifier with the parameters that FLAML makes of a point of its search space."""
    made = FAMILIES[family].estimator(task=_TASK, n_jobs=threads, **config)
    params = {name: value.item() if isinstance(value, np.generic) else value for name, value in made.params.items()}
    if "random_state" in made.estimator_class().get_params():
        params["random_state"] = seed
    if family == "KNN":
        params["weights"] = (
            "uniform"  # by distance, a customer like one learnt has that one's label: 32 bits see it or not
        )
    if family == "LightGBM":
        params |= {"deterministic": True, "force_row_wise": True}
    return made.estimator_class(**params)


def pipeline(spec: Spec, columns: Columns, family: str, config: Mapping[str, Any], threads: int) -> Pipeline:
    """Prepared columns and a family's classifier."""
    return Pipeline(
        [
            *_prepared(spec, columns, FAMILIES[family].scaled),
            ("classifier", classifier(family, config, threads, spec.seed)),
        ]
    )


def ensemble(
    spec: Spec, columns: Columns, kind: str, members: Sequence[tuple[str, Mapping[str, Any]]], threads: int
) -> Pipeline:
    """scikit-learn's vote (mean of probabilities) or stack (a logistic regression over them) of the members."""
    from sklearn.ensemble import StackingClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression

    named = []
    for number, (family, config) in enumerate(members):
        made = classifier(family, config, threads, spec.seed)
        scaled = FAMILIES[family].scaled
        named.append((f"m{number}", Pipeline([("scale", StandardScaler()), ("classifier", made)]) if scaled else made))
    made = (
        VotingClassifier(named, voting="soft", flatten_transform=False)
        if kind == VOTE
        else StackingClassifier(named, LogisticRegression(), cv=3, stack_method="predict_proba")
    )
    return Pipeline([*_prepared(spec, columns, False), ("classifier", made)])


@dataclass(frozen=True)
class Columns:
    """The feature columns: numbers and texts, in the table's order."""

    numbers: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.numbers, *self.texts)


def _prepared(spec: Spec, columns: Columns, scaled: bool) -> list[tuple[str, Any]]:
    """Imputers and encoders. A null number is imputed with the mean unless asked otherwise; a null text is a text of its own."""
    if unknown := sorted(spec.imputers.keys() - set(columns.all)):
        raise UnusableError(f"featurization imputes {', '.join(unknown)}, which are no feature columns")
    groups: dict[tuple[str, Any], list[str]] = {}
    for name in columns.numbers:
        groups.setdefault(spec.imputers.get(name, ("mean", None)), []).append(name)
    parts: list[tuple[str, Any, list[str]]] = []
    for (strategy, fill), names in groups.items():
        try:
            value = None if strategy != "constant" else float(fill if fill is not None else 0)
        except (TypeError, ValueError):
            raise UnusableError(f"featurization fills {', '.join(names)}, which are numbers, with {fill!r}") from None
        imputer = SimpleImputer(strategy=strategy, fill_value=value, keep_empty_features=True)
        parts.append((f"numbers {strategy} {value}", imputer, names))
    if imputed := [name for name in columns.texts if name in spec.imputers]:
        raise NotImplementedError(
            f"imputing the text columns {', '.join(imputed)}: a null text is a text of its own here"
        )
    if columns.texts:
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
        parts.append(("texts", encoder, list(columns.texts)))
    steps: list[tuple[str, Any]] = [("prepare", ColumnTransformer(parts))]
    return [*steps, ("scale", StandardScaler())] if scaled else steps
