"""The Dags of the nodes in `config/`, and which of them the days of a data set flow through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ml.config import FeatureTableConfig, Project

SOURCE_STAGES = ("calendar", "ingest", "load_history")
MODEL_STAGES = ("train", "promote", "rollback", "on_champion", "score", "monitor")
RESULTS = {  # by stage: the task that returns its facts, and their key
    "load_history": ("clean_days", "ingest"),
    "ingest": ("clean_day", "ingest"),
    "features": ("compute_features", "features"),
    "score": ("score_day", "score"),
    "monitor": ("measure_drift", "monitor"),
}


def dag_ids(project: Project) -> list[str]:
    """The Dags of all nodes."""
    ids = ["arrivals"]
    ids += [f"{source}_{stage}" for source in project.sources for stage in SOURCE_STAGES]
    ids += [f"{table}_features" for table in project.feature_tables]
    ids += [f"{model}_{stage}" for model in project.models for stage in MODEL_STAGES]
    return ids + [f"{model.name}_report" for model in project.models.values() if model.report]


@dataclass(frozen=True)
class Nodes:
    """The nodes that the days of some sources flow through, by name."""

    sources: list[str]
    tables: list[str]
    models: list[str]

    @classmethod
    def of(cls, project: Project, sources: Iterable[str]) -> Nodes:
        """All that can be built with these sources and no other; snapshots first, as facts are joined with them."""
        present = set(sources)
        ordered = sorted(present, key=lambda name: (project.sources[name].kind != "snapshot", name))
        tables = [table.name for table in project.feature_tables.values() if _can_be_built(project, table, present)]
        models = [
            model.name
            for model in project.models.values()
            if set(model.features) <= set(tables)
            and {project.source_of(table).name for table in project.fact_tables_of(model)} <= present
        ]
        return cls(ordered, tables, models)

    @classmethod
    def downstream(cls, project: Project, source: str) -> Nodes:
        """A source and all that is built on its tables, whether other sources are needed for it or not."""
        own = set(project.sources[source].tables)
        tables = [table.name for table in project.feature_tables.values() if not own.isdisjoint(table.inputs)]
        models = [model.name for model in project.models.values() if not set(tables).isdisjoint(model.features)]
        return cls([source], tables, models)

    def dags(self, *stages: str) -> list[str]:
        """The Dags of these stages."""
        names = {"ingest": self.sources, "load_history": self.sources, "features": self.tables}
        return [f"{name}_{stage}" for stage in stages for name in names.get(stage, self.models)]


def _can_be_built(project: Project, table: FeatureTableConfig, sources: set[str]) -> bool:
    """Facts are there, and so is everything that a day waits for."""
    inputs = {name: project.source_of(name) for name in table.inputs}
    return any(source.kind == "facts" and source.name in sources for source in inputs.values()) and all(
        table.inputs[name].missing == "carry" or source.name in sources for name, source in inputs.items()
    )


def split_dag_id(dag_id: str) -> tuple[str, str]:
    """The node and the stage of a Dag; the names of both may contain an underscore."""
    stage = next(stage for stage in RESULTS if dag_id.endswith(f"_{stage}"))
    return dag_id.removesuffix(f"_{stage}"), stage
