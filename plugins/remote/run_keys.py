"""One remote effect per run key.

A run key says what is to be done: Dag, task, partition and generation. It travels with every
submission in whatever form the service allows (an idempotency token, a job's name, a pipeline
parameter) and is looked up before asking, so a worker that dies between asking and noting the
answer down finds its run again instead of starting a second one.

The generation has two parts. Each Dag run, and each time a person clears the task in it, is a new
*epoch*: the work is wanted again. Within an epoch a retry asks for the same key as long as that run
may still succeed, and for the next generation only after it has failed, or vanished from its service.

What must outlive a try stands in Airflow's task state store, which belongs to the Dag run: a key whose run
has vanished, and what an operator notes before it asks.
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
    """How many tries had been used up when the task was last cleared; 0 when it never was.

    Airflow keeps `max_tries = tries used at the last clear + retries` (airflow.models.taskinstance,
    clear_task_instances), which makes the clear visible to the task itself.
    """
    ti = context["ti"]
    return max(0, ti.max_tries - (ti.task.retries or 0))


def run_key(context: Context, generation: int = 1) -> str:
    """The key of this task's remote work: readable, at most 64 letters, digits, `_` and `-`.

    No dots: the services whose names it becomes do not all take them.
    """
    ti, dag_run = context["ti"], context["dag_run"]
    partition = dag_run.partition_key or "all"
    # Run ids are deterministic: with its start, a run is another than its namesake in a database that is no more,
    # whose work the services still remember. It stays the same until the run has ended and is cleared.
    began = dag_run.start_date.astimezone(UTC).isoformat()
    epoch = f"{ti.dag_id}|{ti.task_id}|{ti.map_index}|{dag_run.run_id}|{began}|{_clears(context)}"
    digest = hashlib.sha256(epoch.encode()).hexdigest()[:10]
    tail = f"-{digest}-g{generation}"
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", f"{ti.dag_id}-{ti.task_id}-{partition}")
    return readable[: MAX_LENGTH - len(tail)] + tail


def asked_by(context: Context) -> dict[str, str]:
    """Which run asks, and who triggered it: kept with what is decided. Nobody did when a schedule or an asset started it."""
    dag_run = context["dag_run"]
    person = getattr(dag_run, "triggering_user_name", None)
    return {"run": f"{dag_run.dag_id}/{dag_run.run_id}", "by": person or dag_run.dag_id}


def tries_of(context: Context) -> int:
    """How many tries the task has begun since it was last cleared, this one included."""
    return max(1, context["ti"].try_number - _clears(context))


def attach_or_submit(context: Context, ask: Callable[[str], Run], has_failed: Callable[[Run], bool]) -> Run:
    """The run that does this task's work: found by its key, or asked for.

    `ask(key)` must find the run with that key or start it. A retry walks past the generations that
    failed; there are never more generations than tries, so Airflow's `retries` stays the limit.
    """
    tries = tries_of(context)
    for generation in range(1, tries):
        key = run_key(context, generation)
        if context["task_state_store"].get(_gone(key)):
            continue
        run = ask(key)
        if not has_failed(run):
            return run
    return ask(run_key(context, tries))


def forget(context: Context, key: str) -> None:
    """The run with this key has vanished from its service: the next try is to ask under the next key.

    The old key is not used again. Databricks refuses the token of a deleted run and Azure ML a deleted job's name;
    and should the run be going on unseen, the ledger of keys tells the two apart. Two at once do no harm: a stage
    replaces its whole partition, and Delta Lake lets one of two writers win.
    """
    context["task_state_store"].set(_gone(key), "vanished")


def _gone(key: str) -> str:
    return f"{key}/gone"
