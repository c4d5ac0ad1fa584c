"""Does the model serve some groups of customers worse? The same metrics by group, and how far they are apart.

Fairlearn computes them. Groups too small to say anything about are put together as `(others)`; when even
those are too few together, they are told and not compared.
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


def by_groups(rows: pa.Table, y: NDArray[np.float64], p: NDArray[np.float64], settings: Evaluate) -> dict[str, Any]:
    """For each configured column: its groups, which of them are compared, and their disparity.

    `problem` says why a column was not measured.
    """
    return {name: _column(rows, name, y, p, settings) for name in settings.groups.columns}


def _column(
    rows: pa.Table, name: str, y: NDArray[np.float64], p: NDArray[np.float64], settings: Evaluate
) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    nothing: dict[str, Any] = {"groups": [], "compared": [], "disparity": {}}
    if name not in rows.schema.names:
        return nothing | {"problem": f"the test rows have no column {name}"}
    if not len(y) or not np.isfinite(p).all():
        return nothing | {"problem": "there is nothing to measure"}
    values = np.asarray(rows[name].cast(pa.string()).fill_null(UNKNOWN).to_pylist(), dtype=object)
    kept, merged = _merged(values, settings.groups.min_rows)
    known = np.isin(merged, kept)
    told = {"left_out": int((~known).sum())}
    if not known.any():
        why = f"no group of {name} has {settings.groups.min_rows} rows"
        return nothing | told | {"problem": why}
    frame = _frame(y[known], p[known] >= settings.threshold, merged[known])
    groups = [
        {"group": str(group), "rows": int((merged == group).sum())}
        | {metric: _number(frame.by_group[metric][group]) for metric in METRICS}
        for group in sorted(kept, key=lambda group: (-int((merged == group).sum()), group))
    ]
    disparity: dict[str, dict[str, float | None]] = {}
    for metric in METRICS:
        values_of = [group[metric] for group in groups]
        if len(groups) < 2 or any(value is None for value in values_of):
            disparity[metric] = {"difference": None, "ratio": None}
            continue
        apart, ratio = frame.difference(method="between_groups"), frame.ratio(method="between_groups")
        disparity[metric] = {"difference": _number(apart[metric]), "ratio": _number(ratio[metric])}
    return {"groups": groups, "compared": [group["group"] for group in groups], "disparity": disparity, **told}


def _merged(values: NDArray[np.object_], least: int) -> tuple[list[str], NDArray[np.object_]]:
    """The groups that are large enough, small ones put together, and the group of each row."""
    import numpy as np

    names, which, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    groups = np.where(counts >= least, names, OTHERS).astype(object)[which]
    kept = [str(name) for name, count in zip(names, counts, strict=True) if count >= least]
    if (groups == OTHERS).sum() >= least and OTHERS not in kept:
        kept.append(OTHERS)
    return kept, groups


def _frame(y: NDArray[np.float64], said: NDArray[np.bool_], groups: NDArray[np.object_]) -> Any:
    import numpy as np
    from fairlearn.metrics import MetricFrame, selection_rate
    from sklearn.metrics import accuracy_score, precision_score, recall_score

    def undefined(score: Any) -> Any:  # where nobody was predicted, or nobody churned: not zero, but not defined
        return lambda true, predicted: score(true, predicted, zero_division=np.nan)

    metrics: Mapping[str, Any] = {
        "accuracy": accuracy_score,
        "precision": undefined(precision_score),
        "recall": undefined(recall_score),
        "selection_rate": selection_rate,
    }
    return MetricFrame(
        metrics=dict(metrics), y_true=y.astype(int), y_pred=said.astype(int), sensitive_features=groups.astype(str)
    )


def _number(value: Any) -> float | None:
    return round(float(value), 9) if math.isfinite(float(value)) else None
