"""The nodes of the graph and what each is built from, as the config files say.

A node owns days of one or several tables: a source the silver tables that its ingestion writes, a feature table its own
table, a model its scores and its drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ml.config import Edge, FeatureTableConfig, ModelConfig, Project, SourceConfig

Kind = Literal["source", "features", "score", "monitor"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """A table that reaches a node's day, and which of its days.

    facts: the last `back` days (None: all). snapshot: the newest one up to the day, or the first. day: the same day.
    """

    table: str
    node: str  # which writes the table
    kind: Literal["facts", "snapshot", "day"]
    back: int | None = 1
    max_age: int | None = None  # days, of a snapshot; None: any age
    waits: bool = True  # a day waits for this input; else it is built without, and again when it comes
    wait_until: int | None = None  # days after the day's end; then it is built without. None: for ever


@dataclass(frozen=True, kw_only=True)
class Node:
    """What is built per day: `id` names it in the journal."""

    id: str
    kind: Kind
    name: str  # of its config file
    tables: tuple[str, ...]
    inputs: tuple[Input, ...]
    timezone: str = "UTC"  # in which its days start and end
    restate_days: int = 0  # newest days that are rebuilt by themselves
    rebuild_data: bool = True  # changed data rebuilds a day by itself
    rebuild_code: bool = False  # and so does a changed query

    @property
    def facts(self) -> tuple[Input, ...]:
        return tuple(each for each in self.inputs if each.kind == "facts")


@dataclass(frozen=True)
class Graph:
    """All nodes by id, each after those that it is built from."""

    nodes: Mapping[str, Node]

    @cached_property
    def writers(self) -> Mapping[str, Node]:
        """The node that writes each table."""
        return {table: node for node in self.nodes.values() for table in node.tables}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that are built from each node directly."""
        consumers: dict[str, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes.values():
            for source in dict.fromkeys(each.node for each in node.inputs):
                consumers[source].append(node)
        return {node: tuple(built) for node, built in consumers.items()}

    def of_kind(self, *kinds: Kind) -> Iterator[Node]:
        return (node for node in self.nodes.values() if node.kind in kinds)

    def upstream(self, node_id: str) -> list[str]:
        """The node and all nodes that it is built from, directly or not, in the order of the graph."""
        wanted, remaining = {node_id}, [node_id]
        while remaining:
            for each in self.nodes[remaining.pop()].inputs:
                if each.node not in wanted:
                    wanted.add(each.node)
                    remaining.append(each.node)
        return [node for node in self.nodes if node in wanted]


def score_id(model: str) -> str:
    return f"{model}.score"


def monitor_id(model: str) -> str:
    return f"{model}.monitor"


def build_graph(project: Project) -> Graph:
    """The graph of all config files. Raises ConfigError for a table that no source writes."""
    nodes = [_source_node(source) for source in project.sources.values()]
    nodes += [_feature_node(project, table) for table in project.feature_tables.values()]
    for model in project.models.values():
        score = _score_node(project, model)
        nodes += [score, _monitor_node(model, score)]
    return Graph({node.id: node for node in nodes})


def _source_node(source: SourceConfig) -> Node:
    return Node(
        id=source.table, kind="source", name=source.source, tables=source.tables, inputs=(), timezone=source.timezone
    )


def _feature_node(project: Project, table: FeatureTableConfig) -> Node:
    inputs = tuple(_table_input(project, name, edge) for name, edge in table.inputs.items())
    facts = next((name for name in table.inputs if project.source_of(name).kind == "facts"), None)
    return Node(
        id=table.table_name,
        kind="features",
        name=table.table,
        tables=(table.table_name,),
        inputs=inputs,
        timezone=project.source_of(facts).timezone if facts else "UTC",
        restate_days=table.rebuild.restate_days,
        rebuild_data=table.rebuild.data == "auto",
        rebuild_code=table.rebuild.code == "auto",
    )


def _table_input(project: Project, name: str, edge: Edge) -> Input:
    source = project.source_of(name)
    waits = edge.missing == "wait"
    if source.kind == "snapshot":
        return Input(
            table=name,
            node=source.table,
            kind="snapshot",
            max_age=edge.max_age,
            waits=waits,
            wait_until=edge.wait_until,
        )
    back = edge.window.back if edge.window else None
    return Input(table=name, node=source.table, kind="facts", back=back, waits=waits, wait_until=edge.wait_until)


def _score_node(project: Project, model: ModelConfig) -> Node:
    if model.examples is not None:
        source = project.source_of(model.examples.table)
        inputs: tuple[Input, ...] = (Input(table=model.examples.table, node=source.table, kind="day"),)
        restate_days, timezone = model.examples.restate_days, source.timezone
    else:
        tables = [project.feature_tables[name] for name in model.features]
        inputs = tuple(Input(table=table.table_name, node=table.table_name, kind="day") for table in tables)
        restate_days = min(table.rebuild.restate_days for table in tables)
        timezone = "UTC"
    return Node(
        id=score_id(model.model),
        kind="score",
        name=model.model,
        tables=(model.score.table,),
        inputs=inputs,
        timezone=timezone,
        restate_days=restate_days,
    )


def _monitor_node(model: ModelConfig, score: Node) -> Node:
    return Node(
        id=monitor_id(model.model),
        kind="monitor",
        name=model.model,
        tables=(model.monitor.table,),
        inputs=(Input(table=model.score.table, node=score.id, kind="day"),),
        timezone=score.timezone,
        restate_days=score.restate_days,
    )
