"""The calls of Airflow's REST API that the demo and the tests make."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import requests

from local.settings import Settings, load_secrets

OVER = ("success", "failed")
_SKIPPING = "Skipping task."  # the Task SDK logs a skip with this prefix


class LoopFailedError(Exception):
    """A Dag run failed; the message names it, its failed tasks and the last lines of their logs."""


@dataclass(frozen=True)
class DagRun:
    """The last known state of a Dag run. `seconds` is from queued to ended, 0 while the run goes on."""

    dag_id: str
    run_id: str
    state: str
    partition_key: str | None
    queued_at: str
    seconds: float


class Airflow:
    """A client of Airflow's REST API for the admin user. It fetches a new token when the old one has expired."""

    def __init__(self, settings: Settings) -> None:
        self.base = settings.url("airflow")
        self._password = load_secrets(settings)["airflow_admin_password"]
        self._session = requests.Session()
        self._session.trust_env = False  # loopback: neither the stand-ins' proxy nor their authority

    def _login(self) -> None:
        response = self._session.post(
            f"{self.base}/auth/token", json={"username": "admin", "password": self._password}, timeout=30
        )
        response.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def call(self, method: str, path: str, *, under: str = "/api/v2", **kwargs: Any) -> Any:
        """The JSON response of `/api/v2{path}`. Raises requests.HTTPError with the response's text."""
        if "Authorization" not in self._session.headers:
            self._login()
        response = self._session.request(method, f"{self.base}{under}{path}", timeout=60, **kwargs)
        if response.status_code == 401:
            self._login()
            response = self._session.request(method, f"{self.base}{under}{path}", timeout=60, **kwargs)
        if not response.ok:
            raise requests.HTTPError(f"{method} {path}: {response.status_code} {response.text}", response=response)
        return response.json() if response.content else None

    def wait_for_dags(self, dag_ids: list[str], timeout: float = 120) -> None:
        """Wait until the dag-processor has read every Dag file. Raises LoopFailedError with the import errors."""
        end = time.monotonic() + timeout
        while True:
            known = self.dag_ids()
            if known >= set(dag_ids):
                return
            errors = self.call("GET", "/importErrors")["import_errors"]
            if errors or time.monotonic() > end:
                reasons = "; ".join(f"{error['filename']}: {error['stack_trace']}" for error in errors)
                missing = ", ".join(sorted(set(dag_ids) - known))
                raise LoopFailedError(f"Airflow does not know the Dags {missing}: {reasons or 'not read in time'}")
            time.sleep(0.5)

    def dag_ids(self) -> set[str]:
        """The ids of all Dags; one response has a hundred of them at most."""
        ids: set[str] = set()
        while True:
            response = self.call("GET", "/dags", params={"limit": 100, "offset": len(ids), "order_by": "dag_id"})
            ids |= {dag["dag_id"] for dag in response["dags"]}
            if len(ids) >= response["total_entries"] or not response["dags"]:
                return ids

    def trigger(self, dag_id: str, *, conf: dict[str, Any] | None = None, partition_key: str | None = None) -> DagRun:
        body = {"logical_date": None, "conf": conf or {}, "partition_key": partition_key}
        return _dag_run(self.call("POST", f"/dags/{dag_id}/dagRuns", json=body))

    def runs(self, dag_id: str, *, partition_key: str | None = None) -> list[DagRun]:
        """The newest hundred runs of a Dag, newest first; only those of `partition_key` when it is given."""
        params: dict[str, Any] = {"order_by": "-run_after", "limit": 100}
        if partition_key:
            params["partition_key_pattern"] = partition_key
        runs = self.call("GET", f"/dags/{dag_id}/dagRuns", params=params)["dag_runs"]
        return [_dag_run(run) for run in runs if partition_key in (None, run["partition_key"])]

    def pending_partitions(self) -> list[dict[str, Any]]:
        """Partitions that wait for a Dag run, as the UI lists them: dag_id, partition_key, created_at."""
        response = self.call("GET", "/partitioned_dag_runs", under="/ui", params={"has_created_dag_run_id": False})
        partitions: list[dict[str, Any]] = response["partitioned_dag_runs"]
        return partitions

    def tasks(self, run: DagRun) -> list[dict[str, Any]]:
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances"
        instances: list[dict[str, Any]] = self.call("GET", path)["task_instances"]
        return instances

    def xcom(self, run: DagRun, task_id: str, key: str = "return_value") -> Any:
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path)["value"]

    def log(self, run: DagRun, task_id: str, try_number: int) -> list[str]:
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.call("GET", path, params={"full_content": True})["content"]
        return [_line(line) for line in content]

    def why_skipped(self, run: DagRun) -> str:
        """The reason of the first task of a run that skipped itself; "" when none did."""
        for task in self.tasks(run):
            if task["state"] == "skipped" and task["start_date"]:  # later tasks were skipped without a start
                lines = self.log(run, task["task_id"], task["try_number"])
                reasons = [line for line in lines if line.startswith(_SKIPPING)]
                return reasons[-1].removeprefix(_SKIPPING).strip() if reasons else f"{task['task_id']} skipped"
        return ""

    def explain(self, run: DagRun) -> str:
        """The failed tasks of a run, each with the last lines of its log."""
        report = [f"{run.dag_id} run {run.run_id} is {run.state}"]
        for task in self.tasks(run):
            if task["state"] == "failed":
                lines = self.log(run, task["task_id"], task["try_number"])
                report += [
                    f"  task {task['task_id']}, try {task['try_number']}:",
                    *(f"    {line}" for line in lines[-12:]),
                ]
        return "\n".join(report)

    def wait(self, run: DagRun, timeout: float = 900) -> DagRun:
        """The run, once it has succeeded. Raises LoopFailedError when it failed or is not over in time."""
        end = time.monotonic() + timeout
        while run.state not in OVER:
            if time.monotonic() > end:
                raise LoopFailedError(f"{run.dag_id} run {run.run_id} is still {run.state} after {timeout:.0f} s")
            time.sleep(0.5)
            run = _dag_run(self.call("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}"))
        if run.state == "failed":
            raise LoopFailedError(self.explain(run))
        return run

    def wait_for_new(
        self, dag_id: str, known: set[str], *, partition_key: str | None = None, timeout: float = 300
    ) -> DagRun:
        """The next run of a Dag that is not in `known`, once it has succeeded. Raises LoopFailedError."""
        end = time.monotonic() + timeout
        while True:
            new = [run for run in self.runs(dag_id, partition_key=partition_key) if run.run_id not in known]
            if new:
                return self.wait(new[-1])
            if time.monotonic() > end:
                partition = f" for {partition_key}" if partition_key else ""
                raise LoopFailedError(f"no run of {dag_id}{partition} has started within {timeout:.0f} s")
            time.sleep(0.3)


def _line(line: Any) -> str:
    """One line of a task's log, with the exception of a failure and the reason of a skip, which have their own fields."""
    if not isinstance(line, dict):
        return str(line)
    causes = [f"{error['exc_type']}: {error['exc_value']}" for error in line.get("error_detail") or ()]
    reason = [line["reason"]] if line.get("reason") else []
    return "\n".join([str(line.get("event", "")), *reason, *causes])


def _dag_run(run: dict[str, Any]) -> DagRun:
    queued, ended = run.get("queued_at") or run.get("start_date"), run.get("end_date")
    seconds = (
        (datetime.fromisoformat(ended) - datetime.fromisoformat(queued)).total_seconds() if queued and ended else 0
    )
    return DagRun(run["dag_id"], run["dag_run_id"], run["state"], run.get("partition_key"), queued or "", seconds)
