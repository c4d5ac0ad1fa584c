"""Databricks runs: started once per token, moved on as their tasks end, taken up again after a restart.

A run's document says what was asked and what became of it. `_advance` is the only place that moves
a run on: it looks at the document and at the compute, and is called again and again, so a process
that dies between any two steps is no special case.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from standins.compute.pool import Compute, Status
from standins.core.cloud import Cloud
from standins.databricks.api import invalid
from standins.databricks.tasks import Task, override, run_key, work
from standins.faults import run_faults

Run = dict[str, Any]

RUNS, TASK_RUNS, TOKENS = "databricks.run", "databricks.task_run", "databricks.token"
SERVICE = "databricks"
FAILED_MESSAGE = "Workload failed, see run output for details"
MAX_TOKEN = 64

# The states of a task; the first three are those of one that is still to end.
BLOCKED, PENDING, RUNNING, TERMINATED = "BLOCKED", "PENDING", "RUNNING", "TERMINATED"
_NOT_RUN = ("UPSTREAM_FAILED", "UPSTREAM_CANCELED", "EXCLUDED")


def now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def new_id() -> int:
    """A number that nobody guesses and JavaScript can hold, as Databricks' own are."""
    return secrets.randbelow(9 * 10**14) + 10**14


def latest(run: Run) -> list[Task]:
    """The last attempt of every task, in the order in which they were given."""
    return list({task["task_key"]: task for task in run["tasks"]}.values())


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
        self, asked: dict[str, Any], *, operation: str, name: str, tasks: list[Task], timeout: int, caller: str,
        job_id: int | None = None, parameters: dict[str, str] | None = None,
    ) -> int:  # fmt: skip
        """A new run's id; the id of the run that was started with the same `idempotency_token` when there is one."""
        token = asked.get("idempotency_token") or None
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
                    SERVICE, operation, subject, token, str(earlier["run_id"]), asked, asked_by=caller,
                    first=earlier["entry"],
                )  # fmt: skip
                if self._documents.get(RUNS, str(earlier["run_id"])) is None:
                    raise invalid(f"The run {earlier['run_id']} with idempotency token {token!r} has been deleted.")
                return int(earlier["run_id"])
            entry = self._cloud.ledger.record(
                SERVICE, operation, subject, token or key, str(run_id), asked, asked_by=caller
            )
            attempts = [_attempt(task, 0) for task in override(tasks, asked)]
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
                **run_faults.noted(),
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
        """A run, and its task when the id is that of one task's attempt. Raises DatabricksError."""
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
        """What the compute knows about an attempt."""
        return self._compute.status(_compute_id(task))

    def logs(self, task: Task) -> str:
        """What an attempt has written so far."""
        return self._compute.output(_compute_id(task)).decode(errors="replace")

    def cancel(self, run_id: int) -> None:
        """End a run. One that has ended stays as it is. Raises DatabricksError."""
        run, _ = self.get(run_id)
        self._stop(str(run["run_id"]), "CANCELED")

    def delete(self, run_id: int) -> None:
        """Forget a run that has ended. Raises DatabricksError."""
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
        """Move every active run on as far as it can go now."""
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
                self._move(run, actions)
                if run.get("vanished"):
                    self._documents.delete(RUNS, name)
                elif repr(run) != before:
                    self._documents.put(RUNS, name, run)
        if run is None or run["end_time"] is not None:
            with self._lock:
                self._active.discard(name)
        for act in actions:  # after the commit; what is not done because the process dies is found again
            act()

    def _move(self, run: Run, actions: list[Callable[[], None]]) -> None:
        if run.get("fault"):
            self._meet_its_fate(run)
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

    def _meet_its_fate(self, run: Run) -> None:
        """Move a run on that does nothing: it is going on, then it is cancelled, fails or is gone."""
        fate = run_faults.state(run)
        for task in latest(run):
            if run["stop"]:
                _end(task, run["stop"], _stopped(run))
            elif fate == "fails":
                _end(task, "FAILED", run_faults.MESSAGE)
            else:
                task["state"], task["start_time"] = RUNNING, task["start_time"] or now()
        if not run["stop"] and fate == "in progress":
            return
        run["end_time"] = now()
        run["vanished"] = fate == "vanishes" and not run["stop"]
        run["result"], run["message"] = ("VANISHED", "") if run["vanished"] else outcome(run)
        self._cloud.ledger.finish(run["entry"], run["result"], run["message"])

    def _follow(self, run: Run, task: Task, actions: list[Callable[[], None]]) -> None:
        """Move a task on that was given to the compute, or is about to be."""
        status = self._compute.status(_compute_id(task))
        if status is None:
            if run["stop"]:
                _end(task, run["stop"], _stopped(run))
            elif now() >= task["not_before"]:
                variables = {"DATABRICKS_JOB_ID": str(run["job_id"]), "DATABRICKS_RUN_ID": str(task["run_id"])}
                wanted = work(task, run["job_parameters"], variables)
                actions.append(lambda: self._compute.submit(_compute_id(task), wanted))
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
        again = task["result"] == "FAILED" or (task["result"] == "TIMEDOUT" and task.get("retry_on_timeout"))
        if again and not run["stop"] and (retries == -1 or task["attempt_number"] < retries):
            attempt = _attempt(task, task["attempt_number"] + 1)
            attempt["state"] = PENDING
            attempt["not_before"] = now() + task["min_retry_interval_millis"]
            run["tasks"].append(attempt)
            self._documents.create(TASK_RUNS, str(attempt["run_id"]), {"run_id": run["run_id"]})

    def _unblock(self, run: Run, task: Task, actions: list[Callable[[], None]]) -> None:
        needed = {d["task_key"] for d in task["depends_on"]}
        above = [other for other in latest(run) if other["task_key"] in needed]
        if run["stop"]:
            _end(task, run["stop"], _stopped(run))
        elif all(other["state"] == TERMINATED for other in above):
            result = verdict(task["run_if"], [other["result"] for other in above])
            if result is None:
                task["state"] = PENDING
                self._follow(run, task, actions)
            else:
                causes = ", ".join(other["task_key"] for other in above if other["result"] != "SUCCESS")
                _end(
                    task, result, f"Not run: {task['run_if']} is not met by {causes or 'its dependencies'}.", "SKIPPED"
                )


