"""The gate against luck, a few rounds of `bench/gate.py`; the many are told in docs/gate.md."""

from __future__ import annotations

import pytest

from bench.gate import CASES, rounds
from ml.config import load_model

CHURN = load_model("churn")


@pytest.mark.parametrize(
    ("case", "count", "keep", "promote"),
    [
        pytest.param("worse", 6, (0, 0), (0, 0), id="worse-is-rejected"),
        pytest.param("equal", 8, (0, 2), (5, 8), id="equal-is-rejected-or-taken-as-configured"),
        pytest.param("better", 6, (6, 6), (6, 6), id="better-is-promoted"),
    ],
)
def test_challengers_of_known_worth(case: str, count: int, keep: tuple[int, int], promote: tuple[int, int]) -> None:
    told = rounds(case, 1600, count, CHURN)
    assert keep[0] <= told.promoted["keep"] <= keep[1], told
    assert promote[0] <= told.promoted["promote"] <= promote[1], told


def test_too_few_rows_promote_nobody() -> None:
    assert rounds("better", 300, 2, CHURN).promoted == {"keep": 0, "promote": 0}


@pytest.mark.faults
@pytest.mark.parametrize("case", list(CASES))
def test_two_hundred_challengers_of_known_worth(case: str) -> None:
    told = rounds(case, 1600, 200, CHURN)
    if CASES[case] < 0:
        assert max(told.promoted.values()) <= 4, told
    elif CASES[case] > 0:
        assert min(told.promoted.values()) >= 196, told
    else:
        assert told.promoted["keep"] <= 14, told
        assert told.promoted["promote"] >= 160, told
