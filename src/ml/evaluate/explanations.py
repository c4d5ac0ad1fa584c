"""Feature attribution: SHAP values, in log-odds, of one row or of many.

The contributions of a row's features and a base value add up to the log-odds of its probability. LightGBM computes them
exactly (`pred_contrib` is TreeSHAP); for any other model the shap library estimates them from the model's predictions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

TOP = 20
DRAWN = 200  # rows in the summary plot: more dots hide each other
TREE_ROWS = 1000  # rows of the summary, for LightGBM
ESTIMATED_ROWS, BACKGROUND = 60, 30  # for other models: each row needs about a thousand predictions


def contributions(predictor: Any, rows: pa.Table, background: pa.Table | None = None) -> NDArray[np.float64]:
    """The contribution of each feature to each row's log-odds, in the order of `predictor.features`.

    Shape (rows, features). `background` is used for models other than LightGBM: typical rows, with which
    a feature's value is compared (default: these rows).
    """
    booster = getattr(predictor, "booster", None)
    if booster is not None:
        from ml.models.frames import check_columns, frame

        check_columns(rows.schema, predictor.features, f"the input of {predictor.name}")
        known = iter(booster.pandas_categorical or [])
        categories = {feature.name: next(known) for feature in predictor.features if feature.kind == "category"}
        values: NDArray[np.float64] = booster.predict(frame(rows, predictor.features, categories), pred_contrib=True)
        return values[:, :-1]
    return _estimate(predictor, rows, rows if background is None else background)


def _estimate(predictor: Any, rows: pa.Table, background: pa.Table) -> NDArray[np.float64]:
    """By shap's permutation explainer, which needs only predictions. Texts are encoded as the number of their value."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import shap

    from ml.models.frames import numbers

    values: dict[str, list[str]] = {}

    def encoded(table: pa.Table) -> NDArray[np.float64]:
        columns = []
        for feature in predictor.features:
            if feature.kind == "number":
                columns.append(numbers(table[feature.name]))
                continue
            codes = pc.index_in(table[feature.name].cast(pa.string()), pa.array(values[feature.name], pa.string()))
            columns.append(codes.fill_null(-1).to_numpy().astype(float))
        return np.column_stack(columns)

    def decoded(cells: NDArray[np.float64]) -> pa.Table:
        columns = {}
        for place, feature in enumerate(predictor.features):
            column = cells[:, place]
            if feature.kind == "number":
                columns[feature.name] = pa.array(column, from_pandas=True)
                continue
            codes = pa.array(column.astype(int), mask=column < 0)
            columns[feature.name] = pa.array(values[feature.name], pa.string()).take(codes)
        return pa.table(columns)

    def log_odds(cells: NDArray[np.float64]) -> NDArray[np.float64]:
        p = np.clip(predictor.predict(decoded(cells)), 1e-6, 1 - 1e-6)
        odds: NDArray[np.float64] = np.log(p / (1 - p))
        return odds

    for feature in predictor.features:
        if feature.kind == "category":
            both = pa.chunked_array([*rows[feature.name].chunks, *background[feature.name].chunks]).cast(pa.string())
            values[feature.name] = sorted(pc.unique(both.drop_null()).to_pylist())
    sample = background.take(_sample(background.num_rows, BACKGROUND, 0))
    explainer = shap.PermutationExplainer(log_odds, shap.maskers.Independent(encoded(sample), BACKGROUND), seed=0)
    cells = encoded(rows)
    estimated: NDArray[np.float64] = explainer(cells, max_evals=4 * cells.shape[1] + 2, silent=True).values
    return estimated


def _sample(count: int, most: int, seed: int) -> NDArray[np.intp]:
    import numpy as np

    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def top_reasons(
    predictor: Any, rows: pa.Table, top: int = 3, background: pa.Table | None = None
) -> list[list[dict[str, Any]]]:
    """For each row, the features with the largest contributions: feature, value, contribution (log-odds)."""
    import numpy as np

    result = []
    for place, row in enumerate(contributions(predictor, rows, background)):
        order = np.argsort(-np.abs(row), kind="stable")[:top]
        result.append(
            [
                {
                    "feature": predictor.features[n].name,
                    "value": rows[predictor.features[n].name][place].as_py(),
                    "contribution": round(float(row[n]), 6),
                }
                for n in order
            ]
        )
    return result


def summarise(predictor: Any, rows: pa.Table, seed: int) -> dict[str, Any]:
    """The features by mean absolute contribution, at most 20, and the dots of the summary plot.

    Dots are numbers as text: the contributions, and the rank of each value in its column (0 to 1, '-' for unknown).
    """
    import numpy as np

    exact = getattr(predictor, "booster", None) is not None
    method = "TreeSHAP, by LightGBM" if exact else "SHAP by permutation, estimated"
    if not rows.num_rows:
        return {"method": method, "rows": 0, "features": []}
    sample = rows.take(_sample(rows.num_rows, TREE_ROWS if exact else ESTIMATED_ROWS, seed))
    shap_values = contributions(predictor, sample, rows)
    means = np.abs(shap_values).mean(axis=0)
    order = sorted(range(len(means)), key=lambda n: (-means[n], predictor.features[n].name))[:TOP]
    drawn = _sample(sample.num_rows, DRAWN, seed)
    features = []
    for n in order:
        feature = predictor.features[n]
        ranks = _ranks(sample, feature.name) if feature.kind == "number" else np.full(sample.num_rows, np.nan)
        features.append(
            {
                "feature": feature.name,
                "mean_abs": round(float(means[n]), 6),
                "direction": _direction(ranks, shap_values[:, n]),
                "contributions": " ".join(f"{value:.3f}" for value in shap_values[drawn, n]),
                "values": " ".join("-" if np.isnan(rank) else f"{rank:.2f}" for rank in ranks[drawn]),
            }
        )
    return {"method": method, "rows": sample.num_rows, "features": features}


def _ranks(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """The rank of each value in its column: 0 the smallest, 1 the largest, NaN unknown."""
    import numpy as np

    from ml.models.frames import numbers

    values = numbers(rows[name])
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    ranks = np.searchsorted(distinct, values) / max(1, len(distinct) - 1)
    return np.where(known, ranks, np.nan)


def _direction(ranks: NDArray[np.float64], shap_values: NDArray[np.float64]) -> float | None:
    """Correlation of value and contribution, from -1 (higher values lower the probability) to 1; None when undefined."""
    import numpy as np

    known = np.isfinite(ranks)
    if known.sum() < 2 or not np.ptp(ranks[known]) or not np.ptp(shap_values[known]):
        return None
    return round(float(np.corrcoef(ranks[known], shap_values[known])[0, 1]), 3)


def in_words(reason: dict[str, Any]) -> str:
    """One reason in words."""
    verb = "raises" if reason["contribution"] > 0 else "lowers"
    value = (
        "unknown"
        if reason["value"] is None
        else f"{reason['value']:g}"
        if isinstance(reason["value"], float)
        else reason["value"]
    )
    return f"{reason['feature']} {value} {verb} it ({reason['contribution']:+.2f})"
