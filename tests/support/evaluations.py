"""An evaluation that every rule of a gate approves, for tests to break in one place."""

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
    found = copy.deepcopy(GOOD)
    for place, new in places:
        put(found, tuple(place.split(".")), new)
    return found


def put(found: dict[str, Any], place: tuple[str, ...], new: Any) -> None:
    *way, last = place
    for name in way:
        found = found[name]
    found[last] = new


def without(*places: str) -> dict[str, Any]:
    """GOOD without what stands at these places."""
    found = copy.deepcopy(GOOD)
    for place in places:
        *way, last = place.split(".")
        inner = found
        for name in way:
            inner = inner[name]
        del inner[last]
    return found


def first() -> dict[str, Any]:
    """The evaluation of a model that has no champion before it."""
    found = changed(("champion", None), ("same_predictions", None))
    found["metrics"] |= {"champion": None, "difference": None}
    del found["learnt_through"]["champion"]
    return found


def leaves(of: Any, way: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The places of all that is not a mapping."""
    if not isinstance(of, dict):
        return [way]
    return [place for name, inner in of.items() for place in leaves(inner, (*way, name))]