def verdict(run_if: str, above: list[str]) -> str | None:
    """None when a task may run after dependencies with these results; else the result of a task that may not."""
    succeeded = [result == "SUCCESS" for result in above]
    failed = [result in ("FAILED", "TIMEDOUT", "CANCELED", "UPSTREAM_FAILED", "UPSTREAM_CANCELED") for result in above]
    runs = {
        "ALL_SUCCESS": all(result in ("SUCCESS", "EXCLUDED") for result in above) and (any(succeeded) or not above),
        "ALL_DONE": True,
        "NONE_FAILED": not any(failed) and (any(succeeded) or not above),
        "AT_LEAST_ONE_SUCCESS": any(succeeded),
        "AT_LEAST_ONE_FAILED": any(failed),
        "ALL_FAILED": bool(above) and all(failed),
    }[run_if]
    if runs:
        return None
    if run_if in ("AT_LEAST_ONE_FAILED", "ALL_FAILED") or not any(failed):
        return "EXCLUDED"
    canceled = all(result not in ("FAILED", "TIMEDOUT", "UPSTREAM_FAILED") for result in above)
    return "UPSTREAM_CANCELED" if canceled else "UPSTREAM_FAILED"


def outcome(run: Run) -> tuple[str, str]:
    """The result and the message of a run whose tasks have all ended. What the leaves say is what counts."""
    tasks = latest(run)
    needed = {d["task_key"] for task in tasks for d in task["depends_on"]}
    leaves = [task["result"] for task in tasks if task["task_key"] not in needed]
    bad = [task for task in tasks if task["result"] not in ("SUCCESS", *_NOT_RUN)]
    if not bad:
        return "SUCCESS", ""
    if all(result in ("SUCCESS", "EXCLUDED") for result in leaves):
        return "SUCCESS_WITH_FAILURES", f"Task {bad[0]['task_key']} failed; the tasks that end the run succeeded."
    if run["stop"]:
        return run["stop"], _stopped(run)
    worst = next((task for task in bad if task["result"] == "FAILED"), bad[0])
    message = f"Task {worst['task_key']} failed with message: {worst['message'].rstrip('.')}."
    if any(task["result"] in _NOT_RUN for task in tasks):
        message += " This caused all downstream tasks to get skipped."
    return worst["result"], message


def _stopped(run: Run) -> str:
    return "Run cancelled." if run["stop"] == "CANCELED" else f"Run timed out after {run['timeout_seconds']} seconds."


def _attempt(task: Task, number: int) -> Task:
    fresh = {"result": None, "message": "", "code": None, "error": "", "start_time": 0, "end_time": 0, "not_before": 0}
    state = BLOCKED if task["depends_on"] else PENDING
    return {**task, **fresh, "state": state, "run_id": new_id(), "attempt_number": number}


def _end(task: Task, result: str, message: str, code: str | None = None) -> None:
    task |= {"state": TERMINATED, "result": result, "message": message, "code": code, "end_time": now()}


def _compute_id(task: Task) -> str:
    return f"databricks-{task['run_id']}"
