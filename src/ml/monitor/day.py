"""Drift of one day: each feature compared with a training reference, as table rows and as a page.

The reference is that of the version that scored the day, so drift and scores are of one model; of a day without scores,
that of the version that would score it. The table has one row per feature with its PSI, and the row 'overall', whose value is the share of features that drifted
(the column `measure` says which of the two a row holds). A feature drifted when its PSI is above the threshold and above
what chance gives on that many rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig, load_project_of
from ml.days.node_inputs import current_inputs
from ml.errors import StageError
from ml.features.rows import model_rows
from ml.graph import monitor_id
from ml.models.frames import Feature
from ml.monitor.page import drift_page
from ml.ops import built_days
from ml.ops.production_log import Entry
from ml.ops.scoring_rule import Scorers, read_scorers
from ml.registry import model_versions, pins, production
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

    Without a champion: skipped. Raises StageError when the day's rows cannot be used.
    """
    from ml.monitor import drift

    project, node = load_project_of(config), monitor_id(config.model)
    entry = _find_entry(read_scorers(config.model), day)
    if entry is None:
        return {"skipped": NO_CHAMPION.format(model=config.model, do="compare")}
    # the journal is read before the rows: newer features make this comparison stale instead of being missed
    inputs = current_inputs(project, node, day)
    version = production.pinned_version(entry)
    reference = json.loads(model_versions.read_artifact(version, FILE))
    features = tuple(Feature(name, spec["kind"]) for name, spec in reference["features"].items())
    pinned = pins.pins_of_entry(config, entry, features)
    read = model_rows(config, project, day, pins=pinned, features=features)
    drifts = drift.compare(read.rows, reference, config.monitor.psi_threshold)
    drifted = [feature.feature for feature in drifts if feature.drifted]
    share = len(drifted) / len(drifts)
    overall = share > config.monitor.drifted_share

    lease.check()
    table_version = tables.replace(
        config.monitor.table,
        _build_rows(
            drifts,
            share=share,
            overall=overall,
            day=day,
            row_count=read.rows.num_rows,
            model_version=version.number,
            sources=read.versions,
            run_key=run_key,
        ),
        tables.day_predicate("day", [day]),
        partition_by=["day"],
        note={"stage": "monitor", "run_key": run_key, "days": str(day), "model_version": version.number},
        may_lack=True,
    )
    report = f"monitor/{config.model}/{day}.html"
    page = drift_page(
        config,
        day,
        drifts,
        share=share,
        overall=overall,
        version=version.number,
        rows=read.rows.num_rows,
        reference_rows=reference["rows"],
    )
    stores.reports().write(report, page, "text/html; charset=utf-8")
    lease.check()
    built_days.write(
        [
            built_days.BuiltDay(
                node=node,
                day=day,
                run_key=run_key,
                inputs=inputs.digest,
                own=inputs.own,
                version=table_version,
                rows=read.rows.num_rows,
                model_version=version.number,
                sources=read.versions,
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
        "rows": read.rows.num_rows,
        "model_version": version.number,
        "sources": dict(read.versions),
        "report": report,
    }


def _find_entry(scorers: Scorers, day: date) -> Entry | None:
    """The newest entry of the version that scored the day last, or else of the one that would score it now."""
    scored = [scoring.model_version for scoring in scorers.scorings.get(day, ()) if scoring.model_version is not None]
    if not scored:
        scorer = scorers.of(day)
        return scorer.entry if scorer is not None else None
    entry = next((entry for entry in reversed(scorers.history) if entry.version == scored[-1]), None)
    if entry is None:
        raise StageError(
            f"{day} was scored by version {scored[-1]}, which is not in the production log: score it again"
        )
    return entry


def _build_rows(
    drifts: Sequence[FeatureDrift],
    *,
    share: float,
    overall: bool,
    day: date,
    row_count: int,
    model_version: str,
    sources: Mapping[str, int],
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
            "feature_table_version": pa.repeat(pa.scalar(next(iter(sources.values()), None), pa.int64()), size),
            "run_key": pa.repeat(pa.scalar(run_key), size),
            "_inputs": pa.repeat(pa.scalar(json.dumps(dict(sources))), size),
        }
    )
