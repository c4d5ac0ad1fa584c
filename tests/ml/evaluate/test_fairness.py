"""Fairness by group: which groups are compared, which are too small, and which metrics are not defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml.config import load_model
from ml.evaluate.fairness import measure_groups

SETTINGS = load_model("churn").evaluate


def measured(countries: list[str | None], y: Any, p: Any) -> dict[str, Any]:
    groups: dict[str, Any] = measure_groups(pa.table({"country": pa.array(countries, pa.string())}), y, p, SETTINGS)[
        "country"
    ]
    return groups


def test_a_planted_disparity_is_measured() -> None:
    y = np.tile([0.0, 1.0], 200)
    p = np.where(np.arange(400) < 200, y, 1 - y)  # always right in DE, always wrong in FR
    result = measured(["DE"] * 200 + ["FR"] * 200, y, p)
    assert [(group["group"], group["rows"], group["accuracy"]) for group in result["groups"]] == [
        ("DE", 200, 1.0), ("FR", 200, 0.0),
    ]  # fmt: skip
    assert result["disparity"]["accuracy"] == {"difference": 1.0, "ratio": 0.0}
    assert result["disparity"]["selection_rate"] == {"difference": 0.0, "ratio": 1.0}


def test_small_groups_are_merged_and_unknown_values_are_a_group() -> None:
    countries = ["DE"] * 150 + [None] * 150 + ["IE"] * 60 + ["NL"] * 60
    result = measured(countries, np.tile([0.0, 1.0], 210), np.full(420, 0.7))
    assert sorted(result["compared"]) == ["(others)", "(unknown)", "DE"]
    assert result["left_out"] == 0


def test_others_that_are_too_few_are_counted_as_left_out() -> None:
    result = measured(["DE"] * 150 + ["IE"] * 20, np.tile([0.0, 1.0], 85), np.full(170, 0.7))
    assert (result["compared"], result["left_out"]) == (["DE"], 20)
    assert result["disparity"]["accuracy"]["difference"] is None


@pytest.mark.parametrize(
    ("rows", "p", "why"),
    [
        pytest.param({"x": [1, 2]}, [0.1, 0.2], "have no column country", id="no-such-column"),
        pytest.param(
            {"country": ["DE", "FR"]},
            [0.1, float("nan")],
            "no test rows with finite predictions",
            id="broken-predictions",
        ),
        pytest.param({"country": ["DE", "FR"]}, [0.1, 0.2], "no group of country has 100 rows", id="too-few-rows"),
    ],
)
def test_what_cannot_be_measured_says_why(rows: dict[str, Any], p: list[float], why: str) -> None:
    result = measure_groups(pa.table(rows), np.array([0.0, 1.0]), np.array(p), SETTINGS)["country"]
    assert why in result["problem"]
    assert result["compared"] == []


def test_a_metric_undefined_in_a_group_is_not_compared() -> None:
    y = np.r_[np.tile([0.0, 1.0], 100), np.zeros(200)]  # no churn in FR: recall is not defined there
    result = measured(["DE"] * 200 + ["FR"] * 200, y, np.tile([0.2, 0.8], 200))
    assert result["disparity"]["recall"] == {"difference": None, "ratio": None}
    assert result["disparity"]["accuracy"]["difference"] == 0.5
