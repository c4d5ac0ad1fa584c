"""Why a probability is what it is: SHAP values, in log-odds, of one customer or of many.

The contributions of a row's features and the base add up to the log-odds of its probability. LightGBM gives them
itself, exactly (`pred_contrib` is TreeSHAP); for any other model the shap library estimates them by asking the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

TOP = 20
DRAWN = 200  # rows of the summary's picture: more dots hide each other
ROWS = 1000  # of LightGBM, that the summary is of
ASKED_ROWS, BACKGROUND = 60, 30  # of other models: each row asks the model some thousand times


def contributions(predictor: Any, rows: pa.Table, background: pa.Table | None = None) -> NDArray[np.float64]:
    """What each feature adds to the log-odds of each row, in the order of `predictor.features`. Shape (rows, features).

    `background` is what a feature is compared with, when the model is not LightGBM's: rows of usual customers
    (default: these rows).
    """
    booster = getattr(predictor, "booster", None)
    if booster is not None:
        from ml.models.frames import check_columns, frame

        check_columns(rows.schema, predictor.features, f"the input of {predictor.name}")
        known = iter(booster.pandas_categorical or [])
        categories = {feature.name: next(known) for feature in predictor.features if feature.kind == "category"}
        found: NDArray[np.float64] = booster.predict(frame(rows, predictor.features, categories), pred_contrib=True)
        return found[:, :-1]
    return _asked(predictor, rows, rows if background is None else background)


def _asked(predictor: Any, rows: pa.Table, background: pa.Table) -> NDArray[np.float64]:
    """By shap's permutations, which know nothing of the model but its answers. Texts travel as the number of their value."""
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
    some = background.take(_sampled(background.num_rows, BACKGROUND, 0))
    explainer = shap.PermutationExplainer(log_odds, shap.maskers.Independent(encoded(some), BACKGROUND), seed=0)
    asked = encoded(rows)
    found: NDArray[np.float64] = explainer(asked, max_evals=4 * asked.shape[1] + 2, silent=True).values
    return found


def _sampled(count: int, most: int, seed: int) -> NDArray[np.intp]:
    import numpy as np

    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def reasons(
    predictor: Any, rows: pa.Table, top: int = 3, background: pa.Table | None = None
) -> list[list[dict[str, Any]]]:
    """For each row, the features that matter most to its probability: feature, value, contribution (log-odds)."""
    import numpy as np

    found = contributions(predictor, rows, background)
    in_words = []
    for place, row in enumerate(found):
        order = np.argsort(-np.abs(row), kind="stable")[:top]
        in_words.append(
            [
                {
                    "feature": predictor.features[n].name,
                    "value": rows[predictor.features[n].name][place].as_py(),
                    "contribution": round(float(row[n]), 6),
                }
                for n in order
            ]
        )
    return in_words


def summary(predictor: Any, rows: pa.Table, seed: int) -> dict[str, Any]:
    """The features by mean absolute contribution, at most 20, and the dots of the summary's picture.

    Dots are texts of numbers: contributions, and where in its column (0 to 1, '-' for unknown) each value is.
    """
    import numpy as np

    exact = getattr(predictor, "booster", None) is not None
    method = "TreeSHAP, by LightGBM" if exact else "SHAP by permutation, estimated"
    if not rows.num_rows:
        return {"method": method, "rows": 0, "features": []}
    some = rows.take(_sampled(rows.num_rows, ROWS if exact else ASKED_ROWS, seed))
    found = contributions(predictor, some, rows)
    means = np.abs(found).mean(axis=0)
    order = sorted(range(len(means)), key=lambda n: (-means[n], predictor.features[n].name))[:TOP]
    drawn = _sampled(some.num_rows, DRAWN, seed)
    features = []
    for n in order:
        feature = predictor.features[n]
        ranks = _ranks(some, feature.name) if feature.kind == "number" else np.full(some.num_rows, np.nan)
        features.append(
            {
                "feature": feature.name,
                "mean_abs": round(float(means[n]), 6),
                "direction": _direction(ranks, found[:, n]),
                "contributions": " ".join(f"{value:.3f}" for value in found[drawn, n]),
                "values": " ".join("-" if np.isnan(rank) else f"{rank:.2f}" for rank in ranks[drawn]),
            }
        )
    return {"method": method, "rows": some.num_rows, "features": features}


def _ranks(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """Where in its column each value is: 0 the smallest, 1 the largest, NaN unknown."""
    import numpy as np

    from ml.models.frames import numbers

    values = numbers(rows[name])
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    ranks = np.searchsorted(distinct, values) / max(1, len(distinct) - 1)
    return np.where(known, ranks, np.nan)


def _direction(ranks: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    """From -1 (the larger, the lower the probability) to 1; None when there is no such thing."""
    import numpy as np

    known = np.isfinite(ranks)
    if known.sum() < 2 or not np.ptp(ranks[known]) or not np.ptp(found[known]):
        return None
    return round(float(np.corrcoef(ranks[known], found[known])[0, 1]), 3)


def in_words(reason: dict[str, Any]) -> str:
    """One reason in words."""
    way = "raises" if reason["contribution"] > 0 else "lowers"
    value = (
        "unknown"
        if reason["value"] is None
        else f"{reason['value']:g}"
        if isinstance(reason["value"], float)
        else reason["value"]
    )
    return f"{reason['feature']} {value} {way} it ({reason['contribution']:+.2f})"
