"""Fairness by group: the same metrics for each group of rows, and the differences between groups (Fairlearn).

Groups that are too small to measure are merged as `(others)`; when that is too small as well, its rows are counted in
`left_out` and not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml.config.gate import Evaluate

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

UNKNOWN, OTHERS = "(unknown)", "(others)"
METRICS = ("accuracy", "precision", "recall", "selection_rate")


def measure_groups(
    rows: pa.Table, y: NDArray[np.float64], p: NDArray[np.float64], settings: Evaluate
) -> dict[str, Any]:
    """For each configured column: its groups, which of them are compared, and the disparity between them.

    `problem` says why a column was not measured.
    """
    return {name: _measure_column(rows, name, y, p, settings) for name in settings.groups.columns}


def _measure_column(
    rows: pa.Table, name: str, y: NDArray[np.float64], p: NDArray[np.float64], settings: Evaluate
) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    nothing: dict[str, Any] = {"groups": [], "compared": [], "disparity": {}}
    if name not in rows.schema.names:
        return nothing | {"problem": f"the test rows have no column {name}"}
    if not len(y) or not np.isfinite(p).all():
        return nothing | {"problem": "there are no test rows with finite predictions"}
    values = np.asarray(rows[name].cast(pa.string()).fill_null(UNKNOWN).to_pylist(), dtype=object)
    names, merged = _merge_small_groups(values, settings.groups.min_rows)
    measured = np.isin(merged, names)
    left_out = {"left_out": int((~measured).sum())}
    if not measured.any():
        problem = f"no group of {name} has {settings.groups.min_rows} rows"
        return nothing | left_out | {"problem": problem}
    frame = _metric_frame(y[measured], p[measured] >= settings.threshold, merged[measured])
    groups = [
        {"group": str(group), "rows": int((merged == group).sum())}
        | {metric: _number(frame.by_group[metric][group]) for metric in METRICS}
        for group in sorted(names, key=lambda group: (-int((merged == group).sum()), group))
    ]
    disparity: dict[str, dict[str, float | None]] = {}
    for metric in METRICS:
        values_of = [group[metric] for group in groups]
        if len(groups) < 2 or any(value is None for value in values_of):
            disparity[metric] = {"difference": None, "ratio": None}
            continue
        difference, ratio = frame.difference(method="between_groups"), frame.ratio(method="between_groups")
        disparity[metric] = {"difference": _number(difference[metric]), "ratio": _number(ratio[metric])}
    return {"groups": groups, "compared": [group["group"] for group in groups], "disparity": disparity, **left_out}


def _merge_small_groups(values: NDArray[np.object_], least: int) -> tuple[list[str], NDArray[np.object_]]:
    """The names of the groups with enough rows, and the group of each row; small groups are merged as `(others)`."""
    import numpy as np

    distinct, codes, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    groups = np.where(counts >= least, distinct, OTHERS).astype(object)[codes]
    names = [str(name) for name, count in zip(distinct, counts, strict=True) if count >= least]
    if (groups == OTHERS).sum() >= least and OTHERS not in names:
        names.append(OTHERS)
    return names, groups


def _metric_frame(y: NDArray[np.float64], predicted: NDArray[np.bool_], groups: NDArray[np.object_]) -> Any:
    import numpy as np
    from fairlearn.metrics import MetricFrame, selection_rate
    from sklearn.metrics import accuracy_score, precision_score, recall_score

    def nan_if_undefined(score: Any) -> Any:  # without positives the metric is undefined, not zero
        return lambda true, predicted: score(true, predicted, zero_division=np.nan)

    metrics: Mapping[str, Any] = {
        "accuracy": accuracy_score,
        "precision": nan_if_undefined(precision_score),
        "recall": nan_if_undefined(recall_score),
        "selection_rate": selection_rate,
    }
    return MetricFrame(
        metrics=dict(metrics), y_true=y.astype(int), y_pred=predicted.astype(int), sensitive_features=groups.astype(str)
    )


def _number(value: Any) -> float | None:
    return round(float(value), 9) if math.isfinite(float(value)) else None
