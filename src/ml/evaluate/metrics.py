"""Metrics of a binary classifier on weighted rows, many weightings at once: that is what a bootstrap needs.

All functions take labels `y` (0 or 1) and probabilities `p` of shape (rows,), and weights `w` of shape
(resamples, rows), and give one number per resample. The definitions are scikit-learn's (a test
compares them); a metric that is not defined, such as the AUC of one class, is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision", "log_loss", "ece")
CHUNK = 4_000_000  # weights held at once: 32 MB, whatever the number of rows


def calibration_bins(p: Floats, bins: int) -> NDArray[np.intp]:
    """The bin of each probability; bins hold about equal numbers of rows, ties stay together. Shape (rows,)."""
    inner = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1])) if len(p) else np.empty(0)
    return np.searchsorted(inner, p, side="left")


def _ratio(over: Floats, under: Floats) -> Floats:
    """over / under, NaN where there is nothing to divide by."""
    return np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0)


def _by_rank(y: Floats, p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives at each distinct score, scores falling. Shapes (resamples, scores)."""
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights = w[:, order]
    positive = np.add.reduceat(weights * y[order], starts, axis=1)
    return positive, np.add.reduceat(weights, starts, axis=1) - positive


def measure(y: Floats, p: Floats, w: Floats, *, threshold: float, bins: int) -> dict[str, Floats]:
    """Every metric of METRICS, each of shape (resamples,). All NaN when `p` holds a NaN or there are no rows.

    `threshold` is the cut of the yes-or-no metrics, `bins` how many the calibration error (ece) has.
    """
    if len(y) == 0 or not np.isfinite(p).all():
        return {name: np.full(len(w), np.nan) for name in METRICS}
    total, actual = w.sum(axis=1), w @ y
    said = (p >= threshold).astype(float)
    hits, claimed = w @ (said * y), w @ said

    positive, negative = _by_rank(y, p, w)
    true, false = positive.cumsum(axis=1), negative.cumsum(axis=1)
    # a positive beats the negatives ranked below it, and half of those that share its score
    beaten = false[:, -1:] - false + negative / 2
    auc = _ratio((positive * beaten).sum(axis=1), true[:, -1] * false[:, -1])
    held = true + false
    precision_there = np.divide(true, held, out=np.zeros_like(true), where=held > 0)
    both_classes = (true[:, -1] > 0) & (false[:, -1] > 0)
    average = np.where(both_classes, _ratio((positive * precision_there).sum(axis=1), true[:, -1]), np.nan)

    which = calibration_bins(p, bins)
    gaps = np.zeros((len(p), which.max() + 1))
    gaps[np.arange(len(p)), which] = y - p
    eps = np.finfo(float).eps  # where scikit-learn clips too
    sure = np.clip(p, eps, 1 - eps)
    loss = -(y * np.log(sure) + (1 - y) * np.log1p(-sure))
    return {
        "accuracy": _ratio(w @ (said == y).astype(float), total),
        "precision": _ratio(hits, claimed),
        "recall": _ratio(hits, actual),
        "f1": np.where(actual > 0, _ratio(2 * hits, claimed + actual), np.nan),
        "roc_auc": auc,
        "average_precision": average,
        "log_loss": _ratio(w @ loss, total),
        "ece": _ratio(np.abs(w @ gaps).sum(axis=1), total),
    }


def calibration_line(y: Floats, p: Floats, w: Floats) -> dict[str, Floats]:
    """Slope and intercept of the true log-odds over the predicted ones, each of shape (resamples,).

    1 and 0 when probabilities mean what they say; a slope below 1: too extreme, above 1: too timid; an intercept
    below 0: too high. Fitted by Newton's method (logistic recalibration, Cox 1958). NaN where there is no such line:
    one class only, one probability only, or perfect separation.
    """
    unknown = np.full(len(w), np.nan)
    if len(y) == 0 or not np.isfinite(p).all():
        return {"slope": unknown, "intercept": unknown}
    sure = np.clip(p, 1e-6, 1 - 1e-6)
    x = np.log(sure / (1 - sure))
    with np.errstate(all="ignore"):  # what cannot be fitted becomes NaN, and is taken out below
        once = _line(y, x, np.ones((1, len(y))), np.zeros(1), np.ones(1))
        slope, intercept, last = _line(y, x, w, np.full(len(w), once[1][0]), np.full(len(w), once[0][0]))
        fitted = np.isfinite(slope) & np.isfinite(intercept) & (np.abs(slope) < 50) & (last < 1e-4)
    return {"slope": np.where(fitted, slope, np.nan), "intercept": np.where(fitted, intercept, np.nan)}


def _line(y: Floats, x: Floats, w: Floats, intercept: Floats, slope: Floats) -> tuple[Floats, Floats, Floats]:
    """Newton's steps from a start: slope, intercept, and how far the last step went."""
    last = np.full(len(w), np.inf)
    squares = x * x
    for _ in range(15):
        said = 1 / (1 + np.exp(-(intercept[:, None] + slope[:, None] * x)))
        gap, weight = w * (y - said), w * said * (1 - said)
        d0, d1 = gap.sum(axis=1), gap @ x
        h00, h01, h11 = weight.sum(axis=1), weight @ x, weight @ squares
        by = h00 * h11 - h01 * h01
        up, across = (h11 * d0 - h01 * d1) / by, (h00 * d1 - h01 * d0) / by
        intercept, slope, last = intercept + up, slope + across, np.maximum(np.abs(up), np.abs(across))
        if not (last > 1e-6).any():
            break
    return slope, intercept, last


def resamples(groups: NDArray[np.intp], count: int, seed: int) -> Iterator[Floats]:
    """Bootstrap weights, in chunks of shape (some, rows): whole groups are drawn with replacement.

    A group is one customer: two rows of one customer are no two independent facts.
    """
    rng = np.random.default_rng(seed)
    members = int(groups.max()) + 1
    size = max(1, CHUNK // max(members, len(groups)))
    for start in range(0, count, size):
        some = min(size, count - start)
        drawn = rng.integers(0, members, (some, members)) + members * np.arange(some)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=some * members).reshape(some, members)
        yield weights[:, groups].astype(float)


def interval(value: float, drawn: Floats, *, biased_up: bool = False) -> tuple[float, float]:
    """The 95 % bootstrap interval of a metric.

    Percentiles, but for a metric that resampling noise pushes up, as it does every mean of absolute
    gaps (ECE): there the distances are mirrored at the value (basic bootstrap), and end at zero.
    """
    if not np.isfinite(value) or not np.isfinite(drawn).any():
        return (float("nan"), float("nan"))
    low, high = (float(q) for q in np.nanquantile(drawn, [0.025, 0.975]))
    return (max(0.0, 2 * value - high), max(0.0, 2 * value - low)) if biased_up else (low, high)
