"""Metrics of a binary classifier on weighted rows, for many weightings at once, as a bootstrap needs them.

All functions take labels `y` (0 or 1) and probabilities `p` of shape (rows,), and weights `w` of shape
(resamples, rows), and return one number per resample. The definitions are scikit-learn's (a test
compares them); a metric that is not defined, such as the AUC of one class, is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "log_loss", "ece")
CHUNK = 4_000_000  # weights in memory at once (32 MB), for any number of rows


def calibration_bins(p: Floats, bins: int) -> NDArray[np.intp]:
    """The bin of each probability; bins have about equally many rows, ties share a bin. Shape (rows,)."""
    inner = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1])) if len(p) else np.empty(0)
    return np.searchsorted(inner, p, side="left")


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, NaN where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _by_rank(y: Floats, p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives at each distinct score, highest first. Shapes (resamples, scores)."""
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights = w[:, order]
    positive = np.add.reduceat(weights * y[order], starts, axis=1)
    return positive, np.add.reduceat(weights, starts, axis=1) - positive


def measure(y: Floats, p: Floats, w: Floats, *, threshold: float, bins: int) -> dict[str, Floats]:
    """Every metric of METRICS, each of shape (resamples,). All NaN when `p` has a NaN or there are no rows.

    Rows with a probability of at least `threshold` are predicted positive; `bins` is the number of bins of the
    calibration error (ece).
    """
    if len(y) == 0 or not np.isfinite(p).all():
        return {name: np.full(len(w), np.nan) for name in METRICS}
    total, actual = w.sum(axis=1), w @ y
    predicted = (p >= threshold).astype(float)
    hits, predicted_total = w @ (predicted * y), w @ predicted

    positive, negative = _by_rank(y, p, w)
    true, false = positive.cumsum(axis=1), negative.cumsum(axis=1)
    # a positive outranks the negatives with lower scores, and half of those with the same score
    outranked = false[:, -1:] - false + negative / 2
    auc = _ratio((positive * outranked).sum(axis=1), true[:, -1] * false[:, -1])
    ranked = true + false
    precision_at = np.divide(true, ranked, out=np.zeros_like(true), where=ranked > 0)
    both_classes = (true[:, -1] > 0) & (false[:, -1] > 0)
    average = np.where(both_classes, _ratio((positive * precision_at).sum(axis=1), true[:, -1]), np.nan)

    codes = calibration_bins(p, bins)
    gaps = np.zeros((len(p), codes.max() + 1))
    gaps[np.arange(len(p)), codes] = y - p
    eps = np.finfo(float).eps  # scikit-learn clips here too
    clipped = np.clip(p, eps, 1 - eps)
    loss = -(y * np.log(clipped) + (1 - y) * np.log1p(-clipped))
    return {
        "accuracy": _ratio(w @ (predicted == y).astype(float), total),
        "precision": _ratio(hits, predicted_total),
        "recall": _ratio(hits, actual),
        "f1": np.where(actual > 0, _ratio(2 * hits, predicted_total + actual), np.nan),
        "roc_auc": auc,
        "average_precision": average,
        "log_loss": _ratio(w @ loss, total),
        "ece": _ratio(np.abs(w @ gaps).sum(axis=1), total),
    }


def calibration_line(y: Floats, p: Floats, w: Floats) -> dict[str, Floats]:
    """Slope and intercept of the true log-odds over the predicted ones, each of shape (resamples,).

    Slope 1 and intercept 0: calibrated. Slope below 1: probabilities too extreme, above 1: too moderate. Intercept
    below 0: too high. Fitted by Newton's method (logistic recalibration, Cox 1958). NaN where the line is undefined:
    one class only, one probability only, or perfect separation.
    """
    unknown = np.full(len(w), np.nan)
    if len(y) == 0 or not np.isfinite(p).all():
        return {"slope": unknown, "intercept": unknown}
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    x = np.log(clipped / (1 - clipped))
    with np.errstate(all="ignore"):  # a line that cannot be fitted becomes NaN, and is removed below
        start = _fit_line(y, x, np.ones((1, len(y))), np.zeros(1), np.ones(1))
        slope, intercept, last = _fit_line(y, x, w, np.full(len(w), start[1][0]), np.full(len(w), start[0][0]))
        fitted = np.isfinite(slope) & np.isfinite(intercept) & (np.abs(slope) < 50) & (last < 1e-4)
    return {"slope": np.where(fitted, slope, np.nan), "intercept": np.where(fitted, intercept, np.nan)}


def _fit_line(y: Floats, x: Floats, w: Floats, intercept: Floats, slope: Floats) -> tuple[Floats, Floats, Floats]:
    """Newton's method from a start: slope, intercept, and the size of the last step. Each of shape (resamples,)."""
    last = np.full(len(w), np.inf)
    squares = x * x
    for _ in range(15):
        fitted = 1 / (1 + np.exp(-(intercept[:, None] + slope[:, None] * x)))
        gap, weight = w * (y - fitted), w * fitted * (1 - fitted)
        d0, d1 = gap.sum(axis=1), gap @ x
        h00, h01, h11 = weight.sum(axis=1), weight @ x, weight @ squares
        determinant = h00 * h11 - h01 * h01
        step0, step1 = (h11 * d0 - h01 * d1) / determinant, (h00 * d1 - h01 * d0) / determinant
        intercept, slope, last = intercept + step0, slope + step1, np.maximum(np.abs(step0), np.abs(step1))
        if not (last > 1e-6).any():
            break
    return slope, intercept, last


def resamples(groups: NDArray[np.intp], count: int, seed: int) -> Iterator[Floats]:
    """Bootstrap weights, in chunks of shape (resamples, rows): whole groups are drawn with replacement.

    A group is one entity: two rows of one entity are not independent.
    """
    rng = np.random.default_rng(seed)
    members = int(groups.max()) + 1
    size = max(1, CHUNK // max(members, len(groups)))
    for start in range(0, count, size):
        chunk = min(size, count - start)
        drawn = rng.integers(0, members, (chunk, members)) + members * np.arange(chunk)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=chunk * members).reshape(chunk, members)
        yield weights[:, groups].astype(float)


def interval(value: float, drawn: Floats, *, biased_up: bool = False) -> tuple[float, float]:
    """The 95 % bootstrap interval of a metric.

    Percentiles, except for a metric that resampling noise biases upwards, as it does every mean of absolute gaps
    (ECE): there the distances are mirrored at the value (basic bootstrap) and limited to zero.
    """
    if not np.isfinite(value) or not np.isfinite(drawn).any():
        return (float("nan"), float("nan"))
    low, high = (float(q) for q in np.nanquantile(drawn, [0.025, 0.975]))
    return (max(0.0, 2 * value - high), max(0.0, 2 * value - low)) if biased_up else (low, high)
