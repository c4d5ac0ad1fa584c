"""The tasks of a Databricks run: checked, brought into one form, and converted to work for the compute."""

from __future__ import annotations

import re
from typing import Any

from standins.compute.work import Work
from standins.databricks.api import invalid, not_implemented, number

Task = dict[str, Any]

RUNTIME = "17.3"  # DATABRICKS_RUNTIME_VERSION in the environment of a task
RUN_IF = ("ALL_SUCCESS", "ALL_DONE", "NONE_FAILED", "AT_LEAST_ONE_SUCCESS", "AT_LEAST_ONE_FAILED", "ALL_FAILED")

_SUPPORTED = ("python_wheel_task", "spark_python_task")
_CLUSTERS = ("existing_cluster_id", "new_cluster", "job_cluster_key", "environment_key")
_LEGACY = (
    "libraries", "email_notifications", "webhook_notifications", "notification_settings", "max_retries",
    "min_retry_interval_millis", "retry_on_timeout",
)  # fmt: skip
_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
_REFERENCE = re.compile(r"\{\{\s*job\.parameters\.([A-Za-z0-9_.-]+)\s*\}\}")


def wrap(settings: dict[str, Any]) -> dict[str, Any]:
    """Job settings with their work in `tasks`: a single task at the top level, the older form, is moved there."""
    kinds = [name for name in settings if name.endswith("_task")]
    if settings.get("tasks") or not kinds:
        return settings
    moved = {*kinds, *_CLUSTERS, *_LEGACY}
    task = {name: value for name, value in settings.items() if name in moved}
    rest = {name: value for name, value in settings.items() if name not in moved}
    return {**rest, "tasks": [{"task_key": "main", **task}]}


def check(settings: dict[str, Any], clusters: set[str]) -> list[Task]:
    """The checked tasks of a run or job, with numbers as integers and with defaults. Raises DatabricksError."""
    tasks = settings.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise invalid("At least one task must be specified in `tasks`.")
    if len(tasks) > 100:
        raise invalid(f"A run may have 100 tasks; {len(tasks)} were given.")
    job_clusters = {c.get("job_cluster_key") for c in settings.get("job_clusters") or []}
    environments = {e.get("environment_key"): e.get("spec") or {} for e in settings.get("environments") or []}
    checked = [_check_task(task, clusters, job_clusters, environments) for task in tasks]
    keys = [task["task_key"] for task in checked]
    for key in keys:
        if keys.count(key) > 1:
            raise invalid(f"Task key {key!r} is used {keys.count(key)} times; it must be unique within the run.")
    _check_dependencies(checked)
    return checked


def _check_task(task: Any, clusters: set[str], job_clusters: set[Any], environments: dict[Any, dict[str, Any]]) -> Task:
    if not isinstance(task, dict):
        raise invalid(f"A task must be an object; found {task!r}.")
    key = task.get("task_key")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise invalid(f"task_key {key!r}: 1 to 100 letters, digits, '_' and '-' are needed.")
    kinds = [name for name in task if name.endswith("_task")]
    if len(kinds) != 1:
        raise invalid(f"Task {key!r}: exactly one task type must be given; found {', '.join(kinds) or 'none'}.")
    if kinds[0] not in _SUPPORTED:
        raise not_implemented(f"Task {key!r}: {kinds[0]}")
    where = [name for name in _CLUSTERS if task.get(name)]
    if len(where) != 1:
        raise invalid(
            f"Task {key!r}: one of existing_cluster_id, new_cluster, job_cluster_key and environment_key must be "
            f"given; found {', '.join(where) or 'none'}."
        )
    if where[0] == "existing_cluster_id" and task[where[0]] not in clusters:
        raise invalid(f"Cluster {task[where[0]]} does not exist")
    if where[0] == "job_cluster_key" and task[where[0]] not in job_clusters:
        raise invalid(f"Task {key!r}: job cluster {task[where[0]]!r} is not defined in `job_clusters`.")
    wheels = _wheels(key, task.get("libraries") or [])
    if where[0] == "environment_key":
        if task[where[0]] not in environments:
            raise invalid(f"Task {key!r}: environment {task[where[0]]!r} is not defined in `environments`.")
        dependencies = environments[task[where[0]]].get("dependencies") or []
        wheels += _wheels(key, [{"whl" if str(d).endswith(".whl") else "pypi": d} for d in dependencies])
    run_if = task.get("run_if") or "ALL_SUCCESS"
    if run_if not in RUN_IF:
        raise invalid(f"Task {key!r}: run_if {run_if!r}; one of {', '.join(RUN_IF)} is needed.")
    _check_kind(key, kinds[0], task[kinds[0]])
    return {
        **task,
        "run_if": run_if,
        "depends_on": [dict(d) for d in task.get("depends_on") or []],
        "timeout_seconds": number(task, "timeout_seconds", 0),
        "max_retries": number(task, "max_retries", 0),
        "min_retry_interval_millis": number(task, "min_retry_interval_millis", 0),
        "wheels": wheels,
    }


