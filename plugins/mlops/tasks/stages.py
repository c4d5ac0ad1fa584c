"""Stages of the `ml` wheel as Databricks tasks, each defined once for all Dags that run it."""

from __future__ import annotations

from typing import Any

from ml.config import load_platform
from mlops.services.databricks import DatabricksStageOperator


def stage_task(
    task_id: str,
    stages: dict[str, list[str]],
    *,
    source: str | None = None,
    table: str | None = None,
    model: str | None = None,
    **kwargs: Any,
) -> DatabricksStageOperator:
    """A task that runs `stages` (name → arguments) one after the other, on the cluster of `config/platform.yaml`.

    Every stage gets the node (one of `source`, `table` and `model`) and the run key. Its name is the key of its facts;
    the part before a dot is the command (`validate.silver` runs `ml validate`).
    """
    nodes = {"--source": source, "--table": table, "--model": model}
    given = [(option, name) for option, name in nodes.items() if name is not None]
    if len(given) != 1:
        raise TypeError(f"task {task_id}: one of source, table and model is needed; found {len(given)}")
    ((option, name),) = given
    commands = {
        stage.replace(".", "_"): [stage.split(".")[0], option, name, *arguments, "--run-key", "{run_key}"]
        for stage, arguments in stages.items()
    }
    databricks = load_platform().compute.databricks
    return DatabricksStageOperator(
        task_id=task_id, stages=commands, cluster=databricks.cluster, timeout=databricks.timeout_seconds, **kwargs
    )


def ingest_task(
    source: str,
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
    return stage_task(task_id, stages, source=source, **kwargs)
