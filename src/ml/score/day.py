"""Scores one day with the champion and replaces its partition."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from ml import errors
from ml.config import ModelConfig
from ml.ops.built_days import BuiltDay, Stage
from ml.registry.production import NO_CHAMPION
from ml.score.bands import band_codes

if TYPE_CHECKING:
    from ml.storage.leases import Lease


def score_day(config: ModelConfig, args: argparse.Namespace, lease: Lease) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    from ml.models import frames
    from ml.ops import built_days
    from ml.registry import model_versions, production
    from ml.storage import tables

    champion = production.champion(config.model)
    # the journal first: features that are written in this moment then make these scores stale, and are not missed
    before = built_days.newest(config.model, args.day)
    if champion is None:
        built_days.write([_entry(args, before, -1, 0, None, {})])
        return {"skipped": NO_CHAMPION.format(model=config.model, do="score")}
    predictor = model_versions.load(champion)
    key = config.features.key
    rows, feature_version = frames.read_day(config.features.table, key, args.day, predictor.features)
    scores = predictor.predict(rows)
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise errors.StageError(
            f"{champion} gives scores that are no probabilities for {args.day}: nothing was written"
        )
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
    gold_version = tables.replace(
        config.score.table,
        table,
        tables.day_predicate("score_date", [args.day]),
        partition_by=["score_date"],
        note={"stage": "score", "run_key": args.run_key, "days": str(args.day), "model_version": champion.number},
    )
    entry = _entry(args, before, gold_version, rows.num_rows, champion.number, {config.features.table: feature_version})
    lease.check()
    built_days.write([entry])
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
    before: Mapping[Stage, Mapping[date, BuiltDay]],
    version: int,
    rows: int,
    model_version: str | None,
    sources: dict[str, int],
) -> BuiltDay:
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
    return BuiltDay(
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
