"""Error cohorts: a planted cohort is found, chance is not, and error rates have an interval."""

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


def cohorts(table: pa.Table, share: np.ndarray) -> list[dict[str, object]]:
    wrong = np.random.default_rng(1).random(ROWS) < share
    return error_cohorts(table, FEATURES, wrong, np.arange(ROWS), seed=3)


def test_planted_cohort_is_found_with_its_error_rate() -> None:
    table = rows()
    planted = (table["orders"].to_numpy() <= 4) & (np.asarray(table["country"].to_pylist()) == "FR")
    (first, *_) = cohorts(table, np.where(planted, 0.6, 0.1))
    assert "orders ≤ 4.5" in str(first["where"])
    assert "country is not DE" in str(first["where"])  # of two
    assert first["low"] <= 0.6 <= first["high"]  # type: ignore[operator]
    assert first["lift"] > 2  # type: ignore[operator]


def test_evenly_spread_errors_make_no_cohort() -> None:
    counts = [len(cohorts(rows(seed), np.full(ROWS, 0.3))) for seed in range(5)]
    assert sum(counts) <= 2, "eight leaves, counted on other rows: each is reported by chance once in forty"


def test_a_cohort_of_unknown_values_is_described() -> None:
    table = rows()
    unknown = np.isnan(table["age"].to_numpy())
    (first, *_) = cohorts(table, np.where(unknown, 0.7, 0.1))
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
