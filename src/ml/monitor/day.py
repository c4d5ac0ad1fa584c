"""Drift of one day: each feature compared with the champion's training reference, as table rows and as a page.

The table has one row per feature with its PSI, and the row 'overall', whose value is the share of features that drifted
(the column `measure` says which of the two a row holds). A feature drifted when its PSI is above the threshold and above
what chance gives on that many rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.models import frames
from ml.monitor.page import drift_page
from ml.ops import built_days
from ml.registry import model_versions, production
from ml.registry.production import NO_CHAMPION
from ml.storage import stores, tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.monitor.drift import FeatureDrift
    from ml.storage.leases import Lease

OVERALL = "overall"
SHARE = "share of drifted features"
TOP = 5
FILE = "reference.json"


def measure_day(config: ModelConfig, *, day: date, run_key: str, lease: Lease) -> dict[str, Any]:
    """Facts: overall (share of drifted features), drifted, thresholds, drifted_features, top, report, versions.

    Without a champion: skipped. Raises StageError when the day's features cannot be used.
    """
    from ml.monitor import drift

    champion = production.get_champion(config.model)
    if champion is None:
        return {"skipped": NO_CHAMPION.format(model=config.model, do="compare")}
    # the journal is read before the features: newer features make this comparison stale instead of being missed
    built = built_days.read_newest(config.model, day)["features"].get(day)
    reference = json.loads(model_versions.read_artifact(champion, FILE))
    features = tuple(frames.Feature(name, spec["kind"]) for name, spec in reference["features"].items())
    rows, feature_version = frames.read_day(config.features.table, config.features.key, day, features)
    drifts = drift.compare(rows, reference, config.monitor.psi_threshold)
    drifted = [feature.feature for feature in drifts if feature.drifted]
    share = len(drifted) / len(drifts)
    overall = share > config.monitor.drifted_share

    lease.check()
    version = tables.replace(
        config.monitor.table,
        _build_rows(
            drifts,
            share=share,
            overall=overall,
            day=day,
            row_count=rows.num_rows,
            model_version=champion.number,
            feature_version=feature_version,
            run_key=run_key,
        ),
        tables.day_predicate("day", [day]),
        partition_by=["day"],
        note={"stage": "monitor", "run_key": run_key, "days": str(day), "model_version": champion.number},
    )
    report = f"monitor/{config.model}/{day}.html"
    page = drift_page(
        config,
        day,
        drifts,
        share=share,
        overall=overall,
        version=champion.number,
        rows=rows.num_rows,
        reference_rows=reference["rows"],
    )
    stores.reports().write(report, page, "text/html; charset=utf-8")
    lease.check()
    built_days.write(
        [
            built_days.BuiltDay(
                stage="monitor",
                day=day,
                run_key=run_key,
                inputs=built.inputs if built else "",
                version=version,
                rows=rows.num_rows,
                because=(),
                model_version=champion.number,
                model=config.model,
                sources={config.features.table: feature_version},
            )
        ]
    )
    return {
        "overall": round(share, 4),
        "drifted": overall,
        "drifted_share": config.monitor.drifted_share,
        "psi_threshold": config.monitor.psi_threshold,
        "drifted_features": drifted,
        "top": {feature.feature: round(feature.psi, 4) for feature in drifts[:TOP]},
        "rows": rows.num_rows,
        "model_version": champion.number,
        "feature_table_version": feature_version,
        "report": report,
    }


def _build_rows(
    drifts: Sequence[FeatureDrift],
    *,
    share: float,
    overall: bool,
    day: date,
    row_count: int,
    model_version: str,
    feature_version: int,
    run_key: str,
) -> pa.Table:
    """The day's rows of the drift table: one per feature, and the overall row last."""
    import pyarrow as pa

    size = len(drifts) + 1
    return pa.table(
        {
            "day": pa.repeat(pa.scalar(day, pa.date32()), size),
            "feature": pa.array([*(feature.feature for feature in drifts), OVERALL]),
            "measure": pa.array(["psi"] * len(drifts) + [SHARE]),
            "psi": pa.array([*(feature.psi for feature in drifts), share], pa.float64()),
            "chance": pa.array([*(feature.chance for feature in drifts), None], pa.float64()),
            "drifted": pa.array([*(feature.drifted for feature in drifts), overall]),
            "rows": pa.repeat(pa.scalar(row_count, pa.int64()), size),
            "model_version": pa.repeat(pa.scalar(model_version), size),
            "feature_table_version": pa.repeat(pa.scalar(feature_version, pa.int64()), size),
            "run_key": pa.repeat(pa.scalar(run_key), size),
        }
    )
