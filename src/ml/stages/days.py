"""`python -m ml days`: prints how far each day has come in every node, and what to do about the days that are behind.

`ml.days` has the rules; this command prints them for the person on call.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ml.config import ConfigError, Project, load_usable_project
from ml.console import parse_days, print_table
from ml.days.freshness import Behind, Freshness
from ml.days.retired import retired_tables
from ml.days.state import read_state
from ml.features.recipe import table_recipe
from ml.graph import Node
from ml.landing import listing

SHOWN = 14  # newest days in the table, unless --days names others


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", help="only this node and what it is built from, such as features.customers")
    parser.add_argument(
        "--days", type=parse_days, help=f"D, D,D or D..D (default: what is behind, and the last {SHOWN})"
    )


@dataclass(frozen=True)
class Cell:
    """One day of one node. `trouble` is "" when nothing is wrong."""

    node: str
    day: date
    text: str
    trouble: str = ""
    remedy: str = ""


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line per day with a column per node, and what to do about the days that are not as they should be.

    Facts: days (shown); held, missing (landed and not ingested), behind, waiting and left: for each node that has such
    days, a list of them; left are days behind that nothing rebuilds by itself; causes: per node and day that is behind,
    why; retired: feature tables whose files may be deleted.
    """
    project, errors = load_usable_project()
    for error in errors:
        print(f"left out, with what is built on it: {error}")
    state = read_state(project)
    recipes = {table.table_name: table_recipe(table) for table in project.feature_tables.values()}
    freshness = Freshness(state, datetime.now(UTC), recipes)
    if args.node and args.node not in state.graph.nodes:
        raise ConfigError(f"--node {args.node}: there is no such node; there are: {', '.join(state.graph.nodes)}")
    nodes = state.graph.upstream(args.node) if args.node else list(state.graph.nodes)
    landed = _read_landed(project, nodes)
    left = {(behind.node, behind.day) for behind in freshness.left_to_people()}
    days = sorted({day for node in nodes for day in (*freshness.days_of(node), *landed.get(node, {}))})
    grid = {day: [_cell(freshness, node, day, landed.get(node, {}), left) for node in nodes] for day in days}
    newest = set(days[-SHOWN:])
    chosen = [
        day
        for day in days
        if (day in args.days if args.days else day in newest or any(cell.trouble for cell in grid[day]))
    ]
    print_table([("day", *nodes), *((day, *(cell.text for cell in grid[day])) for day in chosen)])
    for cell in (cell for day in chosen for cell in grid[day] if cell.trouble):
        print(f"{cell.day} {cell.node}: {cell.trouble}. {cell.remedy}")
    retired = retired_tables(project, freshness)
    for name in retired:
        print(f"features.{name}: a newer version replaces it, and nothing reads it any more: delete {name}.yaml")
    every = [cell for cells in grid.values() for cell in cells]
    return {
        "days": len(chosen),
        "held": _by_node(every, "held"),
        "missing": _by_node(every, "no", "changed"),
        "behind": _by_node(every, "behind", "stale"),
        "waiting": _by_node(every, "waits"),
        "left": _days_by_node(sorted(left)),
        "retired": retired,
        "causes": _causes([behind for behind in freshness.all_behind() if behind.node in nodes]),
    }


def _read_landed(project: Project, nodes: Sequence[str]) -> dict[str, dict[date, str]]:
    """Of each source node, the fingerprint of each landed day."""
    return {
        source.table: {day.day: day.fingerprint for day in listing.list_landing(source.source).days}
        for source in project.sources.values()
        if source.table in nodes
    }


def _cell(freshness: Freshness, node_id: str, day: date, landed: dict[date, str], left: set[tuple[str, date]]) -> Cell:
    node = freshness.graph.nodes[node_id]
    behind = freshness.behind(node_id, day)
    if node.kind == "source":
        return _source_cell(freshness, node, day, landed.get(day), behind)
    built = freshness.state.built.get(node_id, {}).get(day)
    if behind is not None:
        remedy = _remedy(freshness, node, behind, is_left=(node_id, day) in left)
        return Cell(node_id, day, "stale" if built else "behind", f"{behind.why} ({behind.cause})", remedy)
    is_wanted = node.kind == "features" and built is None and day in freshness.days_of(node_id)
    if is_wanted and (waiting := freshness.waiting_for(node, day)):
        return Cell(node_id, day, "waits", f"waits for {', '.join(waiting)}", "It is built when they come")
    if built is None:
        return Cell(node_id, day, "-")
    if node.kind == "score":
        return Cell(node_id, day, f"version {built.model_version}" if built.model_version else "no champion")
    return Cell(node_id, day, "yes")


def _source_cell(freshness: Freshness, node: Node, day: date, landed: str | None, behind: Behind | None) -> Cell:
    """yes, no, changed (since it was ingested), held, or - when nothing is landed and nothing ingested."""
    mark = freshness.state.ingested.get(node.name, {}).get(day)
    held = freshness.state.held.get(node.name, {}).get(day, {})
    reasons, held_files = " / ".join(held.get("reasons", ())), held.get("fingerprint")
    is_ingested = mark is not None and landed in (None, mark.fingerprint)
    silver_is_held = mark is not None and held_files == mark.fingerprint
    files_are_held = not is_ingested and landed is not None and held_files == landed
    if held and ((is_ingested and silver_is_held) or files_are_held):
        return Cell(node.id, day, "held", reasons, "It starts by itself when its files change")
    if landed is not None and not is_ingested:
        trouble = "its files are not ingested as they are"
        return Cell(node.id, day, "changed" if mark else "no", trouble, _request_now())
    if behind is not None:
        return Cell(node.id, day, "behind", behind.why, _request_now())
    return Cell(node.id, day, "yes" if mark else "-")


def _request_now() -> str:
    return "arrivals requests it by itself; at once: airflow dags trigger arrivals"


def _remedy(freshness: Freshness, node: Node, behind: Behind, *, is_left: bool) -> str:
    if not is_left:
        return _request_now()
    source = next(each for each in freshness.graph.upstream(node.id) if freshness.graph.nodes[each].kind == "source")
    backfill = (
        f"airflow backfill create --dag-id {freshness.graph.nodes[source].name}_calendar --from-date {behind.day} "
        f"--to-date {behind.day + timedelta(1)} --reprocess-behavior completed"
    )
    if behind.day in freshness.newest_days(node.id):
        return f"Nothing rebuilds it by itself, because rebuild.{behind.cause} is plan: {backfill}"
    return f"It is older than the newest rebuild.restate_days, so nothing rebuilds it by itself: {backfill}"


def _by_node(cells: Sequence[Cell], *texts: str) -> dict[str, list[date]]:
    return _days_by_node([(cell.node, cell.day) for cell in cells if cell.text in texts])


def _days_by_node(pairs: Sequence[tuple[str, date]]) -> dict[str, list[date]]:
    days: dict[str, list[date]] = {}
    for node, day in pairs:
        days.setdefault(node, []).append(day)
    return days


def _causes(behind: Sequence[Behind]) -> dict[str, dict[str, str]]:
    causes: dict[str, dict[str, str]] = {}
    for each in behind:
        causes.setdefault(each.node, {})[each.day.isoformat()] = each.cause
    return causes
