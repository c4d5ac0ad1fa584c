"""Which days of a node with several inputs are complete now, so that the last input to come starts them, once.

Each producer writes its own state first, then looks at all inputs, then claims the start: the last one sees all of
them. Of two that come at once both may see all; a claim is a file that only one of them can create. It names the runs
that brought the inputs, so an input that is brought again may start the day again. When the process dies between the
claim and its event, the same run key claims again, and else the sweep finds the day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date, datetime

from ml.config import Project
from ml.days.freshness import Freshness
from ml.days.state import State, read_state
from ml.graph import Node, score_id
from ml.storage import stores

CLAIMS = "ops/_ready"


def ready_tables(
    project: Project, source: str, days: Sequence[date], now: datetime, run_key: str
) -> dict[str, list[date]]:
    """The days of each feature table with several inputs that `source` has just completed, and this run is to start.

    A snapshot completes all days that have waited for it, too.
    """
    state = read_state(project)
    freshness = Freshness(state, now)
    producer = project.sources[source].table
    ready = {}
    for name in project.tables_completed_by(source):
        node = state.graph.nodes[project.feature_tables[name].table_name]
        brought = [*days, *_waited_for_snapshot(freshness, node, producer)]
        complete = [day for day in sorted(set(brought)) if not freshness.waiting_for(node, day)]
        ready[name] = _claim_all(state, node, complete, run_key)
    return {name: claimed for name, claimed in ready.items() if claimed}


def ready_models(
    project: Project, table: str, days: Sequence[date], now: datetime, run_key: str
) -> dict[str, list[date]]:
    """The days of each model with several feature tables that `table` has just completed.

    A model reads the tables that its champion is pinned to: another version of a table than its file names, perhaps.
    """
    del now
    state = read_state(project)
    ready = {}
    for model in project.models_completed_by(table):
        node = state.graph.nodes[score_id(model)]
        complete = [day for day in days if not state.inputs(node.id, day).missing]
        ready[model] = _claim_all(state, node, complete, run_key)
    return {name: claimed for name, claimed in ready.items() if claimed}


def _waited_for_snapshot(freshness: Freshness, node: Node, producer: str) -> list[date]:
    """The days that are not built yet, of a node that waits for the snapshots of this producer."""
    if not any(each.kind == "snapshot" and each.node == producer and each.waits for each in node.inputs):
        return []
    built = freshness.state.built.get(node.id, {})
    return [day for day in freshness.newest_days(node.id) if day not in built]


def _claim_all(state: State, node: Node, days: Sequence[date], run_key: str) -> list[date]:
    return [day for day in days if _claim(node, day, _brought_by(state, node, day), run_key)]


def _brought_by(state: State, node: Node, day: date) -> str:
    """A digest of the runs that brought the day's inputs."""
    runs = []
    for each in state.inputs_of(node.id, day):
        producer = state.graph.nodes.get(each.node)
        if producer is None:  # a table that no node writes any more
            continue
        if producer.kind == "source":
            brought = state.contents[each.table].in_force(day) if each.kind == "snapshot" else day
            mark = state.ingested.get(producer.name, {}).get(brought) if brought else None
            runs.append(f"{each.table} {mark.run_key if mark else ''}")
        else:
            entry = state.built.get(producer.id, {}).get(day)
            runs.append(f"{each.table} {entry.run_key if entry else ''}")
    return hashlib.sha256("\n".join(runs).encode()).hexdigest()[:16]


def _claim(node: Node, day: date, brought_by: str, run_key: str) -> bool:
    """Is this run the one that starts the day? Another one with the same inputs is not."""
    lake, name = stores.lake(), f"{CLAIMS}/{node.id}/{day}-{brought_by}"
    return lake.create(name, run_key.encode()) or lake.read(name) == run_key.encode()
