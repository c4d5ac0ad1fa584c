"""The metrics equal scikit-learn's for any weights, and the intervals have the expected coverage."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn

from ml.evaluate.metrics import METRICS, calibration_bins, interval, measure, resamples

CUT, BINS = 0.5, 10


def rows(count: int, seed: int = 0, *, ties: bool = False) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    truth = rng.random(count)
    y = (rng.random(count) < truth).astype(float)
    p = np.clip(truth + rng.normal(0, 0.2, count), 0.001, 0.999)
    return y, np.round(p, 1) if ties else p


def measured(y: Any, p: Any, w: Any = None) -> dict[str, float]:
    weights = np.ones((1, len(y))) if w is None else w
    return {name: values[0] for name, values in measure(y, p, weights, threshold=CUT, bins=BINS).items()}


@pytest.mark.parametrize("ties", [pytest.param(False, id="distinct-scores"), pytest.param(True, id="many-ties")])
@pytest.mark.parametrize("weighted", [pytest.param(False, id="plain"), pytest.param(True, id="some-weights-zero")])
def test_metrics_are_scikit_learns(ties: bool, weighted: bool) -> None:
    y, p = rows(500, ties=ties)
    w = np.random.default_rng(1).integers(0, 3, 500).astype(float) if weighted else np.ones(500)
    predicted = (p >= CUT).astype(float)
    expected = {
        "accuracy": sklearn.accuracy_score(y, predicted, sample_weight=w),
        "precision": sklearn.precision_score(y, predicted, sample_weight=w),
        "recall": sklearn.recall_score(y, predicted, sample_weight=w),
        "f1": sklearn.f1_score(y, predicted, sample_weight=w),
        "roc_auc": sklearn.roc_auc_score(y, p, sample_weight=w),
        "average_precision": sklearn.average_precision_score(y, p, sample_weight=w),
        "log_loss": sklearn.log_loss(y, p, sample_weight=w),
    }
    metrics = measured(y, p, w[None, :])
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_log_loss_of_certain_and_wrong_predictions_is_finite() -> None:
    y, p = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert measured(y, p)["log_loss"] == pytest.approx(sklearn.log_loss(y, p))


def test_calibration_error_is_the_mean_gap_over_equally_filled_bins() -> None:
    p = np.repeat([0.1, 0.9], 50)
    y = np.r_[np.repeat([1.0, 0.0], [15, 35]), np.repeat([1.0, 0.0], [40, 10])]  # 30 % and 80 % instead of 10 and 90
    assert measured(y, p)["ece"] == pytest.approx((0.2 + 0.1) / 2)


def test_equal_scores_share_a_calibration_bin() -> None:
    assert len(set(calibration_bins(np.repeat([0.2, 0.7], [97, 3]), 10))) <= 2


@pytest.mark.parametrize(
    ("y", "p", "unmeasured"),
    [
        pytest.param([1, 1], [0.2, 0.9], {"roc_auc", "average_precision"}, id="only-positives"),
        pytest.param([0, 0], [0.2, 0.9], {"roc_auc", "average_precision", "recall", "f1"}, id="only-negatives"),
        pytest.param([0, 1], [0.2, 0.3], {"precision"}, id="nobody-predicted-positive"),
        pytest.param([0, 1], [0.2, np.nan], set(METRICS), id="one-nan-makes-all-nan"),
        pytest.param([], [], set(METRICS), id="no-rows"),
    ],
)
def test_what_is_not_defined_is_nan(y: list[float], p: list[float], unmeasured: set[str]) -> None:
    metrics = measured(np.array(y, float), np.array(p, float))
    assert {name for name, value in metrics.items() if np.isnan(value)} == unmeasured


def test_resamples_draw_whole_customers() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2])
    for weights in resamples(groups, 50, seed=3):
        assert (weights[:, 0] == weights[:, 1]).all()
        assert (weights[:, 3] == weights[:, 5]).all()
        assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all(), "as many customers as there are"


def test_the_same_seed_gives_the_same_resamples() -> None:
    first, again = (np.concatenate(list(resamples(np.arange(40), 20, seed=5))) for _ in range(2))
    assert (first == again).all()


def test_auc_interval_covers_the_truth_in_about_95_of_100_samples() -> None:
    y, p = rows(100_000, seed=9)
    truth = measured(y, p)["roc_auc"]
    rng, covered = np.random.default_rng(2), 0
    for _ in range(100):
        sample = rng.integers(0, len(y), 300)
        drawn = np.concatenate(
            [
                measure(y[sample], p[sample], w, threshold=CUT, bins=BINS)["roc_auc"]
                for w in resamples(np.arange(300), 200, 1)
            ]
        )
        low, high = interval(measured(y[sample], p[sample])["roc_auc"], drawn)
        covered += low <= truth <= high
    assert 88 <= covered <= 100


def test_interval_of_calibration_error_is_not_pushed_up_by_the_resampling() -> None:
    y, p = rows(400, seed=4)
    value = measured(y, p)["ece"]
    drawn = np.concatenate(
        [measure(y, p, w, threshold=CUT, bins=BINS)["ece"] for w in resamples(np.arange(400), 300, 1)]
    )
    low, high = interval(value, drawn, biased_up=True)
    assert 0 <= low <= value <= high


def test_300_resamples_of_10000_rows_take_seconds() -> None:
    y, p = rows(10_000)
    started = time.process_time()
    for weights in resamples(np.arange(10_000), 300, seed=1):
        measure(y, p, weights, threshold=CUT, bins=BINS)
    assert time.process_time() - started < 5
