"""The champion's scores of a day's active customers, into `gold.customer_churn_scores`.

Alias and table version are resolved once, at the start: a champion that changes meanwhile does not
mix two models in one partition. Each row says which model, table version and run key made it; the journal
keeps what each earlier scoring of the day was made from, and why it was done again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml import cli
from ml import config as configs
from ml.journal import Entry, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ml.leases import Lease

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
    from ml import lake

    started = time.monotonic()
    config = configs.load(args.model)
    with lake.hold(config.score.table, f"score of {args.day}, run key {args.run_key}") as lease:
        facts = _score(config, args, lease)
    return facts if "skipped" in facts else facts | {"seconds": round(time.monotonic() - started, 2)}


def _score(config: configs.Model, args: argparse.Namespace, lease: Lease) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    from ml import frames, journal, lake, production, registry

    champion = production.champion(config.model)
    # the journal first: features that are written in this moment then make these scores stale, and are not missed
    before = journal.newest(config.model, args.day)
    if champion is None:
        journal.write([_entry(args, before, -1, 0, None, {})])
        return {"skipped": NO_CHAMPION.format(model=config.model, do="score")}
    predictor = registry.load(champion)
    key = config.features.key
    rows, feature_version = frames.read_day(config.features.table, key, args.day, predictor.features)
    scores = predictor.predict(rows)
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise cli.StageError(f"{champion} gives scores that are no probabilities for {args.day}: nothing was written")
    codes = band_codes(scores, config.score.bands)
    names = [band.name for band in config.score.bands]

    def constant(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), rows.num_rows)

    table = pa.table(
        {
            key: rows[key],
            "score_date": constant(args.day, pa.date32()),
            "score": pa.array(scores),
            "band": pa.array(names).take(pa.array(codes)),
            "model_version": constant(champion.number, pa.string()),
            "feature_table_version": constant(feature_version, pa.int64()),
            "run_key": constant(args.run_key, pa.string()),
        }
    )
    lease.check()
    gold_version = lake.replace(
        config.score.table,
        table,
        lake.day_predicate("score_date", [args.day]),
        partition_by=["score_date"],
        note={"stage": "score", "run_key": args.run_key, "days": str(args.day), "model_version": champion.number},
    )
    entry = _entry(args, before, gold_version, rows.num_rows, champion.number, {config.features.table: feature_version})
    lease.check()
    journal.write([entry])
    counts = np.bincount(codes, minlength=len(names))
    return {
        "rows": rows.num_rows,
        "by_band": {name: int(count) for name, count in zip(names, counts, strict=True)},
        "model_version": champion.number,
        "feature_table_version": feature_version,
        "gold_version": gold_version,
        "because": "; ".join(entry.because),
    }


def _entry(
    args: argparse.Namespace,
    before: Mapping[Stage, Mapping[date, Entry]],
    version: int,
    rows: int,
    model_version: str | None,
    sources: dict[str, int],
) -> Entry:
    """What the journal says of this scoring; `version` is that of the scores, -1 when there are none."""
    made, last = before["features"].get(args.day), before["score"].get(args.day)
    inputs = made.inputs if made else ""
    why = []
    if last is None:
        why.append("first")
    else:
        if last.inputs != inputs:
            why += made.because if made else ()
        if last.model_version != model_version:
            why.append(f"champion {model_version or 'none'} instead of {last.model_version or 'none'}")
    return Entry(
        stage="score",
        model=args.model,
        day=args.day,
        run_key=args.run_key,
        inputs=inputs,
        version=max(version, last.version if last else -1),
        rows=rows,
        because=tuple(why) or ("asked for again",),
        model_version=model_version,
        sources=sources,
    )
