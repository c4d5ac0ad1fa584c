"""Stages of the `ml` wheel as Databricks tasks, each said once for all Dags that run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlops.services.databricks import DatabricksStageOperator

if TYPE_CHECKING:
    from ml.config import ModelConfig


def stage_task(
    model: ModelConfig, task_id: str, stages: dict[str, list[str]], **kwargs: Any
) -> DatabricksStageOperator:
    """A task that runs `stages` (name → arguments) one after the other, on the model's cluster.

    Every stage is given `--model` and the run key; its name is the key of its facts, and up to a dot the
    command (`validate.silver` runs `ml validate`).
    """
    lines = {
        name.replace(".", "_"): [name.split(".")[0], "--model", model.model, *arguments, "--run-key", "{run_key}"]
        for name, arguments in stages.items()
    }
    databricks = model.compute.databricks
    return DatabricksStageOperator(
        task_id=task_id, stages=lines, cluster=databricks.cluster, timeout=databricks.timeout_seconds, **kwargs
    )


def ingest_task(
    model: ModelConfig,
    task_id: str,
    *,
    days: str,
    fingerprint: str = "",
    listing: str = "",
    follow: str = "",
    **kwargs: Any,
) -> DatabricksStageOperator:
    """Validate what arrived, clean it, validate what came out: for one day, or `first..last`.

    `fingerprint` of a day's files, or the `listing` of many days, is what was copied. `follow` names the days
    whose features and scores are expected; all of them unless told.
    """
    copy_log = "bronze/_log/{{ ti.xcom_pull(task_ids='copy_files', key='run_key') }}"
    copied = ["--fingerprint", fingerprint] if fingerprint else []
    taken = [*copied, "--listing", listing] if listing else [*copied]
    taken += ["--follow", follow] if follow else []
    stages = {
        "validate.arrival": ["--suite", "arrival", "--days", days, *copied],
        "ingest": ["--days", days, "--copy-log", copy_log, *taken],
        "validate.silver": ["--suite", "silver", "--days", days],
    }
    return stage_task(model, task_id, stages, **kwargs)
