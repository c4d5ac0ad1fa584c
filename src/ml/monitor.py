"""Drift of a day's features against what the champion learnt: `gold.drift`, and a page for people.

One row per feature with its PSI, and the row 'overall' whose value is the share of features that
have drifted (the column `measure` says which of the two a row holds). A feature has drifted when its
PSI is above the threshold and above what chance gives on that few rows.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ml import cli
from ml import config as configs
from ml.score import NO_CHAMPION

if TYPE_CHECKING:
    import pyarrow as pa

    from ml.leases import Lease
    from ml.registry import Version

OVERALL = "overall"
SHARE = "share of drifted features"
TOP = 5
FILE = "reference.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--day", type=cli.a_day, required=True, help="as_of of the features to compare")
    parser.add_argument("--run-key", required=True, help="what this comparison is asked for by; kept in each row")


def compare(rows: pa.Table, reference: dict[str, Any], threshold: float) -> list[dict[str, Any]]:
    """Each feature of `reference` (see `ml.drift`) against `rows`, the most drifted first."""
    import numpy as np

    from ml import drift

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


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compare one day; the partition and the page are replaced whole."""
    from ml import lake

    config = configs.load(args.model)
    with lake.hold(config.monitor.table, f"monitor of {args.day}, run key {args.run_key}") as lease:
        return _measure(config, args, lease)


def _measure(config: configs.Model, args: argparse.Namespace, lease: Lease) -> dict[str, Any]:
    from ml import frames, journal, lake, production, registry, store

    champion = production.champion(config.model)
    if champion is None:
        return {"skipped": NO_CHAMPION.format(model=config.model, do="compare")}
    made = journal.newest(config.model, args.day)["features"].get(
        args.day
    )  # before the features themselves, as in score
    reference = json.loads(registry.artifact(champion, FILE))
    features = tuple(frames.Feature(name, spec["kind"]) for name, spec in reference["features"].items())
    rows, feature_version = frames.read_day(config.features.table, config.features.key, args.day, features)
    found = compare(rows, reference, config.monitor.psi_threshold)
    drifted = [one["feature"] for one in found if one["drifted"]]
    share = len(drifted) / len(found)
    overall = share > config.monitor.drifted_share

    lease.check()
    version = lake.replace(
        config.monitor.table,
        _rows(args, found, share, overall, champion, feature_version, rows.num_rows),
        lake.day_predicate("day", [args.day]),
        partition_by=["day"],
        note={"stage": "monitor", "run_key": args.run_key, "days": str(args.day), "model_version": champion.number},
    )
    from ml.drift_html import drift_page

    name = f"monitor/{config.model}/{args.day}.html"
    content = drift_page(config, args.day, found, share, overall, champion.number, rows.num_rows, reference["rows"])
    store.reports().write(name, content, "text/html; charset=utf-8")
    lease.check()
    journal.write(
        [
            journal.Entry(
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
