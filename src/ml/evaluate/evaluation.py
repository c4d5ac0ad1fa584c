"""The evaluation of a challenger and its champion, pure: labels and probabilities in, `evaluation.json` out.

A value that was not measured (NaN) is null there, and has a sentence in `problems` that says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml.config.gate import Evaluate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


CURVE_POINTS = 200  # more than a screen can show
SAME = 1e-9  # probabilities that differ by less are the same: model formats round
LINE = ("slope", "intercept")  # of calibration


def _number(value: float) -> float | None:
    """Rounded far below what is measurable; None for NaN, which JSON cannot express."""
    return round(float(value), 9) if math.isfinite(value) else None


def _metrics(point: Mapping[str, Any], drawn: Mapping[str, Any], *, paired: bool = False) -> dict[str, dict[str, Any]]:
    from ml.evaluate.metrics import METRICS, interval

    metrics = {}
    for name in METRICS:
        value = float(point[name][0])
        low, high = interval(value, drawn[name], biased_up=name == "ece" and not paired)
        metrics[name] = {"value": _number(value), "low": _number(low), "high": _number(high)}
    return metrics


def _curves(y: NDArray[Any], p: NDArray[Any], bins: int) -> dict[str, Any]:
    """Points of the ROC, the precision-recall and the calibration plot; empty lists where undefined."""
    import numpy as np

    from ml.evaluate.metrics import calibration_bins

    empty: dict[str, Any] = {"roc": [], "precision_recall": [], "calibration": []}
    if len(y) == 0 or not np.isfinite(p).all():
        return empty
    codes = calibration_bins(p, bins)
    count = np.bincount(codes)
    calibration = [
        {"predicted": _number(predicted / n), "observed": _number(observed / n), "rows": int(n)}
        for predicted, observed, n in zip(np.bincount(codes, p), np.bincount(codes, y), count, strict=True)
        if n
    ]
    positives, negatives = y.sum(), len(y) - y.sum()
    if not positives or not negatives:
        return empty | {"calibration": calibration}
    order = np.argsort(-p, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(p[order]) != 0, True])  # the last row of each distinct score
    true = np.cumsum(y[order])[last]
    false = last + 1 - true
    drawn = np.unique(np.linspace(0, len(last) - 1, CURVE_POINTS).round().astype(int))
    points = list(zip(false[drawn], true[drawn], strict=True))
    roc = [[0.0, 0.0], *([_number(f / negatives), _number(t / positives)] for f, t in points)]
    recall = [[_number(t / positives), _number(t / (t + f))] for f, t in points if t]
    return {"roc": roc, "precision_recall": recall, "calibration": calibration}


def _confusion(y: NDArray[Any], p: NDArray[Any], threshold: float) -> dict[str, Any] | None:
    import numpy as np

    if not np.isfinite(p).all():
        return None
    predicted = p >= threshold
    return {
        "threshold": threshold,
        "true_positive": int((predicted & (y == 1)).sum()),
        "false_positive": int((predicted & (y == 0)).sum()),
        "false_negative": int((~predicted & (y == 1)).sum()),
        "true_negative": int((~predicted & (y == 0)).sum()),
    }


def _same_predictions(p: NDArray[np.float64], champion: NDArray[np.float64] | None) -> bool | None:
    """Whether two models give every row the same probability: then they are the same model. None: not measured."""
    import numpy as np

    if champion is None or not len(p) or not np.isfinite(p).all() or not np.isfinite(champion).all():
        return None
    return bool(np.abs(p - champion).max() <= SAME)


def _calibration(point: Mapping[str, Any], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Slope and intercept of the calibration line with their intervals, and a statement in words."""
    from ml.evaluate.metrics import interval

    line: dict[str, Any] = {}
    for name in LINE:
        low, high = interval(float(point[name][0]), drawn[name])
        line[name] = {"value": _number(float(point[name][0])), "low": _number(low), "high": _number(high)}
    return line | {"statement": _calibration_statement(line["slope"], line["intercept"])}


def _calibration_statement(slope: Mapping[str, float | None], intercept: Mapping[str, float | None]) -> str:
    low, high, under, over = slope["low"], slope["high"], intercept["low"], intercept["high"]
    if low is None or high is None or under is None or over is None:
        return "calibration was not measured"
    errors = []
    if high < 1:
        errors.append("too extreme (high ones too high, low ones too low)")
    elif low > 1:
        errors.append("too moderate (high ones too low, low ones too high)")
    if over < 0:
        errors.append("too high overall")
    elif under > 0:
        errors.append("too low overall")
    return f"probabilities are {' and '.join(errors)}" if errors else "no miscalibration detected"


def _problems(who: str, p: NDArray[Any], y: NDArray[Any], metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each model whose metrics could not all be measured, with the reason."""
    import numpy as np

    missing = [name for name, metric in metrics.items() if metric["value"] is None]
    if len(y) == 0:
        return [f"{who}: there are no test rows, so nothing was measured"]
    if broken := int((~np.isfinite(p)).sum()):
        return [f"{who}: {broken} of {len(p)} predictions are not finite numbers, so nothing was measured"]
    if not missing:
        return []
    classes = int(y.sum())
    if classes in (0, len(y)):
        reason = f"all {len(y)} test rows are of class {int(y[0])}"
    else:
        reason = "no row was predicted to be of class 1"
    return [f"{who}: {', '.join(missing)} not measured: {reason}"]


def evaluate(
    y: NDArray[np.float64],
    challenger: NDArray[np.float64],
    champion: NDArray[np.float64] | None,
    groups: NDArray[np.intp],
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Measure both models on the same rows: metrics with 95 % intervals, paired differences, curves, confusion matrix.

    `y` 0 or 1, predictions as probabilities, `groups` the entity of each row as an integer, all of shape (rows,).
    A champion whose predictions are all NaN counts as not measured.
    """
    import numpy as np

    from ml.evaluate.metrics import METRICS, calibration_line, measure, resamples

    def measure_all(p: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        line = calibration_line(y, p, weights)
        return measure(y, p, weights, threshold=settings.threshold, bins=settings.calibration_bins) | line

    once = np.ones((1, len(y)))
    models = {"challenger": challenger} | ({} if champion is None else {"champion": champion})
    points = {who: measure_all(p, once) for who, p in models.items()}
    parts: dict[str, list[dict[str, Any]]] = {who: [] for who in models}
    for weights in resamples(groups, settings.bootstrap, seed) if len(y) else ():
        for who, p in models.items():
            parts[who].append(measure_all(p, weights))
    drawn = {
        who: {name: np.concatenate([part[name] for part in chunks] or [np.empty(0)]) for name in (*METRICS, *LINE)}
        for who, chunks in parts.items()
    }
    metrics = {who: _metrics(points[who], drawn[who]) for who in models}
    difference = None
    if champion is not None:
        difference = _metrics(
            {name: points["challenger"][name] - points["champion"][name] for name in METRICS},
            {name: drawn["challenger"][name] - drawn["champion"][name] for name in METRICS},
            paired=True,
        )
    return {
        "rows": len(y),
        "positives": int(y.sum()),
        "metrics": {"challenger": metrics["challenger"], "champion": metrics.get("champion"), "difference": difference},
        "same_predictions": _same_predictions(challenger, champion),
        "calibration": {who: _calibration(points[who], drawn[who]) for who in models},
        "confusion": _confusion(y, challenger, settings.threshold),
        "curves": {who: _curves(y, p, settings.calibration_bins) for who, p in models.items()},
        "problems": [line for who, p in models.items() for line in _problems(who, p, y, metrics[who])],
    }
