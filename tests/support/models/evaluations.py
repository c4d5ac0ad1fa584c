"""An evaluation that passes every rule of a gate; tests change it in one place."""

from __future__ import annotations

import copy
from typing import Any

from ml.config.gate import FairnessRule, Gate, Rule

RULES = Gate(
    min_rows=500,
    min_per_class=100,
    when_equal="promote",
    rules=(Rule(metric="roc_auc", at_least=0.80, max_loss=0.02), Rule(metric="ece", at_most=0.05, max_loss=0.01)),
    fairness=(FairnessRule(column="country", metric="accuracy", max_difference=0.2, when_one_group="fail"),),
    max_violations={"buys_again": 0.05},
    max_ms_per_1000_rows=500,
    max_model_mb=10,
)


def value(value: float, half: float = 0.005) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half}


GOOD: dict[str, Any] = {
    "rows": 500,
    "positives": 200,
    "champion": "3",
    "training_set_version": 7,
    "same_predictions": False,
    "metrics": {
        "challenger": {"roc_auc": value(0.84, 0.03), "ece": value(0.03, 0.01)},
        "champion": {"roc_auc": value(0.84, 0.03), "ece": value(0.03, 0.01)},
        "difference": {"roc_auc": value(0.0), "ece": value(0.0)},
    },
    "validation": {"passed": True, "training_set_version": 7},
    "schema": {"equal": True, "problems": []},
    "test_from": "2026-05-01",
    "learnt_through": {"challenger": "2026-05-01", "champion": "2026-04-01"},
    "groups": {"country": {"compared": ["DE", "FR"], "disparity": {"accuracy": {"difference": 0.04, "ratio": 0.9}}}},
    "behaviour": {"buys_again": {"violations": 0.01}},
    "cost": {"ms_per_1000_rows": 20.0, "model_bytes": 90_000},
}


def changed(*places: tuple[str, Any]) -> dict[str, Any]:
    """GOOD with other values at places such as `metrics.challenger.roc_auc.value`."""
    evaluation = copy.deepcopy(GOOD)
    for place, new in places:
        put(evaluation, tuple(place.split(".")), new)
    return evaluation


def put(values: dict[str, Any], place: tuple[str, ...], new: Any) -> None:
    *path, last = place
    for name in path:
        values = values[name]
    values[last] = new


def without(*places: str) -> dict[str, Any]:
    """GOOD without the values at these places."""
    evaluation = copy.deepcopy(GOOD)
    for place in places:
        *path, last = place.split(".")
        inner = evaluation
        for name in path:
            inner = inner[name]
        del inner[last]
    return evaluation


def first() -> dict[str, Any]:
    """The evaluation of the first model: there is no champion yet."""
    evaluation = changed(("champion", None), ("same_predictions", None))
    evaluation["metrics"] |= {"champion": None, "difference": None}
    del evaluation["learnt_through"]["champion"]
    return evaluation


def leaves(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The places of all values that are not mappings."""
    if not isinstance(values, dict):
        return [path]
    return [place for name, inner in values.items() for place in leaves(inner, (*path, name))]
