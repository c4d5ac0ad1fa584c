"""Metrics by group: who is compared with whom, what is too few to say anything, and what is not defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml.config import load_model
from ml.evaluate.fairness import by_groups

SETTINGS = load_model("churn").evaluate


def measured(countries: list[str | None], y: Any, p: Any) -> dict[str, Any]:
    found: dict[str, Any] = by_groups(pa.table({"country": pa.array(countries, pa.string())}), y, p, SETTINGS)[
        "country"
    ]
    return found


def test_groups_apart_by_what_was_planted() -> None:
    y = np.tile([0.0, 1.0], 200)
    p = np.where(np.arange(400) < 200, y, 1 - y)  # always right in DE, always wrong in FR
    found = measured(["DE"] * 200 + ["FR"] * 200, y, p)
    assert [(group["group"], group["rows"], group["accuracy"]) for group in found["groups"]] == [
        ("DE", 200, 1.0), ("FR", 200, 0.0),
    ]  # fmt: skip
    assert found["disparity"]["accuracy"] == {"difference": 1.0, "ratio": 0.0}
    assert found["disparity"]["selection_rate"] == {"difference": 0.0, "ratio": 1.0}


def test_small_groups_are_put_together_and_the_unknown_are_a_group() -> None:
    countries = ["DE"] * 150 + [None] * 150 + ["IE"] * 60 + ["NL"] * 60
    found = measured(countries, np.tile([0.0, 1.0], 210), np.full(420, 0.7))
    assert sorted(found["compared"]) == ["(others)", "(unknown)", "DE"]
    assert found["left_out"] == 0


def test_too_few_others_are_told_and_left_out() -> None:
    found = measured(["DE"] * 150 + ["IE"] * 20, np.tile([0.0, 1.0], 85), np.full(170, 0.7))
    assert (found["compared"], found["left_out"]) == (["DE"], 20)
    assert found["disparity"]["accuracy"]["difference"] is None


@pytest.mark.parametrize(
    ("rows", "p", "why"),
    [
        pytest.param({"x": [1, 2]}, [0.1, 0.2], "have no column country", id="no-such-column"),
        pytest.param({"country": ["DE", "FR"]}, [0.1, float("nan")], "nothing to measure", id="broken-predictions"),
        pytest.param({"country": ["DE", "FR"]}, [0.1, 0.2], "no group of country has 100 rows", id="too-few-rows"),
    ],
)
def test_what_cannot_be_measured_says_why(rows: dict[str, Any], p: list[float], why: str) -> None:
    found = by_groups(pa.table(rows), np.array([0.0, 1.0]), np.array(p), SETTINGS)["country"]
    assert why in found["problem"]
    assert found["compared"] == []


def test_a_metric_that_a_group_does_not_have_is_not_compared() -> None:
    y = np.r_[np.tile([0.0, 1.0], 100), np.zeros(200)]  # nobody left in FR: recall is not defined there
    found = measured(["DE"] * 200 + ["FR"] * 200, y, np.tile([0.2, 0.8], 200))
    assert found["disparity"]["recall"] == {"difference": None, "ratio": None}
    assert found["disparity"]["accuracy"]["difference"] == 0.5
