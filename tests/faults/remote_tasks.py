"""One task of the loop per remote service: when it is cleared, it runs again, and no other task follows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.cloud.faults import Faults, wait_for
from tests.support.machines.machine import Machine

Json = dict[str, Any]


@dataclass(frozen=True)
class Route:
    """One kind of request. Both fields are regular expressions that match the whole value."""

    method: str
    path: str


@dataclass(frozen=True)
class Kind:
    """A task of the loop, and the requests that it makes."""

    service: str  # its name in the ledger
    dag_id: str
    task_id: str
    submit: Route
    look: Route
    last: Route  # the request of the task after it is resumed, before it succeeds
    done: str  # the ledger's word for success
    role: str  # named in the error after a 403


FACTORY = "/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.DataFactory/.*"
KINDS = {
    "data-factory": Kind(
        "data_factory",
        "transactions_ingest",
        "copy_files",
        Route("POST", f"{FACTORY}/createRun"),
        Route("GET", f"{FACTORY}/pipelineruns/[^/]+"),
        Route("POST", f"{FACTORY}/queryActivityruns"),
        "Succeeded",
        "Data Factory Contributor",
    ),
    "databricks": Kind(
        "databricks",
        "churn_monitor",
        "measure_drift",
        Route("POST", r"/api/2\.\d/jobs/runs/submit"),
        Route("GET", r"/api/2\.\d/jobs/runs/get"),
        Route("GET", r"/api/2\.\d/jobs/runs/get-output"),
        "SUCCESS",
        "Can Restart",
    ),
    "azure-ml": Kind(
        "azure_ml",
        "churn_train",
        "train_model",
        Route("PUT", ".*/jobs/[^/]+"),
        Route("GET", ".*/jobs/[^/]+"),
        Route("GET", "/history/v1.0/.*/details"),
        "Completed",
        "AzureML Data Scientist",
    ),
    "power-bi": Kind(
        "power_bi",
        "churn_report",
        "refresh_dataset",
        Route("POST", ".*/refreshes"),
        Route("GET", ".*/refreshes"),
        Route("GET", ".*/refreshes"),
        "Completed",
        "Contributor of the workspace",
    ),
}


@dataclass
class Task:
    """A kind's task in its newest successful run, or in a run of its own."""

    machine: Machine
    kind: Kind
    run_id: str
    known: set[int] = field(default_factory=set)  # ledger entries from before the task was last cleared

    @property
    def path(self) -> str:
        return f"/dags/{self.kind.dag_id}/dagRuns/{self.run_id}/taskInstances/{self.kind.task_id}"

    def look(self) -> Json:
        instance: Json = self.machine.airflow.call("GET", self.path)
        return instance

    def clear(self) -> None:
        """Clear the task, as a user does in the UI."""
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "task_ids": [self.kind.task_id],
            "only_failed": False,
            "include_downstream": False,
        }
        self.machine.airflow.call("POST", f"/dags/{self.kind.dag_id}/clearTaskInstances", json=body)

    def again(self) -> None:
        self.known = {entry["id"] for entry in self._entries()}
        self.clear()

    def mark(self, state: str) -> None:
        self.machine.airflow.call("PATCH", self.path, json={"new_state": state})

    def wait(self, *states: str, timeout: float = 240) -> Json:
        """The task, once it is in one of these states. Raises AssertionError as soon as it has failed unexpectedly."""

        def in_state() -> Json | None:
            task = self.look()
            if task["state"] in ("failed", "upstream_failed") and task["state"] not in states:
                log = self.machine.airflow.log(self._run(), self.kind.task_id, task["try_number"])
                raise AssertionError(f"{self.path} failed:\n" + "\n".join(log[-15:]))
            return task if task["state"] in states else None

        instance: Json = wait_for(in_state, f"{self.path} in {' or '.join(states)}", timeout)
        return instance

    def wait_in_triggerer(self, faults: Faults) -> None:
        """Wait until the task is deferred and its trigger polls its run: earlier, no trigger could cancel the run."""
        self.wait("deferred")
        rule = faults.add({"wait": 0}, method=self.kind.look.method, path=self.kind.look.path, times=None)
        wait_for(lambda: faults.matches(rule), f"a poll of the run of {self.path}")
        faults.delete(rule)

    def log(self, try_number: int) -> str:
        return "\n".join(self.machine.airflow.log(self._run(), self.kind.task_id, try_number))

    def effects(self) -> list[Json]:
        """Work that really began since the task was cleared, oldest first."""
        return [entry for entry in self._entries() if entry["id"] not in self.known and entry["first"] is None]

    def ended(self, timeout: float = 60) -> list[Json]:
        """`effects`, once all of them have ended."""

        def all_ended() -> list[Json] | None:
            entries = self.effects()
            return entries if entries and all(entry["outcome"] for entry in entries) else None

        entries: list[Json] = wait_for(all_ended, f"the end of the work that {self.path} began", timeout)
        return entries

    def _entries(self) -> list[Json]:
        prefix = f"{self.kind.dag_id}-{self.kind.task_id}-"
        return [
            entry
            for entry in self.machine.ledger()
            if entry["service"] == self.kind.service
            and (entry["run_key"] is None or str(entry["run_key"]).startswith(prefix))
        ]

    def _run(self) -> Any:
        runs = self.machine.airflow.runs(self.kind.dag_id)
        return next(run for run in runs if run.run_id == self.run_id)


def newest(machine: Machine, name: str) -> Task:
    kind = KINDS[name]
    successful = [run for run in machine.airflow.runs(kind.dag_id) if run.state == "success"]
    assert successful, f"no run of {kind.dag_id} has succeeded yet"
    tasks = (Task(machine, kind, run.run_id) for run in successful)
    newest_task = next((task for task in tasks if task.look()["state"] == "success"), None)
    assert newest_task, (
        f"{kind.task_id} has succeeded in no run of {kind.dag_id}, or was cleared by an earlier test and has not ended"
    )
    return newest_task


@contextmanager
def paused(machine: Machine, *dag_ids: str) -> Iterator[None]:
    """Pause Dags, so that they do not react to what tests do."""
    for dag_id in dag_ids:
        machine.airflow.call("PATCH", f"/dags/{dag_id}", json={"is_paused": True})
    try:
        yield
    finally:
        for dag_id in dag_ids:
            machine.airflow.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
