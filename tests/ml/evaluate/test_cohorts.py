"""Cohorts of errors: what was planted is found, luck is not, and shares come with their interval."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ml.evaluate.cohorts import error_cohorts, wilson
from ml.models.frames import Feature

FEATURES = (Feature("orders", "number"), Feature("age", "number"), Feature("country", "category"))
ROWS = 4000


def rows(seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    age = rng.random(ROWS) * 80
    return pa.table(
        {
            "orders": rng.integers(1, 20, ROWS),
            "age": pa.array(np.where(rng.random(ROWS) < 0.1, np.nan, age), from_pandas=True),
            "country": rng.choice(["DE", "FR"], ROWS),
        }
    )


def found(table: pa.Table, share: np.ndarray) -> list[dict[str, object]]:
    wrong = np.random.default_rng(1).random(ROWS) < share
    return error_cohorts(table, FEATURES, wrong, np.arange(ROWS), seed=3)


def test_planted_cohort_is_found_with_its_error_rate() -> None:
    table = rows()
    planted = (table["orders"].to_numpy() <= 4) & (np.asarray(table["country"].to_pylist()) == "FR")
    (first, *_) = found(table, np.where(planted, 0.6, 0.1))
    assert "orders ≤ 4.5" in str(first["where"])
    assert "country is not DE" in str(first["where"])  # of two
    assert first["low"] <= 0.6 <= first["high"]  # type: ignore[operator]
    assert first["lift"] > 2  # type: ignore[operator]


def test_errors_without_a_place_make_no_cohort_beyond_luck() -> None:
    told = [len(found(rows(seed), np.full(ROWS, 0.3))) for seed in range(5)]
    assert sum(told) <= 2, "a tree of eight leaves, counted anew: one in forty each"


def test_customers_whose_value_is_not_known_are_told() -> None:
    table = rows()
    unknown = np.isnan(table["age"].to_numpy())
    (first, *_) = found(table, np.where(unknown, 0.7, 0.1))
    assert "age may be unknown" in str(first["where"])


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_rows_give_none(count: int) -> None:
    table = rows().slice(0, count)
    assert error_cohorts(table, FEATURES, np.ones(count, dtype=bool), np.arange(count), seed=0) == []


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 200, 0.0, 0.0188), (10, 200, 0.0274, 0.0896), (200, 200, 0.9812, 1.0), (0, 0, 0.0, 1.0)],
)
def test_interval_of_a_share(hits: int, of: int, low: float, high: float) -> None:
    assert wilson(hits, of) == pytest.approx((low, high), abs=1e-4)
