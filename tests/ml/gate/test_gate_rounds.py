"""How often the gate is wrong by chance: a few rounds of `bench/gate.py`; docs/gate.md reports 200 rounds."""

from __future__ import annotations

import pytest

from bench.gate import CASES, run_rounds
from ml.config import load_model

CHURN = load_model("churn")


@pytest.mark.parametrize(
    ("case", "count", "keep", "promote"),
    [
        pytest.param("worse", 6, (0, 0), (0, 0), id="worse-is-rejected"),
        pytest.param("equal", 8, (0, 2), (5, 8), id="equal-is-rejected-or-promoted-as-configured"),
        pytest.param("better", 6, (6, 6), (6, 6), id="better-is-promoted"),
    ],
)
def test_challengers_of_known_auc(case: str, count: int, keep: tuple[int, int], promote: tuple[int, int]) -> None:
    result = run_rounds(case, 1600, count, CHURN)
    assert keep[0] <= result.promoted["keep"] <= keep[1], result
    assert promote[0] <= result.promoted["promote"] <= promote[1], result


def test_too_few_rows_promote_nobody() -> None:
    assert run_rounds("better", 300, 2, CHURN).promoted == {"keep": 0, "promote": 0}


@pytest.mark.faults
@pytest.mark.parametrize("case", list(CASES))
def test_two_hundred_challengers_of_known_auc(case: str) -> None:
    result = run_rounds(case, 1600, 200, CHURN)
    if CASES[case] < 0:
        assert max(result.promoted.values()) <= 4, result
    elif CASES[case] > 0:
        assert min(result.promoted.values()) >= 196, result
    else:
        assert result.promoted["keep"] <= 14, result
        assert result.promoted["promote"] >= 160, result
