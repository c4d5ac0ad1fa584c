"""A task's context as Airflow passes it to an operator: the part that run keys and operators read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

RETRIES = 3
BEGAN = datetime.now(UTC)  # default start of the Dag run


class Notes(dict[str, Any]):
    """Airflow's task state store, shared by all tries of a task in a Dag run."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


@dataclass
class Ti:
    """A try of a task. `max_tries` is Airflow's: the tries used at the last clear, plus the task's retries."""

    dag_id: str = "transactions_ingest"
    task_id: str = "copy_files"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = RETRIES
    retries: int = RETRIES
    xcoms: dict[str, Any] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)

    @property
    def task(self) -> Any:
        return SimpleNamespace(retries=self.retries)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def retried(self) -> Ti:
        """The next try, as the scheduler starts it after a failure or the loss of a worker."""
        return replace(self, try_number=self.try_number + 1, xcoms={})

    def cleared(self) -> Ti:
        """The next try, as it starts after a person has cleared this one.

        As `airflow.models.taskinstance.clear_task_instances` does it: max_tries = try_number + retries.
        """
        return replace(self, max_tries=self.try_number + self.retries, try_number=self.try_number + 1, xcoms={})


def context_of(
    ti: Ti,
    *,
    day: str | None = "1998-06-28",
    run_id: str = "asset__1998-06-28__a1b2",
    began: datetime | None = None,
) -> Any:
    """The context of a try in a run for `day`; None is a run without a partition key."""
    began = began or BEGAN
    dag_run = SimpleNamespace(dag_id=ti.dag_id, run_id=run_id, partition_key=day, start_date=began)
    return {
        "ti": ti,
        "task_instance": ti,
        "dag_run": dag_run,
        "outlet_events": {},
        "task_state_store": ti.notes,
    }
