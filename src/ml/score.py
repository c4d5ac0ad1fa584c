"""The champion's scores of a day's active customers, into `gold.customer_churn_scores`.

Alias and table version are resolved once, at the start: a champion that changes meanwhile does not
mix two models in one partition. Each row says which model, table version and run key made it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml import cli
from ml import config as configs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NO_CHAMPION = "no champion yet: no version of {model} has passed the gate, so there is nothing to {do} with"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--day", type=cli.a_day, required=True, help="as_of of the features, and score_date")
    parser.add_argument("--run-key", required=True, help="what this scoring is asked for by; kept in each row")


def band_codes(scores: NDArray[np.float64], bands: Sequence[configs.Band]) -> NDArray[np.intp]:
    """The index into `bands` (falling floors, the last one 0) of each score; a floor belongs to its band."""
    import numpy as np

    floors = np.array([band.at_least for band in bands])
    return (len(bands) - np.searchsorted(floors[::-1], scores, side="right")).astype(np.intp)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score one day; the partition is replaced whole, so again gives the same."""
    import numpy as np
    import pyarrow as pa

    from ml import frames, lake, registry

    started = time.monotonic()
    config = configs.load(args.model)
    champion = registry.aliased(config.model)
    if champion is None:
        return {"skipped": NO_CHAMPION.format(model=config.model, do="score")}
    predictor = registry.load(champion)
    rows, feature_version = frames.read_day(config.features.table, args.day, predictor.features)
    scores = predictor.predict(rows)
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise cli.StageError(f"{champion} gives scores that are no probabilities for {args.day}: nothing was written")
    codes = band_codes(scores, config.score.bands)
    names = [band.name for band in config.score.bands]

    def constant(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), rows.num_rows)

    table = pa.table(
        {
            "customer_id": rows["customer_id"],
            "score_date": constant(args.day, pa.date32()),
            "score": pa.array(scores),
            "band": pa.array(names).take(pa.array(codes)),
            "model_version": constant(champion.number, pa.string()),
            "feature_table_version": constant(feature_version, pa.int64()),
            "run_key": constant(args.run_key, pa.string()),
        }
    )
    gold_version = lake.replace(
        config.score.table, table, lake.day_predicate("score_date", [args.day]), partition_by=["score_date"]
    )
    counts = np.bincount(codes, minlength=len(names))
    return {
        "rows": rows.num_rows,
        "by_band": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "model_version": champion.number,
        "feature_table_version": feature_version,
        "gold_version": gold_version,
        "seconds": round(time.monotonic() - started, 2),
    }
