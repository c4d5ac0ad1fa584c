"""Runs triggers and deferring tasks as Airflow does."""

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
    """The trigger as another process builds it: from its class path and its arguments, stored as JSON."""
    path, kwargs = trigger.serialize()
    return import_string(path)(**json.loads(json.dumps(kwargs)))


def events_of(trigger: BaseTrigger, seconds: float = 60) -> list[TriggerEvent]:
    """All events of a trigger that runs in this process. Raises TimeoutError when it takes longer than `seconds`."""

    async def watch() -> list[TriggerEvent]:
        return [event async for event in trigger.run()]

    return asyncio.run(asyncio.wait_for(watch(), seconds))


def deferred_by(operator: Any, context: Any, begin: Callable[[], Any] | None = None) -> TaskDeferred:
    """The deferral of a task. Its worker does not poll the run itself, so the task defers even for the shortest run.

    `begin` resumes a task that has waited before. Fails when the task does not defer.
    """
    with patch.object(operator, "poll", lambda _run: None):  # of this operator only: tests do this in several threads
        try:
            result = (begin or partial(operator.execute, context))()
        except TaskDeferred as deferred:
            return deferred
    raise AssertionError(f"the task did not defer; it returned {result!r}")


class Triggerer:
    """The process of `tests.support.components.triggerer`, which runs the triggers of deferred tasks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def payloads(self, trigger: BaseTrigger) -> list[Any]:
        """The payloads of the trigger's events."""
        payloads: list[Any] = self._call(trigger, "run")
        return payloads

    def kill(self, trigger: BaseTrigger) -> None:
        """Do what Airflow does when a person clears or marks the waiting task."""
        self._call(trigger, "on_kill")

    def finish(self, deferred: TaskDeferred, make: Callable[[], Any], context: Any) -> Any:
        """The result of the task after its wait. A new operator resumes it, as in a new worker."""
        (payload,) = self.payloads(deferred.trigger)
        return getattr(make(), deferred.method_name)(context=context, event=payload, **(deferred.kwargs or {}))

    def run(self, make: Callable[[], Any], context: Any) -> Any:
        """One try of a task from start to end. `make` builds the operator, once for each worker."""
        try:
            return make().execute(context)
        except TaskDeferred as deferred:
            return self.finish(deferred, make, context)

    def _call(self, trigger: BaseTrigger, method: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([*trigger.serialize(), method]), file=self._process.stdin, flush=True)
        response = json.loads(self._process.stdout.readline())
        assert not (isinstance(response, dict) and "error" in response), response["error"]
        return response
