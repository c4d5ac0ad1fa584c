"""Behavioural tests: rows are changed as configured, and changes in the wrong direction are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml.config import ConfigError, load_model
from ml.config.gate import Behaviour
from ml.evaluate.behaviour import measure_behaviours

ROWS = pa.table({"recency_days": [0, 10, 50, None], "orders": [1, 2, 3, 4], "amount": [10.0, 20.0, 30.0, 40.0],
                 "mean_order_amount": [10.0, 10.0, 10.0, 10.0]})  # fmt: skip
BUYS = Behaviour(name="buys", replace={"recency_days": 0}, add={"orders": 1, "amount": "mean_order_amount"},
                 expect="not_higher", tolerance=0.0)  # fmt: skip


def run(predict: Any, *checks: Behaviour, features: tuple[str, ...] = ("recency_days", "orders", "amount")) -> Any:
    settings = load_model("churn").evaluate.model_copy(update={"behaviour": checks or (BUYS,)})
    return measure_behaviours(ROWS, predict, predict(ROWS), set(features), settings)["buys"]


def column(rows: pa.Table, name: str) -> Any:
    return rows[name].cast(pa.float64()).to_numpy()


def test_a_model_with_the_wrong_sign_violates_every_row() -> None:
    wrong = run(lambda rows: column(rows, "orders") / 10)
    assert (wrong["violations"], wrong["mean_change"], wrong["worst"]) == (1.0, 0.1, 0.1)
    right = run(lambda rows: 1 - column(rows, "orders") / 10)
    assert (right["violations"], right["worst"]) == (0.0, -0.1)


def test_columns_are_changed_together_and_amounts_come_from_their_column() -> None:
    predicted: list[pa.Table] = []

    def predict(rows: pa.Table) -> Any:
        predicted.append(rows)
        return np.full(rows.num_rows, 0.5)

    run(predict)
    assert predicted[-1].select(["recency_days", "orders", "amount"]).to_pydict() == {
        "recency_days": [0, 0, 0, 0], "orders": [2, 3, 4, 5], "amount": [20, 30, 40, 50],
    }  # fmt: skip


def test_changes_up_to_the_tolerance_are_no_violation() -> None:
    slight = BUYS.model_copy(update={"tolerance": 0.1})
    assert run(lambda rows: column(rows, "orders") / 10, slight)["violations"] == 0.0


def test_not_lower_tests_the_other_direction() -> None:
    later = Behaviour(name="buys", add={"orders": 1}, expect="not_lower", tolerance=0.0)
    assert run(lambda rows: -column(rows, "orders"), later)["violations"] == 1.0


@pytest.mark.parametrize(
    ("features", "predict", "why"),
    [
        pytest.param(
            ("country",), lambda rows: np.full(rows.num_rows, 0.5), "uses none of the columns", id="no-column"
        ),
        pytest.param(
            ("orders",),
            lambda rows: np.full(rows.num_rows, np.nan),
            "there are no test rows with finite predictions",
            id="no-predictions",
        ),
    ],
)
def test_what_cannot_be_measured_says_why(features: tuple[str, ...], predict: Any, why: str) -> None:
    result = run(predict, features=features)
    assert result["violations"] is None
    assert why in result["problem"]


def test_a_check_that_changes_nothing_or_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="replace or add must change a column"):
        Behaviour(name="buys", expect="not_lower", tolerance=0.0)
    with pytest.raises(ValueError, match="orders is both replaced and added to"):
        Behaviour(name="buys", replace={"orders": 1}, add={"orders": 1}, expect="not_lower", tolerance=0.0)
    assert issubclass(ConfigError, ValueError)
