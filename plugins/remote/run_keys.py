"""One remote effect per run key.

A run key identifies the work: Dag, task, partition and generation. It travels with every submission in the form that
the service allows (an idempotency token, a job's name, a pipeline parameter), and is looked up before each submission.
So a worker that dies between the submission and the response finds its run again and starts no second one.

The generation has two parts. Each Dag run, and each clear of the task in it by a person, is a new *epoch*: the work is
requested again. Within an epoch a retry uses the same key as long as that run may still succeed, and the next
generation only after the run has failed, or has vanished from its service.

What must outlive a try is kept in Airflow's task state store, which belongs to the Dag run: the keys of vanished runs,
and what an operator notes before it submits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from airflow.sdk import Context

MAX_LENGTH = 64  # Databricks' limit for an idempotency token, the tightest of the services

Run = TypeVar("Run")


def _clears(context: Context) -> int:
    """How many tries had been used when the task was last cleared; 0 when it never was.

    Airflow keeps `max_tries = tries used at the last clear + retries` (airflow.models.taskinstance,
    clear_task_instances), so the task itself can tell that it was cleared.
    """
    ti = context["ti"]
    return max(0, ti.max_tries - (ti.task.retries or 0))


def run_key(context: Context, generation: int = 1) -> str:
    """The key of this task's remote work: readable, at most 64 letters, digits, `_` and `-`.

    No dots: not every service allows them in names.
    """
    ti, dag_run = context["ti"], context["dag_run"]
    partition = dag_run.partition_key or "all"
    # Run ids are deterministic: a new metadata database has the same ids as the old one, whose work the services
    # still remember. The start date tells the runs apart. It stays the same until the run has ended and is cleared.
    began = dag_run.start_date.astimezone(UTC).isoformat()
    epoch = f"{ti.dag_id}|{ti.task_id}|{ti.map_index}|{dag_run.run_id}|{began}|{_clears(context)}"
    digest = hashlib.sha256(epoch.encode()).hexdigest()[:10]
    tail = f"-{digest}-g{generation}"
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", f"{ti.dag_id}-{ti.task_id}-{partition}")
    return readable[: MAX_LENGTH - len(tail)] + tail


def requester_of(context: Context) -> dict[str, str]:
    """The requesting run, and the person who triggered it (its Dag when a schedule or an asset did), for decision records."""
    dag_run = context["dag_run"]
    person = getattr(dag_run, "triggering_user_name", None)
    return {"run": f"{dag_run.dag_id}/{dag_run.run_id}", "by": person or dag_run.dag_id}


def tries_of(context: Context) -> int:
    """How many tries the task has started since it was last cleared, this one included."""
    return max(1, context["ti"].try_number - _clears(context))


def attach_or_submit(context: Context, find_or_submit: Callable[[str], Run], has_failed: Callable[[Run], bool]) -> Run:
    """The run that does this task's work: found by its key, or submitted.

    `find_or_submit(key)` must find the run with that key or start it. A retry skips the generations that
    failed. There are never more generations than tries, so Airflow's `retries` stays the limit.
    """
    tries = tries_of(context)
    for generation in range(1, tries):
        key = run_key(context, generation)
        if context["task_state_store"].get(_gone_note(key)):
            continue
        run = find_or_submit(key)
        if not has_failed(run):
            return run
    return find_or_submit(run_key(context, tries))


def forget(context: Context, key: str) -> None:
    """Record that the run with this key has vanished from its service: the next try uses the next key.

    The old key is not used again. Databricks refuses the token of a deleted run, and Azure ML the name of a deleted
    job. Should the vanished run still be running, its key tells it apart from the new one. Two runs at once do no
    harm: a stage replaces its whole partition, and Delta Lake lets one of two writers win.
    """
    context["task_state_store"].set(_gone_note(key), "vanished")


def _gone_note(key: str) -> str:
    return f"{key}/gone"
