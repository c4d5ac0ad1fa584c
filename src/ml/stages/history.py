"""`python -m ml history`: prints when a day's partition of a table was written, by which run, from what, and why."""

from __future__ import annotations

import argparse
from typing import Any

from ml.config import load_usable_project
from ml.console import parse_day
from ml.errors import StageError
from ml.graph import build_graph
from ml.ops import built_days

FACTS = ("at", "run_key", "version", "rows", "content", "model_version", "inputs", "sources", "because")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="a feature table, or the scores or drift of a model, such as features.NAME")
    parser.add_argument("--day", type=parse_day, required=True, help="partition of the table")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line for each time the day was built, oldest first. The last one is the current partition.

    The node that writes the table is found in the graph. Facts: table, node, day, written: for each time at, run_key,
    version (of the table: `tables.read(…, version=…)` reads the rows as they were then), rows, content, model_version,
    inputs, sources, because. Raises StageError for a table without entries in the journal, such as one in silver.
    """
    graph = build_graph(load_usable_project()[0])
    nodes = {table: node for node in graph.of_kind("features", "score", "monitor") for table in node.tables}
    if args.table not in nodes:
        raise StageError(f"{args.table} has no history of its days; these have one: {', '.join(sorted(nodes))}")
    node = nodes[args.table]
    entries = built_days.read_entries(node=node.id, day=args.day)
    for entry in entries:
        by = "" if entry.model_version is None else f", by model version {entry.model_version}"
        why = "; ".join(entry.because)
        print(
            f"{entry.at:%Y-%m-%d %H:%M:%S} UTC  version {entry.version}, {entry.rows} rows{by}  {entry.run_key}  {why}"
        )
    return {
        "table": args.table,
        "node": node.id,
        "day": args.day,
        "written": [{name: getattr(entry, name) for name in FACTS} for entry in entries],
    }
