"""Which Dags the nodes of a project have, and which assets connect them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ml.config import Project

SOURCE_STAGES = ("calendar", "ingest", "load_history")
TABLE_STAGES = ("features",)
MODEL_STAGES = ("train", "promote", "rollback", "score", "monitor", "report", "on_champion")
STAGES = ("arrivals", *SOURCE_STAGES, *TABLE_STAGES, *MODEL_STAGES)


@dataclass(frozen=True)
class NodeStage:
    """A stage of a node, which one Dag runs. `arrivals` has no node."""

    name: str
    stage: str
    owner: str


def all_dags(project: Project) -> dict[str, NodeStage]:
    """Every Dag of a project, by id."""
    stages = [NodeStage(node.name, stage, node.owner) for node in project.sources.values() for stage in SOURCE_STAGES]
    stages += [
        NodeStage(table.name, stage, table.owner) for table in project.feature_tables.values() for stage in TABLE_STAGES
    ]
    for model in project.models.values():
        own = [stage for stage in MODEL_STAGES if stage != "report" or model.report]
        stages += [NodeStage(model.name, stage, model.owner) for stage in own]
    return {"arrivals": NodeStage("", "arrivals", "operations")} | {
        f"{each.name}_{each.stage}": each for each in stages
    }


def starting_assets(dag: Any) -> set[str]:
    """Names of the assets that start a Dag."""
    from airflow.serialization.decoders import decode_timetable
    from airflow.serialization.encoders import encode_timetable

    condition = decode_timetable(encode_timetable(dag.timetable)).asset_condition
    return {asset.name for _, asset in condition.iter_assets()}


def emitted_assets(dag: Any) -> dict[str, set[str]]:
    """Names of the assets that each task emits."""
    return {task.task_id: {asset.name for asset in task.outlets} for task in dag.tasks if task.outlets}
