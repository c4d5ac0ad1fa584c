"""Stages of the `ml` wheel as Databricks tasks, each defined once for all Dags that run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlops.services.databricks import DatabricksStageOperator

if TYPE_CHECKING:
    from ml.config import ModelConfig


def stage_task(
    model: ModelConfig, task_id: str, stages: dict[str, list[str]], **kwargs: Any
) -> DatabricksStageOperator:
    """A task that runs `stages` (name → arguments) one after the other, on the model's cluster.

    Every stage gets `--model` and the run key. Its name is the key of its facts; the part before a dot is the
    command (`validate.silver` runs `ml validate`).
    """
    commands = {
        name.replace(".", "_"): [name.split(".")[0], "--model", model.model, *arguments, "--run-key", "{run_key}"]
        for name, arguments in stages.items()
    }
    databricks = model.compute.databricks
    return DatabricksStageOperator(
        task_id=task_id, stages=commands, cluster=databricks.cluster, timeout=databricks.timeout_seconds, **kwargs
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
    """Validate the arrival, clean it, validate silver: for one day, or for `first..last`.

    The `fingerprint` of a day's files, or the `listing` of many days, identifies what was copied. `follow` names the
    days whose features and scores are expected; all of them by default.
    """
    copy_log = "bronze/_log/{{ ti.xcom_pull(task_ids='copy_files', key='run_key') }}"
    fingerprint_option = ["--fingerprint", fingerprint] if fingerprint else []
    listing_option = ["--listing", listing] if listing else []
    follow_option = ["--follow", follow] if follow else []
    ingest_options = [*fingerprint_option, *listing_option, *follow_option]
    stages = {
        "validate.arrival": ["--suite", "arrival", "--days", days, *fingerprint_option],
        "ingest": ["--days", days, "--copy-log", copy_log, *ingest_options],
        "validate.silver": ["--suite", "silver", "--days", days],
    }
    return stage_task(model, task_id, stages, **kwargs)
