"""Where the errors are: cohorts of customers for whom the model is wrong more often than for all.

A shallow tree looks for them in one half of the customers, and what is told of them is counted in the other
half: whoever looks for the worst corner of some rows finds one, and it is mostly luck.
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

DEPTH = 3  # conditions in a cohort: more is nothing to talk about
LEAST_ROWS = 50  # of a cohort, in either half: 20 % of errors is then known to +-11 % (95 %)
COMMON = 8  # values of a text column that are looked at


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

    `wrong` says of each row whether the prediction was. Cohorts not surely worse than all are left out.
    """
    import numpy as np
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(seed)
    members = int(groups.max()) + 1 if len(groups) else 0
    found_in = (rng.permutation(members) < members // 2)[groups] if members else np.zeros(0, dtype=bool)
    if min(found_in.sum(), (~found_in).sum()) < 2 * LEAST_ROWS or len(np.unique(wrong[found_in])) < 2:
        return []
    columns, names = _columns(rows, features)
    tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=LEAST_ROWS, random_state=seed)
    tree.fit(columns[found_in], wrong[found_in])
    unknowns = {name for (name, _), column in zip(names, columns.T, strict=True) if np.isnan(column).any()}
    leaves = tree.apply(columns)[~found_in]
    counted = wrong[~found_in]
    overall = float(counted.mean())
    cohorts = []
    for leaf, where in _paths(tree.tree_, names, unknowns).items():
        inside = leaves == leaf
        errors, size = int(counted[inside].sum()), int(inside.sum())
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


def _columns(rows: pa.Table, features: Sequence[Feature]) -> tuple[NDArray[np.float64], list[tuple[str, str | None]]]:
    """Numbers as they are, and one 0-or-1 column per common text value. Names are (column, value)."""
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


def _paths(tree: Any, names: Sequence[tuple[str, str | None]], unknowns: set[str]) -> dict[int, str]:
    """Each leaf's conditions, in words; of several bounds of one column the tightest."""
    found: dict[int, str] = {}

    def walk(node: int, at_most: dict[str, float], above: dict[str, float], texts: tuple[str, ...]) -> None:
        if tree.children_left[node] == -1:
            told = list(texts)
            for name in dict.fromkeys((*above, *at_most)):
                low, high = above.get(name), at_most.get(name)
                left = f"{low:.4g} < " if low is not None else ""
                told.append(f"{left}{name}" + (f" ≤ {high:.4g}" if high is not None else ""))
            found[node] = " and ".join(told)
            return
        name, value = names[tree.feature[node]]
        cut = float(tree.threshold[node])
        below, beyond = int(tree.children_left[node]), int(tree.children_right[node])
        if value is not None:
            walk(below, at_most, above, (*texts, f"{name} is not {value}"))
            walk(beyond, at_most, above, (*texts, f"{name} is {value}"))
            return
        unknown = (f"{name} may be unknown",) if name in unknowns else ()
        first = bool(tree.missing_go_to_left[node])  # where the rows go whose value is not known
        walk(below, {**at_most, name: cut}, above, (*texts, *(unknown if first else ())))
        walk(beyond, at_most, {**above, name: cut}, (*texts, *(() if first else unknown)))

    walk(0, {}, {}, ())
    return found
