"""Databricks runs: created once per token, advanced when their tasks end, resumed after a restart.

A run's document holds its request and its state. Only `_advance` changes the state: it reads the document and asks
the compute, and it is called repeatedly, so a process that dies between two steps needs no special handling.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from standins.compute.pool import Compute
from standins.compute.work import Status
from standins.core.cloud import Cloud
from standins.databricks.api import invalid
from standins.databricks.results import (
    BLOCKED,
    PENDING,
    RUNNING,
    TERMINATED,
    Run,
    latest,
    outcome,
    stop_message,
    verdict,
)
from standins.databricks.tasks import Task, override, run_key, work
from standins.faults import run_faults

RUNS, TASK_RUNS, TOKENS = "databricks.run", "databricks.task_run", "databricks.token"
SERVICE = "databricks"
FAILED_MESSAGE = "Workload failed, see run output for details"
MAX_TOKEN = 64


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def new_id() -> int:
    """A random number that JavaScript can represent exactly, as the ids of Databricks."""
    return secrets.randbelow(9 * 10**14) + 10**14


class Runs:
    """All runs of the workspace."""

    def __init__(self, cloud: Cloud, compute: Compute) -> None:
        self._cloud = cloud
        self._documents = cloud.documents
        self._compute = compute
        self._lock = threading.Lock()
        self._active = {name for name, run in self._documents.list(RUNS) if run["end_time"] is None}

    def start(self) -> None:
        """Follow the runs that were active when the process ended, and all new ones."""
        self._compute.listeners.append(self.advance_all)
        self._compute.start()

    def create(
        self, request: dict[str, Any], *, operation: str, name: str, tasks: list[Task], timeout: int, caller: str,
        job_id: int | None = None, parameters: dict[str, str] | None = None,
    ) -> int:  # fmt: skip
        """Create a run and return its id, or the id of the run with the same `idempotency_token`."""
        token = request.get("idempotency_token") or None
        if token is not None and (not isinstance(token, str) or len(token) > MAX_TOKEN):
            raise invalid(f"idempotency_token: at most {MAX_TOKEN} characters are allowed; found {token!r}")
        run_id = new_id()
        key = next((k for k in map(run_key, tasks) if k), None)
        subject = f"{name} (--run-key {key})" if key and token and key != token else name
        with self._cloud.transaction():
            scope = f"{job_id or 'submit'}/{token}"
            earlier = self._documents.get(TOKENS, scope) if token else None
            if earlier:
                self._cloud.ledger.record(
                    SERVICE, operation, subject, token, str(earlier["run_id"]), request, asked_by=caller,
                    first=earlier["entry"],
                )  # fmt: skip
                if self._documents.get(RUNS, str(earlier["run_id"])) is None:
                    raise invalid(f"The run {earlier['run_id']} with idempotency token {token!r} has been deleted.")
                return int(earlier["run_id"])
            entry = self._cloud.ledger.record(
                SERVICE, operation, subject, token or key, str(run_id), request, asked_by=caller
            )
            attempts = [_attempt(task, 0) for task in override(tasks, request)]
            run = {
                "run_id": run_id,
                "job_id": job_id or new_id(),
                "run_name": name,
                "run_type": "JOB_RUN" if job_id else "SUBMIT_RUN",
                "creator_user_name": caller,
                "start_time": now(),
                "end_time": None,
                "timeout_seconds": timeout,
                "job_parameters": parameters or {},
                "stop": None,
                "result": None,
                "message": "",
                "entry": entry,
                "tasks": attempts,
                **run_faults.fault_fields(),
            }
            self._documents.create(RUNS, str(run_id), run)
            for task in attempts:
                self._documents.create(TASK_RUNS, str(task["run_id"]), {"run_id": run_id})
            if token:
                self._documents.create(TOKENS, scope, {"run_id": run_id, "entry": entry})
        with self._lock:
            self._active.add(str(run_id))
        self._advance(str(run_id))
        return run_id

    def get(self, run_id: int) -> tuple[Run, Task | None]:
        """A run, and its task when the id belongs to an attempt of a task. Raises DatabricksError."""
        if run := self._documents.get(RUNS, str(run_id)):
            return run, None
        if parent := self._documents.get(TASK_RUNS, str(run_id)):
            run = self._documents.get(RUNS, str(parent["run_id"]))
            if run:
                return run, next(task for task in run["tasks"] if task["run_id"] == run_id)
        raise invalid(f"Run {run_id} does not exist.")

    def all(self) -> list[Run]:
        """Every run, newest first."""
        return [run for _, run in reversed(self._documents.list(RUNS))]

    def status(self, task: Task) -> Status | None:
        """The status of an attempt in the compute."""
        return self._compute.status(_compute_id(task))

    def logs(self, task: Task) -> str:
        """The output of an attempt so far."""
        return self._compute.output(_compute_id(task)).decode(errors="replace")

    def cancel(self, run_id: int) -> None:
        """End a run. A run that has ended is unchanged. Raises DatabricksError."""
        run, _ = self.get(run_id)
        self._stop(str(run["run_id"]), "CANCELED")

    def delete(self, run_id: int) -> None:
        """Delete a run that has ended. Raises DatabricksError."""
        run, _ = self.get(run_id)
        if run["end_time"] is None:
            raise invalid(f"Run {run_id} is not in a terminal state: only completed runs can be deleted.")
        with self._cloud.transaction():
            self._documents.delete(RUNS, str(run["run_id"]))
            for task in run["tasks"]:
                self._documents.delete(TASK_RUNS, str(task["run_id"]))
        for task in run["tasks"]:
            self._compute.delete(_compute_id(task))

    def advance_all(self) -> None:
        """Advance every active run as far as possible."""
        with self._lock:
            active = list(self._active)
        for name in active:
            self._advance(name)

    def _stop(self, name: str, result: str) -> None:
        def mark(run: Run) -> Run:
            return run if run["end_time"] or run["stop"] else {**run, "stop": result}

        self._documents.update(RUNS, name, mark)
        self._advance(name)

    def _advance(self, name: str) -> None:
        actions: list[Callable[[], None]] = []
        with self._cloud.transaction():
            run = self._documents.get(RUNS, name)
            if run is not None and run["end_time"] is None:
                before = repr(run)
                self._change(run, actions)
                if run.get("vanished"):
                    self._documents.delete(RUNS, name)
                elif repr(run) != before:
                    self._documents.put(RUNS, name, run)
        if run is None or run["end_time"] is not None:
            with self._lock:
                self._active.discard(name)
        for act in actions:  # after the commit; if the process dies here, the next call finds what is left to do
            act()

    def _change(self, run: Run, actions: list[Callable[[], None]]) -> None:
        """Change a run's document to its new state; `actions` receives what to do after the commit."""
        if run.get("fault"):
            self._apply_fault(run)
            return
        timeout = run["timeout_seconds"]
        if timeout and not run["stop"] and now() - run["start_time"] >= 1000 * timeout:
            run["stop"] = "TIMEDOUT"
        for task in latest(run):
            if task["state"] in (PENDING, RUNNING):
                self._follow(run, task, actions)
        for task in latest(run):
            if task["state"] == BLOCKED:
                self._unblock(run, task, actions)
        if all(task["state"] == TERMINATED for task in latest(run)):
            run["end_time"] = now()
            run["result"], run["message"] = outcome(run)
            error = next((task["error"] for task in latest(run) if task.get("error")), "")
            self._cloud.ledger.finish(run["entry"], run["result"], " ".join(filter(None, (run["message"], error))))

    def _apply_fault(self, run: Run) -> None:
        """Advance a run with a fault: it is in progress, then it is cancelled, fails or vanishes."""
        fault_state = run_faults.state(run)
        for task in latest(run):
            if run["stop"]:
                _end(task, run["stop"], stop_message(run))
            elif fault_state == "fails":
                _end(task, "FAILED", run_faults.MESSAGE)
            else:
                task["state"], task["start_time"] = RUNNING, task["start_time"] or now()
        if not run["stop"] and fault_state == "in progress":
            return
        run["end_time"] = now()
        run["vanished"] = fault_state == "vanishes" and not run["stop"]
        run["result"], run["message"] = ("VANISHED", "") if run["vanished"] else outcome(run)
        self._cloud.ledger.finish(run["entry"], run["result"], run["message"])

    def _follow(self, run: Run, task: Task, actions: list[Callable[[], None]]) -> None:
        """Advance a task that was submitted to the compute, or submit it."""
        status = self._compute.status(_compute_id(task))
        if status is None:
            if run["stop"]:
                _end(task, run["stop"], stop_message(run))
            elif now() >= task["not_before"]:
                variables = {"DATABRICKS_JOB_ID": str(run["job_id"]), "DATABRICKS_RUN_ID": str(task["run_id"])}
                task_work = work(task, run["job_parameters"], variables)
                actions.append(lambda: self._compute.submit(_compute_id(task), task_work))
            return
        if status.state == "ended":
            self._finish(run, task, status)
            return
        if status.state == "running" and task["state"] == PENDING:
            task["state"] = RUNNING
            task["start_time"] = int(1000 * (status.started_at or time.time()))
        if run["stop"]:
            reason: Literal["canceled", "timeout"] = "canceled" if run["stop"] == "CANCELED" else "timeout"
            actions.append(lambda: self._compute.stop(_compute_id(task), reason))

    def _finish(self, run: Run, task: Task, status: Status) -> None:
        if status.started_at and not task["start_time"]:
            task["start_time"] = int(1000 * status.started_at)
        task["error"] = status.error
        if status.succeeded:
            _end(task, "SUCCESS", "")
        elif status.reason == "canceled":
            _end(task, "CANCELED", "Run cancelled.")
        elif status.reason == "timeout":
            limit = run["timeout_seconds"] if run["stop"] == "TIMEDOUT" else task["timeout_seconds"]
            _end(task, "TIMEDOUT", f"Run timed out after {limit} seconds.")
        elif status.reason == "setup":
            _end(task, "FAILED", f"Library installation failed: {status.error}", "LIBRARY_INSTALLATION_ERROR")
        elif status.reason in ("lost", "killed"):
            task["error"] = status.error or "the run's process was ended from outside"
            _end(task, "FAILED", f"The driver stopped unexpectedly: {task['error']}", "DRIVER_ERROR")
        else:
            _end(task, "FAILED", FAILED_MESSAGE)
        retries = task["max_retries"]
        retry = task["result"] == "FAILED" or (task["result"] == "TIMEDOUT" and task.get("retry_on_timeout"))
        if retry and not run["stop"] and (retries == -1 or task["attempt_number"] < retries):
            attempt = _attempt(task, task["attempt_number"] + 1)
            attempt["state"] = PENDING
            attempt["not_before"] = now() + task["min_retry_interval_millis"]
            run["tasks"].append(attempt)
            self._documents.create(TASK_RUNS, str(attempt["run_id"]), {"run_id": run["run_id"]})

    def _unblock(self, run: Run, task: Task, actions: list[Callable[[], None]]) -> None:
        keys = {d["task_key"] for d in task["depends_on"]}
        dependencies = [other for other in latest(run) if other["task_key"] in keys]
        if run["stop"]:
            _end(task, run["stop"], stop_message(run))
        elif all(other["state"] == TERMINATED for other in dependencies):
            result = verdict(task["run_if"], [other["result"] for other in dependencies])
            if result is None:
                task["state"] = PENDING
                self._follow(run, task, actions)
            else:
                causes = ", ".join(other["task_key"] for other in dependencies if other["result"] != "SUCCESS")
                _end(
                    task, result, f"Not run: {task['run_if']} is not met by {causes or 'its dependencies'}.", "SKIPPED"
                )


def _attempt(task: Task, number: int) -> Task:
    initial = {
        "result": None,
        "message": "",
        "code": None,
        "error": "",
        "start_time": 0,
        "end_time": 0,
        "not_before": 0,
    }
    state = BLOCKED if task["depends_on"] else PENDING
    return {**task, **initial, "state": state, "run_id": new_id(), "attempt_number": number}


def _end(task: Task, result: str, message: str, code: str | None = None) -> None:
    task |= {"state": TERMINATED, "result": result, "message": message, "code": code, "end_time": now()}


def _compute_id(task: Task) -> str:
    return f"databricks-{task['run_id']}"
