"""Error cohorts: groups of rows for which the model is wrong more often than for all rows.

A shallow tree finds them among one half of the entities, and their errors are counted in the other half. Counted on the
rows in which it was found, the worst cohort would look bad mostly by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from ml.models.frames import Feature

DEPTH = 3  # conditions in a cohort: more are hard to read
LEAST_ROWS = 50  # of a cohort, in either half: an error rate of 20 % then has an interval of +-11 % (95 %)
COMMON = 8  # the most frequent values of a text column can define a cohort


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share. https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval"""
    if not of:
        return (0.0, 1.0)
    z, share = 1.959964, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    wide = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return (max(0.0, middle - wide), min(1.0, middle + wide))


def error_cohorts(
    rows: pa.Table,
    features: Sequence[Feature],
    wrong: NDArray[np.bool_],
    groups: NDArray[np.intp],
    seed: int,
) -> list[dict[str, Any]]:
    """Cohorts by error rate, worst first: where, rows, errors, error_rate, low and high (95 %), lift over all rows.

    `wrong` says for each row whether the prediction was wrong, `groups` is its entity as an integer; both of shape
    (rows,). Only cohorts whose interval is above the error rate of all rows are returned.
    """
    import numpy as np
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(seed)
    members = int(groups.max()) + 1 if len(groups) else 0
    in_first_half = (rng.permutation(members) < members // 2)[groups] if members else np.zeros(0, dtype=bool)
    if min(in_first_half.sum(), (~in_first_half).sum()) < 2 * LEAST_ROWS or len(np.unique(wrong[in_first_half])) < 2:
        return []
    columns, names = _tree_columns(rows, features)
    tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=LEAST_ROWS, random_state=seed)
    tree.fit(columns[in_first_half], wrong[in_first_half])
    with_nulls = {name for (name, _), column in zip(names, columns.T, strict=True) if np.isnan(column).any()}
    leaves = tree.apply(columns)[~in_first_half]
    counted_wrong = wrong[~in_first_half]
    overall = float(counted_wrong.mean())
    cohorts = []
    for leaf, where in _describe_leaves(tree.tree_, names, with_nulls).items():
        inside = leaves == leaf
        errors, size = int(counted_wrong[inside].sum()), int(inside.sum())
        low, high = wilson(errors, size)
        if size >= LEAST_ROWS and low > overall:
            cohorts.append(
                {
                    "where": where,
                    "rows": size,
                    "errors": errors,
                    "error_rate": round(errors / size, 6),
                    "low": round(low, 6),
                    "high": round(high, 6),
                    "lift": round(errors / size / overall, 6),
                }
            )
    return sorted(cohorts, key=lambda cohort: (-cohort["error_rate"], cohort["where"]))


def _tree_columns(
    rows: pa.Table, features: Sequence[Feature]
) -> tuple[NDArray[np.float64], list[tuple[str, str | None]]]:
    """Numbers unchanged, and one column of 0 and 1 per common text value. Names are (column, value)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from ml.models.frames import numbers

    columns: list[NDArray[np.float64]] = []
    names: list[tuple[str, str | None]] = []
    for feature in features:
        if feature.kind == "number":
            columns.append(numbers(rows[feature.name]))
            names.append((feature.name, None))
            continue
        texts = rows[feature.name].cast(pa.string())
        counts = sorted(pc.value_counts(texts).to_pylist(), key=lambda entry: (-entry["counts"], str(entry["values"])))
        for value in [entry["values"] for entry in counts if entry["values"] is not None][:COMMON]:
            columns.append(pc.fill_null(pc.equal(texts, value), False).to_numpy().astype(float))
            names.append((feature.name, value))
    return np.column_stack(columns), names


def _describe_leaves(tree: Any, names: Sequence[tuple[str, str | None]], with_nulls: set[str]) -> dict[int, str]:
    """Each leaf's conditions, in words; of several bounds of one column the tightest."""
    conditions: dict[int, str] = {}

    def walk(node: int, at_most: dict[str, float], above: dict[str, float], texts: tuple[str, ...]) -> None:
        if tree.children_left[node] == -1:
            parts = list(texts)
            for name in dict.fromkeys((*above, *at_most)):
                low, high = above.get(name), at_most.get(name)
                left = f"{low:.4g} < " if low is not None else ""
                parts.append(f"{left}{name}" + (f" ≤ {high:.4g}" if high is not None else ""))
            conditions[node] = " and ".join(parts)
            return
        name, value = names[tree.feature[node]]
        cut = float(tree.threshold[node])
        below, beyond = int(tree.children_left[node]), int(tree.children_right[node])
        if value is not None:
            walk(below, at_most, above, (*texts, f"{name} is not {value}"))
            walk(beyond, at_most, above, (*texts, f"{name} is {value}"))
            return
        unknown = (f"{name} may be unknown",) if name in with_nulls else ()
        nulls_below = bool(tree.missing_go_to_left[node])
        walk(below, {**at_most, name: cut}, above, (*texts, *(unknown if nulls_below else ())))
        walk(beyond, at_most, {**above, name: cut}, (*texts, *(() if nulls_below else unknown)))

    walk(0, {}, {}, ())
    return conditions
