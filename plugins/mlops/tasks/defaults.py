"""What all Dags have in common: which of them to build, and their arguments."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import get_parsing_context

from ml.config import ModelConfig, load_model, load_models

# A retry attaches to the remote run of the last try, so it is cheap and safe. Three cover the death of a worker, the
# restart of a service and the double start of apache/airflow #72716. The first one comes soon, because it mostly
# attaches to work that is done; later ones give a service time to recover.
RETRIES = 3
RETRY_DELAY = timedelta(seconds=3)
# Airflow computes the delay from all tries of a task, including those before a person cleared it. This limit is near
# the delay of the third retry, so a task that was cleared twice does not wait five minutes after a short outage.
MAX_RETRY_DELAY = timedelta(minutes=1)


def models_to_build(stage: str) -> Iterator[ModelConfig]:
    """The models whose Dag of `stage` this process needs: all in the Dag processor, one at the start of a task.

    Airflow names the Dag when it reads a file to run one of its tasks. The other models' configs are not read then. The
    name stays in that process's environment, so a parse of the Dag folder that such a task started would see one Dag.
    """
    dag_id = get_parsing_context().dag_id
    if dag_id is None:
        yield from load_models()
    elif dag_id.endswith(f"_{stage}"):
        yield load_model(dag_id.removesuffix(f"_{stage}"))


def dag_arguments(model: ModelConfig, stage: str, doc: str) -> dict[str, Any]:
    """Arguments for `DAG(…)`: id, owner, tags, retries and the runbook."""
    return {
        "dag_id": f"{model.model}_{stage}",
        "description": doc.strip().splitlines()[0],
        "doc_md": doc,
        "tags": [model.model, stage],
        "start_date": datetime(1990, 1, 1),  # noqa: DTZ001 (the timetable's zone counts); days may be of any year
        "catchup": False,
        "default_args": {
            "owner": model.owner,
            "retries": RETRIES,
            "retry_delay": RETRY_DELAY,
            "retry_exponential_backoff": 3.0,  # 3, 9, 27 seconds, each spread up to its double: bad files fail soon
            "max_retry_delay": MAX_RETRY_DELAY,
            "execution_timeout": timedelta(hours=2),  # stages take minutes; one that takes hours hangs
        },
    }
