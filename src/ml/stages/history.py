"""`python -m ml history`: prints when a day's partition of a table was written, by which run, from what, and why."""

from __future__ import annotations

import argparse
from typing import Any

from ml.config import load_model
from ml.console import parse_day
from ml.errors import StageError
from ml.ops import built_days

FACTS = ("at", "run_key", "version", "rows", "model_version", "inputs", "sources", "because")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="features.customers, gold.customer_churn_scores or gold.drift")
    parser.add_argument("--day", type=parse_day, required=True, help="partition of the table")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line for each time the day was built, oldest first. The last one is the current partition.

    Facts: table, day, written: for each time at, run_key, version (of the table: `tables.read(…, version=…)` reads
    the rows as they were then), rows, model_version, inputs, sources, because.
    """
    config = load_model(args.model)
    stages: dict[str, built_days.Stage] = {
        config.features.table: "features",
        config.score.table: "score",
        config.monitor.table: "monitor",
    }
    if args.table not in stages:
        raise StageError(f"{args.table} has no history of its days; these have one: {', '.join(stages)}")
    entries = built_days.read_entries(config.model, stage=stages[args.table], day=args.day)
    for entry in entries:
        by = "" if entry.model_version is None else f", by model version {entry.model_version}"
        why = "; ".join(entry.because)
        print(
            f"{entry.at:%Y-%m-%d %H:%M:%S} UTC  version {entry.version}, {entry.rows} rows{by}  {entry.run_key}  {why}"
        )
    return {
        "table": args.table,
        "day": args.day,
        "written": [{name: getattr(entry, name) for name in FACTS} for entry in entries],
    }
