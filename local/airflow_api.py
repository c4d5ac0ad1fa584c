"""The few calls of Airflow's REST API that the demo and the tests make, as a person with a browser would."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import requests

from local.settings import Settings, load_secrets

OVER = ("success", "failed")
_SKIPPING = "Skipping task."  # how the Task SDK's log tells of a skip


class LoopFailedError(Exception):
    """A Dag run did not end well; the message names it, its failed tasks and the ends of their logs."""


@dataclass(frozen=True)
class DagRun:
    """A Dag run as it was last seen. `seconds` is from queued to ended, 0 while it goes on."""

    dag_id: str
    run_id: str
    state: str
    partition_key: str | None
    queued_at: str
    seconds: float


class Airflow:
    """Airflow's REST API as its admin. The token is fetched anew when it has run out."""

    def __init__(self, settings: Settings) -> None:
        self.base = settings.url("airflow")
        self._password = load_secrets(settings)["airflow_admin_password"]
        self._session = requests.Session()
        self._session.trust_env = False  # loopback: neither the stand-ins' proxy nor their authority

    def _login(self) -> None:
        answer = self._session.post(
            f"{self.base}/auth/token", json={"username": "admin", "password": self._password}, timeout=30
        )
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, *, under: str = "/api/v2", **kwargs: Any) -> Any:
        """The JSON answer of `/api/v2{path}`. Raises requests.HTTPError with the answer's text."""
        if "Authorization" not in self._session.headers:
            self._login()
        answer = self._session.request(method, f"{self.base}{under}{path}", timeout=60, **kwargs)
        if answer.status_code == 401:
            self._login()
            answer = self._session.request(method, f"{self.base}{under}{path}", timeout=60, **kwargs)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {path}: {answer.status_code} {answer.text}", response=answer)
        return answer.json() if answer.content else None

    def wait_for_dags(self, dag_ids: list[str], timeout: float = 120) -> None:
        """Until the dag-processor has read every Dag file. Raises LoopFailedError naming import errors."""
        end = time.monotonic() + timeout
        while True:
            known = {dag["dag_id"] for dag in self.call("GET", "/dags", params={"limit": 100})["dags"]}
            if known >= set(dag_ids):
                return
            errors = self.call("GET", "/importErrors")["import_errors"]
            if errors or time.monotonic() > end:
                why = (
                    "; ".join(f"{error['filename']}: {error['stack_trace']}" for error in errors) or "not read in time"
                )
                raise LoopFailedError(f"Airflow does not know {', '.join(sorted(set(dag_ids) - known))}: {why}")
            time.sleep(0.5)

    def trigger(self, dag_id: str, *, conf: dict[str, Any] | None = None, partition_key: str | None = None) -> DagRun:
        body = {"logical_date": None, "conf": conf or {}, "partition_key": partition_key}
        return _seen(self.call("POST", f"/dags/{dag_id}/dagRuns", json=body))

    def runs(self, dag_id: str, *, partition_key: str | None = None) -> list[DagRun]:
        """The newest hundred runs of a Dag, newest first; those of one day when a key is given."""
        params: dict[str, Any] = {"order_by": "-run_after", "limit": 100}
        if partition_key:
            params["partition_key_pattern"] = partition_key
        found = self.call("GET", f"/dags/{dag_id}/dagRuns", params=params)["dag_runs"]
        return [_seen(run) for run in found if partition_key in (None, run["partition_key"])]

    def pending_partitions(self) -> list[dict[str, Any]]:
        """Partitions that wait for a Dag run, as the UI shows them: dag_id, partition_key, created_at."""
        answer = self.call("GET", "/partitioned_dag_runs", under="/ui", params={"has_created_dag_run_id": False})
        found: list[dict[str, Any]] = answer["partitioned_dag_runs"]
        return found

    def tasks(self, run: DagRun) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances")[
            "task_instances"
        ]
        return found

    def xcom(self, run: DagRun, task_id: str, key: str = "return_value") -> Any:
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path)["value"]

    def log(self, run: DagRun, task_id: str, try_number: int) -> list[str]:
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.call("GET", path, params={"full_content": True})["content"]
        return [_line(line) for line in content]

    def why_skipped(self, run: DagRun) -> str:
        """What the first task of a run that skipped itself said; "" when none did."""
        for task in self.tasks(run):
            if task["state"] == "skipped" and task["start_date"]:  # those after it were skipped without a start
                lines = self.log(run, task["task_id"], task["try_number"])
                said = [line for line in lines if line.startswith(_SKIPPING)]
                return said[-1].removeprefix(_SKIPPING).strip() if said else f"{task['task_id']} skipped"
        return ""

    def explain(self, run: DagRun) -> str:
        """Which tasks of a failed run failed, and what they said."""
        told = [f"{run.dag_id} run {run.run_id} is {run.state}"]
        for task in self.tasks(run):
            if task["state"] == "failed":
                lines = self.log(run, task["task_id"], task["try_number"])
                told += [
                    f"  task {task['task_id']}, try {task['try_number']}:",
                    *(f"    {line}" for line in lines[-12:]),
                ]
        return "\n".join(told)

    def wait(self, run: DagRun, timeout: float = 900) -> DagRun:
        """The run when it has ended well. Raises LoopFailedError when it has not."""
        end = time.monotonic() + timeout
        while run.state not in OVER:
            if time.monotonic() > end:
                raise LoopFailedError(f"{run.dag_id} run {run.run_id} is still {run.state} after {timeout:.0f} s")
            time.sleep(0.5)
            run = _seen(self.call("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}"))
        if run.state == "failed":
            raise LoopFailedError(self.explain(run))
        return run

    def wait_for_new(
        self, dag_id: str, known: set[str], *, partition_key: str | None = None, timeout: float = 300
    ) -> DagRun:
        """The next run of a Dag that is not in `known`, when it has ended well."""
        end = time.monotonic() + timeout
        while True:
            new = [run for run in self.runs(dag_id, partition_key=partition_key) if run.run_id not in known]
            if new:
                return self.wait(new[-1])
            if time.monotonic() > end:
                wanted = f" for {partition_key}" if partition_key else ""
                raise LoopFailedError(f"no run of {dag_id}{wanted} has started within {timeout:.0f} s")
            time.sleep(0.3)


def _line(line: Any) -> str:
    """One line of a task's log; a failure's exception and a skip's reason are fields of their own."""
    if not isinstance(line, dict):
        return str(line)
    causes = [f"{error['exc_type']}: {error['exc_value']}" for error in line.get("error_detail") or ()]
    reason = [line["reason"]] if line.get("reason") else []
    return "\n".join([str(line.get("event", "")), *reason, *causes])


def _seen(run: dict[str, Any]) -> DagRun:
    from datetime import datetime

    began, ended = run.get("queued_at") or run.get("start_date"), run.get("end_date")
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds() if began and ended else 0
    return DagRun(run["dag_id"], run["dag_run_id"], run["state"], run.get("partition_key"), began or "", seconds)
