"""Scores one day's active customers with the champion and replaces the day's partition.

The champion and the table version are resolved once, at the start: a champion that changes meanwhile does not mix two
models in one partition. Each row carries its model version, feature table version and run key. The journal of built days
keeps the inputs of each scoring of the day, and why it was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.errors import StageError
from ml.models import frames
from ml.ops import built_days
from ml.ops.built_days import BuiltDay, Stage
from ml.registry import model_versions, production
from ml.registry.production import NO_CHAMPION
from ml.score.bands import band_codes
from ml.storage import tables

if TYPE_CHECKING:
    from ml.storage.leases import Lease


def score_day(config: ModelConfig, *, day: date, run_key: str, lease: Lease) -> dict[str, Any]:
    """Facts: rows, by_band, model_version, feature_table_version, gold_version, because; or skipped without a champion.

    Raises StageError when the day's features cannot be used, or when a score is not a probability.
    """
    import numpy as np
    import pyarrow as pa

    champion = production.get_champion(config.model)
    # the journal is read first: features that are written from now on make these scores stale instead of being missed
    newest = built_days.read_newest(config.model, day)
    if champion is None:
        built_days.write([_journal_entry(config, newest, day=day, run_key=run_key)])
        return {"skipped": NO_CHAMPION.format(model=config.model, do="score")}
    predictor = model_versions.load(champion)
    key = config.features.key
    rows, feature_version = frames.read_day(config.features.table, key, day, predictor.features)
    scores = predictor.predict(rows)
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        raise StageError(f"{champion} returns scores for {day} that are not probabilities: nothing was written")
    codes = band_codes(scores, config.score.bands)
    names = [band.name for band in config.score.bands]

    def constant(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), rows.num_rows)

    table = pa.table(
        {
            key: rows[key],
            "score_date": constant(day, pa.date32()),
            "score": pa.array(scores),
            "band": pa.array(names).take(pa.array(codes)),
            "model_version": constant(champion.number, pa.string()),
            "feature_table_version": constant(feature_version, pa.int64()),
            "run_key": constant(run_key, pa.string()),
        }
    )
    lease.check()
    gold_version = tables.replace(
        config.score.table,
        table,
        tables.day_predicate("score_date", [day]),
        partition_by=["score_date"],
        note={"stage": "score", "run_key": run_key, "days": str(day), "model_version": champion.number},
    )
    entry = _journal_entry(
        config,
        newest,
        day=day,
        run_key=run_key,
        version=gold_version,
        rows=rows.num_rows,
        model_version=champion.number,
        sources={config.features.table: feature_version},
    )
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


def _journal_entry(
    config: ModelConfig,
    newest: Mapping[Stage, Mapping[date, BuiltDay]],
    *,
    day: date,
    run_key: str,
    version: int = -1,
    rows: int = 0,
    model_version: str | None = None,
    sources: Mapping[str, int] | None = None,
) -> BuiltDay:
    """The journal's entry of this scoring. The defaults are those of a day without a champion, and so without scores."""
    features, last = newest["features"].get(day), newest["score"].get(day)
    inputs = features.inputs if features else ""
    reasons = []
    if last is None:
        reasons.append("first")
    else:
        if last.inputs != inputs:
            reasons += features.because if features else ()
        if last.model_version != model_version:
            reasons.append(f"champion {model_version or 'none'} instead of {last.model_version or 'none'}")
    return BuiltDay(
        stage="score",
        model=config.model,
        day=day,
        run_key=run_key,
        inputs=inputs,
        version=max(version, last.version if last else -1),
        rows=rows,
        because=tuple(reasons) or ("requested again",),
        model_version=model_version,
        sources=sources or {},
    )
