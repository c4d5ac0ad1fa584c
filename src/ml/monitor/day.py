"""Drift of one day: each feature against the training reference, into `gold.drift`, with a page."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ml.config import ModelConfig
from ml.registry.production import NO_CHAMPION

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.registry.model_versions import Version
    from ml.storage.leases import Lease

OVERALL = "overall"
SHARE = "share of drifted features"
TOP = 5
FILE = "reference.json"


def compare(rows: pa.Table, reference: dict[str, Any], threshold: float) -> list[dict[str, Any]]:
    """Each feature of `reference` (see `ml.stages.monitor.drift`) against `rows`, the most drifted first."""
    import numpy as np

    from ml.monitor import drift

    found = []
    for name, spec in reference["features"].items():
        expected, now = np.asarray(spec["counts"]), drift.histogram(rows[name], spec)
        index, chance = drift.psi(expected, now)
        found.append(
            {
                "feature": name,
                "psi": index,
                "chance": chance,
                "drifted": index > max(threshold, chance),
                "bins": drift.bin_names(spec),
                "expected": (expected / max(expected.sum(), 1)).tolist(),
                "found": (now / max(now.sum(), 1)).tolist(),
            }
        )
    return sorted(found, key=lambda one: (-one["psi"], one["feature"]))


def measure_day(config: ModelConfig, args: argparse.Namespace, lease: Lease) -> dict[str, Any]:
    from ml.models import frames
    from ml.ops import built_days
    from ml.registry import model_versions, production
    from ml.storage import stores, tables

    champion = production.champion(config.model)
    if champion is None:
        return {"skipped": NO_CHAMPION.format(model=config.model, do="compare")}
    made = built_days.newest(config.model, args.day)["features"].get(
        args.day
    )  # before the features themselves, as in score
    reference = json.loads(model_versions.artifact(champion, FILE))
    features = tuple(frames.Feature(name, spec["kind"]) for name, spec in reference["features"].items())
    rows, feature_version = frames.read_day(config.features.table, config.features.key, args.day, features)
    found = compare(rows, reference, config.monitor.psi_threshold)
    drifted = [one["feature"] for one in found if one["drifted"]]
    share = len(drifted) / len(found)
    overall = share > config.monitor.drifted_share

    lease.check()
    version = tables.replace(
        config.monitor.table,
        _rows(args, found, share, overall, champion, feature_version, rows.num_rows),
        tables.day_predicate("day", [args.day]),
        partition_by=["day"],
        note={"stage": "monitor", "run_key": args.run_key, "days": str(args.day), "model_version": champion.number},
    )
    from ml.monitor.page import drift_page

    name = f"monitor/{config.model}/{args.day}.html"
    content = drift_page(config, args.day, found, share, overall, champion.number, rows.num_rows, reference["rows"])
    stores.reports().write(name, content, "text/html; charset=utf-8")
    lease.check()
    built_days.write(
        [
            built_days.BuiltDay(
                stage="monitor",
                day=args.day,
                run_key=args.run_key,
                inputs=made.inputs if made else "",
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
        "top": {one["feature"]: round(one["psi"], 4) for one in found[:TOP]},
        "rows": rows.num_rows,
        "model_version": champion.number,
        "feature_table_version": feature_version,
        "report": name,
    }


def _rows(
    args: argparse.Namespace,
    found: list[dict[str, Any]],
    share: float,
    overall: bool,
    champion: Version,
    feature_version: int,
    count: int,
) -> pa.Table:
    import pyarrow as pa

    everything = [*found, {"feature": OVERALL, "psi": share, "chance": None, "drifted": overall}]
    size = len(everything)
    return pa.table(
        {
            "day": pa.repeat(pa.scalar(args.day, pa.date32()), size),
            "feature": pa.array([one["feature"] for one in everything]),
            "measure": pa.array(["psi"] * len(found) + [SHARE]),
            "psi": pa.array([one["psi"] for one in everything], pa.float64()),
            "chance": pa.array([one["chance"] for one in everything], pa.float64()),
            "drifted": pa.array([one["drifted"] for one in everything]),
            "rows": pa.repeat(pa.scalar(count, pa.int64()), size),
            "model_version": pa.repeat(pa.scalar(champion.number), size),
            "feature_table_version": pa.repeat(pa.scalar(feature_version, pa.int64()), size),
            "run_key": pa.repeat(pa.scalar(args.run_key), size),
        }
    )
