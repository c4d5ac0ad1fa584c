"""States and results of tasks and runs: no I/O."""

from __future__ import annotations

from typing import Any

from standins.databricks.tasks import Task

Run = dict[str, Any]

# The states of a task; all but TERMINATED are those of a task that has not ended.
BLOCKED, PENDING, RUNNING, TERMINATED = "BLOCKED", "PENDING", "RUNNING", "TERMINATED"
_NOT_RUN = ("UPSTREAM_FAILED", "UPSTREAM_CANCELED", "EXCLUDED")


def latest(run: Run) -> list[Task]:
    """The last attempt of every task, in the order of the request."""
    return list({task["task_key"]: task for task in run["tasks"]}.values())


def verdict(run_if: str, dependencies: list[str]) -> str | None:
    """The result of a task that must not run after dependencies with these results; None when it may run."""
    succeeded = [result == "SUCCESS" for result in dependencies]
    failed = [
        result in ("FAILED", "TIMEDOUT", "CANCELED", "UPSTREAM_FAILED", "UPSTREAM_CANCELED") for result in dependencies
    ]
    runs = {
        "ALL_SUCCESS": all(result in ("SUCCESS", "EXCLUDED") for result in dependencies)
        and (any(succeeded) or not dependencies),
        "ALL_DONE": True,
        "NONE_FAILED": not any(failed) and (any(succeeded) or not dependencies),
        "AT_LEAST_ONE_SUCCESS": any(succeeded),
        "AT_LEAST_ONE_FAILED": any(failed),
        "ALL_FAILED": bool(dependencies) and all(failed),
    }[run_if]
    if runs:
        return None
    if run_if in ("AT_LEAST_ONE_FAILED", "ALL_FAILED") or not any(failed):
        return "EXCLUDED"
    canceled = all(result not in ("FAILED", "TIMEDOUT", "UPSTREAM_FAILED") for result in dependencies)
    return "UPSTREAM_CANCELED" if canceled else "UPSTREAM_FAILED"


def outcome(run: Run) -> tuple[str, str]:
    """Result and message of a run whose tasks have all ended. The tasks that no other depends on decide."""
    tasks = latest(run)
    needed = {d["task_key"] for task in tasks for d in task["depends_on"]}
    leaves = [task["result"] for task in tasks if task["task_key"] not in needed]
    bad = [task for task in tasks if task["result"] not in ("SUCCESS", *_NOT_RUN)]
    if not bad:
        return "SUCCESS", ""
    if all(result in ("SUCCESS", "EXCLUDED") for result in leaves):
        return "SUCCESS_WITH_FAILURES", f"Task {bad[0]['task_key']} failed; the tasks that end the run succeeded."
    if run["stop"]:
        return run["stop"], stop_message(run)
    worst = next((task for task in bad if task["result"] == "FAILED"), bad[0])
    message = f"Task {worst['task_key']} failed with message: {worst['message'].rstrip('.')}."
    if any(task["result"] in _NOT_RUN for task in tasks):
        message += " This caused all downstream tasks to get skipped."
    return worst["result"], message


def stop_message(run: Run) -> str:
    """The message of a run that was cancelled or timed out."""
    return "Run cancelled." if run["stop"] == "CANCELED" else f"Run timed out after {run['timeout_seconds']} seconds."
