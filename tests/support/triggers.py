"""Triggers and deferring tasks, driven as Airflow does it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string
from airflow.triggers.base import BaseTrigger, TriggerEvent


def rebuilt(trigger: BaseTrigger) -> Any:
    """The trigger as another process makes it: from its class path and its arguments, which were stored as JSON."""
    path, kwargs = trigger.serialize()
    return import_string(path)(**json.loads(json.dumps(kwargs)))


def events_of(trigger: BaseTrigger, seconds: float = 60) -> list[TriggerEvent]:
    """Every event the trigger fires until it ends, in this process. Raises TimeoutError when that takes longer."""

    async def watch() -> list[TriggerEvent]:
        return [event async for event in trigger.run()]

    return asyncio.run(asyncio.wait_for(watch(), seconds))


def deferred_by(operator: Any, context: Any, begin: Callable[[], Any] | None = None) -> TaskDeferred:
    """What the task waits for: its worker does not look at the run itself, so it waits for the shortest run too.

    `begin` goes on with a task that has waited before. Fails when the task does not wait.
    """
    with patch.object(operator, "look", lambda _run: None):  # this one's alone: tests do this in several threads
        try:
            done = (begin or partial(operator.execute, context))()
        except TaskDeferred as deferred:
            return deferred
    raise AssertionError(f"the task was to wait, and returned {done!r}")


class Triggerer:
    """The process of `tests.support.triggerer`; tasks that defer wait in it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def payloads(self, trigger: BaseTrigger) -> list[Any]:
        """What the trigger's events say."""
        found: list[Any] = self._ask(trigger, "run")
        return found

    def kill(self, trigger: BaseTrigger) -> None:
        """What happens when a person clears or marks the task that waits."""
        self._ask(trigger, "on_kill")

    def finish(self, deferred: TaskDeferred, make: Callable[[], Any], context: Any) -> Any:
        """What the task returns when its wait is over; it is resumed as a worker does it, by an operator of its own."""
        (payload,) = self.payloads(deferred.trigger)
        return getattr(make(), deferred.method_name)(context=context, event=payload, **(deferred.kwargs or {}))

    def run(self, make: Callable[[], Any], context: Any) -> Any:
        """One try of a task from its start to its end; `make` parses the Dag, once for each worker."""
        try:
            return make().execute(context)
        except TaskDeferred as deferred:
            return self.finish(deferred, make, context)

    def _ask(self, trigger: BaseTrigger, what: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([*trigger.serialize(), what]), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        assert not (isinstance(answer, dict) and "error" in answer), answer["error"]
        return answer
