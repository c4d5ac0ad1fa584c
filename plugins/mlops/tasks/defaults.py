"""What every Dag of the loop has in common."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml.config import ModelConfig

# A retry attaches to what the last try asked for, so retrying is cheap and safe; three cover a
# worker's death, a service's restart and the double start of apache/airflow #72716. The first comes
# soon, because it mostly attaches to work that is done; later ones give a service time to come back.
RETRIES = 3
RETRY_DELAY = timedelta(seconds=3)
# Airflow counts all tries of a task for its delay, also those from before a person cleared it: with no more than
# the third retry has, a task that was cleared twice does not wait five minutes for a hiccup.
MAX_RETRY_DELAY = timedelta(minutes=1)


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
            "retry_exponential_backoff": 3.0,  # 3, 9, 27 seconds, spread up to the double: bad files fail their day soon
            "max_retry_delay": MAX_RETRY_DELAY,
            "execution_timeout": timedelta(hours=2),  # no stage takes minutes; what takes hours hangs
        },
    }
