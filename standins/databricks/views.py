"""Runs as the Jobs API shows them: with the older `state` and the newer `status`."""

from __future__ import annotations

from typing import Any

from standins.databricks.runs import BLOCKED, PENDING, RUNNING, TERMINATED, Run, latest
from standins.databricks.tasks import Task

MAX_LOGS = 5 * 1024 * 1024  # bytes of output that get-output gives at most: the last ones

_OURS = {
    "state", "result", "message", "code", "error", "not_before", "wheels", "max_retries", "min_retry_interval_millis",
}  # fmt: skip
_CODES = {
    "SUCCESS": ("SUCCESS", "SUCCESS"),
    "SUCCESS_WITH_FAILURES": ("SUCCESS_WITH_FAILURES", "SUCCESS"),
    "CANCELED": ("USER_CANCELED", "SUCCESS"),
    "FAILED": ("RUN_EXECUTION_ERROR", "CLIENT_ERROR"),
    "TIMEDOUT": ("CANCELED", "CLIENT_ERROR"),
}


def run_view(run: Run, site: str, *, tasks: bool = True) -> dict[str, Any]:
    """`GET runs/get` of a run."""
    ended = run["end_time"] is not None
    view = {
        "job_id": run["job_id"],
        "run_id": run["run_id"],
        "number_in_job": run["run_id"],
        "original_attempt_run_id": run["run_id"],
        "creator_user_name": run["creator_user_name"],
        "run_name": run["run_name"],
        "run_type": run["run_type"],
        "run_page_url": page_url(run, site),
        "trigger": "ONE_TIME",
        "format": "MULTI_TASK",
        "timeout_seconds": run["timeout_seconds"],
        "start_time": run["start_time"],
        "end_time": run["end_time"] or 0,
        "setup_duration": 0,
        "execution_duration": 0,
        "cleanup_duration": 0,
        "run_duration": (run["end_time"] or run["start_time"]) - run["start_time"],
        **_states(_life(run), run["result"], run["message"], None, ended),
    }
    if run["result"] == "FAILED":  # so the service shows a run of tasks of which one failed
        view["state"]["life_cycle_state"] = "INTERNAL_ERROR"
    if run["job_parameters"]:
        view["job_parameters"] = [{"name": k, "value": v} for k, v in run["job_parameters"].items()]
    if tasks:
        view["tasks"] = [task_view(run, task, site) for task in run["tasks"]]
    return view


def task_view(run: Run, task: Task, site: str) -> dict[str, Any]:
    """One attempt of a task, as it stands in its run's `tasks`."""
    given = {name: value for name, value in task.items() if name not in _OURS}
    if not given["depends_on"]:
        del given["depends_on"]
    given["run_page_url"] = f"{page_url(run, site)}#{task['task_key']}"
    if cluster := task.get("existing_cluster_id"):
        given["cluster_instance"] = {"cluster_id": cluster}
    duration = max(0, task["end_time"] - task["start_time"]) if task["start_time"] else 0
    life = "TERMINATING" if run["stop"] and task["state"] in (PENDING, RUNNING) else task["state"]
    return given | {
        "setup_duration": 0,
        "execution_duration": duration,
        "cleanup_duration": 0,
        **_states(life, task["result"], task["message"], task["code"], task["state"] == TERMINATED),
    }


def task_run_view(run: Run, task: Task, site: str) -> dict[str, Any]:
    """`GET runs/get` of the run of one task."""
    shown = task_view(run, task, site)
    parent = run_view(run, site, tasks=False)
    own = {name: shown[name] for name in ("run_id", "state", "status", "start_time", "end_time", "attempt_number",
                                          "setup_duration", "execution_duration", "cleanup_duration")}  # fmt: skip
    return (
        parent
        | own
        | {
            "original_attempt_run_id": task["run_id"],
            "job_run_id": run["run_id"],
            "run_name": task["task_key"],
            "run_page_url": shown["run_page_url"],
            "tasks": [shown],
        }
    )


def output_view(run: Run, task: Task, logs: str, error: str, trace: str, site: str) -> dict[str, Any]:
    """`GET runs/get-output` of one task."""
    content = logs.encode()
    view: dict[str, Any] = {
        "metadata": task_run_view(run, task, site),
        "logs": content[-MAX_LOGS:].decode(errors="ignore"),
        "logs_truncated": len(content) > MAX_LOGS,
    }
    if task["result"] not in (None, "SUCCESS"):
        view["error"] = error or task["message"]
        if trace:
            view["error_trace"] = trace
    return view


def page_url(run: Run, site: str) -> str:
    return f"{site}/jobs/{run['job_id']}/runs/{run['run_id']}"


def _life(run: Run) -> str:
    if run["end_time"] is not None:
        return TERMINATED
    if run["stop"]:
        return "TERMINATING"
    started = any(task["state"] in (RUNNING, TERMINATED) for task in latest(run))
    return RUNNING if started else PENDING


def _states(life: str, result: str | None, message: str, code: str | None, ended: bool) -> dict[str, Any]:
    """The same state in both forms."""
    state: dict[str, Any] = {
        "life_cycle_state": life,
        "state_message": message,
        "user_cancelled_or_timedout": result in ("CANCELED", "TIMEDOUT"),
    }
    if life == BLOCKED:
        state["state_message"] = "Waiting for the tasks that it depends on."
    status: dict[str, Any] = {"state": life}
    if ended and result is not None:
        state["result_state"] = result
        known, kind = _CODES.get(result, ("SKIPPED", "CLIENT_ERROR"))
        status["termination_details"] = {"code": code or known, "type": kind, "message": message}
    return {"state": state, "status": status}
