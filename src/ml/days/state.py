"""What the tables say about every node's days now, read once: what is ingested, held, built and requested."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from ml.config import Project
from ml.graph import Contents, Graph, Input, InputDigest, build_graph
from ml.graph.digests import input_digest
from ml.ops import built_days, held_days, ingested_days
from ml.ops.built_days import BuiltDay
from ml.ops.ingested_days import INGESTED_DAYS, IngestedDay
from ml.ops.scoring_rule import Scorers, read_scorers
from ml.storage import tables


@dataclass(frozen=True, kw_only=True)
class State:
    """The days of every source (by its name) and of every other node (by its id)."""

    graph: Graph
    ingested: Mapping[str, Mapping[date, IngestedDay]]
    built: Mapping[str, Mapping[date, BuiltDay]]
    held: Mapping[str, Mapping[date, Mapping[str, Any]]] = field(default_factory=dict)  # fingerprint and reasons
    requested: Mapping[str, Collection[date]] = field(default_factory=dict)  # by model: score by the champion of now
    scorers: Mapping[str, Scorers] = field(default_factory=dict)  # by model: which version a day's scores are of
    versions: Mapping[str, int] = field(default_factory=dict)  # of the ops tables that were read

    @cached_property
    def contents(self) -> Mapping[str, Contents]:
        """Per table, the content of each day."""
        return {
            table: Contents(self._contents_of(node.id, table))
            for node in self.graph.nodes.values()
            for table in node.tables
        }

    def _contents_of(self, node_id: str, table: str) -> dict[date, str]:
        node = self.graph.nodes[node_id]
        if node.kind == "source":
            ingested = self.ingested.get(node.name, {})
            return {day: mark.contents[table] for day, mark in ingested.items() if table in mark.contents}
        if node.kind == "score":  # drift follows each scoring, which names what it was built from
            return {day: entry.inputs for day, entry in self.built.get(node_id, {}).items()}
        return {day: entry.content for day, entry in self.built.get(node_id, {}).items()}

    def inputs(self, node_id: str, day: date) -> InputDigest:
        """What this day of the node is to be built from now."""
        return input_digest(self.inputs_of(node_id, day), day, self.contents)

    def inputs_of(self, node_id: str, day: date) -> tuple[Input, ...]:
        """The inputs of one day: of scores, the tables that their version reads, whatever the model's file says now."""
        node = self.graph.nodes[node_id]
        scorers = self.scorers.get(node.name) if node.kind == "score" else None
        pinned = scorers.tables(day) if scorers is not None else None
        return node.inputs if pinned is None else day_inputs(self.graph, pinned)


def day_inputs(graph: Graph, pinned: Sequence[str]) -> tuple[Input, ...]:
    """The day of each of these tables; one that no node writes any more never has any."""
    writers = graph.writers
    return tuple(
        Input(table=table, node=writers[table].id if table in writers else table, kind="day") for table in pinned
    )


def read_state(project: Project) -> State:
    """The state of all nodes now. The journal is read first: what changes meanwhile looks behind, never done."""
    graph = build_graph(project)
    entries = built_days.read_entries()
    built: dict[str, dict[date, BuiltDay]] = {node: {} for node in graph.nodes}
    for entry in entries:
        built.setdefault(entry.node, {})[entry.day] = entry
    scorers = {model: read_scorers(model, entries) for model in project.models}
    return State(
        graph=graph,
        built=built,
        scorers=scorers,
        requested={model: each.open_days for model, each in scorers.items()},
        held=held_days.read_all(),
        ingested=ingested_days.read_all_ingested_days(),
    )


def read_inputs(project: Project, node_id: str, pinned: Sequence[str] | None = None) -> State:
    """Only what the inputs of one node's days need, from one version of `ops.ingested_days`, which it names.

    `pinned`: the tables that a version of a model reads, if they are not those of the graph. Call it before the tables themselves are read: a day that changes meanwhile then looks behind.
    """
    graph = build_graph(project)
    inputs = graph.nodes[node_id].inputs if pinned is None else day_inputs(graph, pinned)
    nodes = [each.node for each in inputs if each.node not in graph.nodes or graph.nodes[each.node].kind != "source"]
    version = tables.table(INGESTED_DAYS).version() if tables.exists(INGESTED_DAYS) else None
    return State(
        graph=graph,
        ingested=ingested_days.read_all_ingested_days(version),
        built=built_days.read_newest(nodes) if nodes else {},
        versions={} if version is None else {INGESTED_DAYS: version},
    )