def _wheels(key: str, libraries: list[Any]) -> list[str]:
    for library in libraries:
        if not isinstance(library, dict) or set(library) != {"whl"}:
            raise not_implemented(f"Task {key!r}: library {library!r}; only {{'whl': …}}")
    return [library["whl"] for library in libraries]


def _check_kind(key: str, kind: str, content: Any) -> None:
    if not isinstance(content, dict):
        raise invalid(f"Task {key!r}: {kind} must be an object.")
    required = ("package_name", "entry_point") if kind == "python_wheel_task" else ("python_file",)
    for name in required:
        if not isinstance(content.get(name), str) or not content[name]:
            raise invalid(f"Task {key!r}: {kind} needs {name}.")
    if content.get("parameters") and content.get("named_parameters"):
        raise invalid(f"Task {key!r}: parameters and named_parameters exclude each other.")
    if content.get("source") == "GIT":
        raise not_implemented(f"Task {key!r}: a python_file with source GIT")


def _check_dependencies(tasks: list[Task]) -> None:
    depends = {task["task_key"]: {d.get("task_key") for d in task["depends_on"]} for task in tasks}
    for key, needed in depends.items():
        for missing in needed - depends.keys():
            raise invalid(f"Task {key!r} depends on {missing!r}, which is no task of this run.")
    left = dict(depends)
    while free := [key for key, needed in left.items() if not needed & left.keys()]:
        for key in free:
            del left[key]
    if left:
        raise invalid(f"The dependencies of the tasks {', '.join(sorted(left))} form a circle.")


def override(tasks: list[Task], request: dict[str, Any]) -> list[Task]:
    """The tasks of a job, with the parameters of a `run-now` request in place of their own."""
    changed = []
    for task in tasks:
        kind = next(name for name in _SUPPORTED if name in task)
        content = dict(task[kind])
        if request.get("python_params"):
            content.pop("named_parameters", None)
            content["parameters"] = request["python_params"]
        elif request.get("python_named_params") and kind == "python_wheel_task":
            content.pop("parameters", None)
            content["named_parameters"] = request["python_named_params"]
        changed.append({**task, kind: content})
    return changed


def run_key(task: Task) -> str | None:
    """The value of `--run-key` in a task's parameters."""
    content = next(task[name] for name in _SUPPORTED if name in task)
    named: dict[str, Any] = content.get("named_parameters") or {}
    words = [str(word) for word in content.get("parameters") or []] + [f"--{k}={v}" for k, v in named.items()]
    for position, word in enumerate(words):
        if word.startswith("--run-key="):
            return word.partition("=")[2]
        if word == "--run-key" and position + 1 < len(words):
            return words[position + 1]
    return None


def work(task: Task, parameters: dict[str, str], variables: dict[str, str]) -> Work:
    """The work of a task for the compute; `parameters` are the job's, for `{{job.parameters.name}}`."""

    def fill(value: Any) -> str:
        return _REFERENCE.sub(lambda match: parameters.get(match[1], match[0]), str(value))

    environment = {"DATABRICKS_RUNTIME_VERSION": RUNTIME, **variables}
    timeout = float(task["timeout_seconds"])
    wheels = tuple(task["wheels"])
    if content := task.get("python_wheel_task"):
        words = [fill(word) for word in content.get("parameters") or []]
        words += [f"--{name}={fill(value)}" for name, value in (content.get("named_parameters") or {}).items()]
        return Work(
            "wheel", content["package_name"], content["entry_point"], tuple(words), environment, wheels, timeout=timeout
        )
    content = task["spark_python_task"]
    words = [fill(word) for word in content.get("parameters") or []]
    uri: str = content["python_file"]
    if uri.startswith(("/", "file:")):
        path, downloads = "/" + uri.removeprefix("file:").lstrip("/"), ()
    else:
        path = f"script/{uri.rpartition('/')[2]}"
        downloads = ((uri, path),)  # type: ignore[assignment]
    return Work(
        "python_file", path, arguments=tuple(words), environment=environment, wheels=wheels, downloads=downloads,
        timeout=timeout,
    )  # fmt: skip
