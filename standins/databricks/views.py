"""Responses of the Jobs API for runs, with the older `state` and the newer `status`."""

from __future__ import annotations

from typing import Any

from standins.databricks.results import BLOCKED, PENDING, RUNNING, TERMINATED, Run, latest
from standins.databricks.tasks import Task

MAX_LOGS = 5 * 1024 * 1024  # maximum bytes of output in get-output, from the end

_INTERNAL_FIELDS = {
    "state", "result", "message", "code", "error", "not_before", "wheels", "max_retries", "min_retry_interval_millis",
}  # fmt: skip
_CODES = {
    "SUCCESS": ("SUCCESS", "SUCCESS"),
    "SUCCESS_WITH_FAILURES": ("SUCCESS_WITH_FAILURES", "SUCCESS"),
    "CANCELED": ("USER_CANCELED", "SUCCESS"),
    "FAILED": ("RUN_EXECUTION_ERROR", "CLIENT_ERROR"),
    "TIMEDOUT": ("CANCELED", "CLIENT_ERROR"),
}


def run_view(run: Run, base_url: str, *, tasks: bool = True) -> dict[str, Any]:
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
        "run_page_url": page_url(run, base_url),
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
    if run["result"] == "FAILED":  # as the service shows a run with a failed task
        view["state"]["life_cycle_state"] = "INTERNAL_ERROR"
    if run["job_parameters"]:
        view["job_parameters"] = [{"name": k, "value": v} for k, v in run["job_parameters"].items()]
    if tasks:
        view["tasks"] = [task_view(run, task, base_url) for task in run["tasks"]]
    return view


def task_view(run: Run, task: Task, base_url: str) -> dict[str, Any]:
    """One attempt of a task, as in the `tasks` of its run."""
    view = {name: value for name, value in task.items() if name not in _INTERNAL_FIELDS}
    if not view["depends_on"]:
        del view["depends_on"]
    view["run_page_url"] = f"{page_url(run, base_url)}#{task['task_key']}"
    if cluster := task.get("existing_cluster_id"):
        view["cluster_instance"] = {"cluster_id": cluster}
    duration = max(0, task["end_time"] - task["start_time"]) if task["start_time"] else 0
    life = "TERMINATING" if run["stop"] and task["state"] in (PENDING, RUNNING) else task["state"]
    return view | {
        "setup_duration": 0,
        "execution_duration": duration,
        "cleanup_duration": 0,
        **_states(life, task["result"], task["message"], task["code"], task["state"] == TERMINATED),
    }


def task_run_view(run: Run, task: Task, base_url: str) -> dict[str, Any]:
    """`GET runs/get` of the run of a single task."""
    view = task_view(run, task, base_url)
    parent = run_view(run, base_url, tasks=False)
    own = {name: view[name] for name in ("run_id", "state", "status", "start_time", "end_time", "attempt_number",
                                          "setup_duration", "execution_duration", "cleanup_duration")}  # fmt: skip
    return (
        parent
        | own
        | {
            "original_attempt_run_id": task["run_id"],
            "job_run_id": run["run_id"],
            "run_name": task["task_key"],
            "run_page_url": view["run_page_url"],
            "tasks": [view],
        }
    )


def output_view(run: Run, task: Task, logs: str, error: str, trace: str, base_url: str) -> dict[str, Any]:
    """`GET runs/get-output` of a task."""
    content = logs.encode()
    view: dict[str, Any] = {
        "metadata": task_run_view(run, task, base_url),
        "logs": content[-MAX_LOGS:].decode(errors="ignore"),
        "logs_truncated": len(content) > MAX_LOGS,
    }
    if task["result"] not in (None, "SUCCESS"):
        view["error"] = error or task["message"]
        if trace:
            view["error_trace"] = trace
    return view


def page_url(run: Run, base_url: str) -> str:
    return f"{base_url}/jobs/{run['job_id']}/runs/{run['run_id']}"


def _life(run: Run) -> str:
    if run["end_time"] is not None:
        return TERMINATED
    if run["stop"]:
        return "TERMINATING"
    started = any(task["state"] in (RUNNING, TERMINATED) for task in latest(run))
    return RUNNING if started else PENDING


def _states(life: str, result: str | None, message: str, code: str | None, ended: bool) -> dict[str, Any]:
    """The state in both forms."""
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
