"""What the operators of all remote services share: submit once, repeat failed requests, wait, report the outcome.

A subclass says how its run is found or submitted (`attach`), which trigger waits for it (`trigger`) and what its end
means (`finish`). This module decides what a failed request means during any of these steps:

- refused (bad credentials, a missing role, a wrong name): the task fails at once, without retries;
- told to wait (429, 503 with Retry-After): no request is sent before that time;
- anything else, including a lost response: the request is repeated after growing pauses, at most `MAX_FAILURES` times
  in a row, as in the trigger. That is safe because `attach` looks for the run before it submits it.

A long pause is waited for without a worker, and so is a run that does not end at once.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException

from remote.links import RemoteRunLink, show_link
from remote.responses import MAX_FAILURES, ErrorResponse, pause_after, read_response
from remote.run_keys import attach_or_submit, forget
from remote.runs import VANISHED, RemoteRun
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

MAX_SLEEP = 10.0  # seconds that a worker may sleep; deferring takes some seconds itself
# Seconds for which the worker itself polls a run. Deferring and starting a worker again takes as long (measured: 4.5 s,
# one of them CPU time). So a run that ends within this time is finished sooner, and any other costs at most twice.
WORKER_POLL_TIME = 5.0
WORKER_POLL_PAUSE = 0.5  # seconds between these polls
MAX_CANCELS = 3  # requests to cancel, before a worker that is being killed gives up


class RemoteCallRefused(AirflowFailException):
    """A service refused a request. Not retryable."""

    def __init__(self, service: str, response: ErrorResponse, needs: str) -> None:
        remedy = ""
        if response.status in (401, 403):
            remedy = f" Remedy: {needs}; then clear the task."
        super().__init__(f"{service} refused: {response}.{remedy}")


class RemoteRunOperator:
    """Mixin that implements `execute` and its continuations; it stands before the operator's other base class."""

    service: ClassVar[str]
    needs: ClassVar[str]  # the credentials and the role that the service demands: part of the error after a 401 or 403
    operator_extra_links: tuple[BaseOperatorLink, ...] = (RemoteRunLink(),)

    if TYPE_CHECKING:
        log: Any
        defer: Any

    run_key = ""  # of the attached run

    def execute(self, context: Context) -> Any:
        return self.go_on(context, step="begin")

    def execute_complete(self, context: Context, event: dict[str, Any], run_key: str = "") -> Any:
        """The wait is over. May be called twice (apache/airflow #72716): nothing here submits work."""
        return self.go_on(context, step="end", run=event, run_key=run_key)

    def go_on(self, context: Context, event: Any = None, *, step: str, failures: int = 0, **arguments: Any) -> Any:  # noqa: ARG002 (Airflow's)
        """Repeat a step until it succeeds, through transient failures."""
        while True:
            try:
                return getattr(self, step)(context, **arguments)
            except Exception as error:
                response = read_response(error)
                if response is None:
                    raise
                if response.refused:
                    raise RemoteCallRefused(self.service, response, self.needs) from error
                failures += 1
                if failures >= MAX_FAILURES:
                    raise
                pause = pause_after(failures, response.wait)
                why = f"{type(error).__name__}: {error}" if not response.status else str(response)
            self.log.warning(
                "%s: request failed (%s in a row), next try in %.0f s: %s", self.service, failures, pause, why
            )
            if pause > MAX_SLEEP:
                from airflow.providers.standard.triggers.temporal import DateTimeTrigger

                until = DateTimeTrigger(moment=datetime.now(UTC) + timedelta(seconds=pause))
                self.defer(trigger=until, method_name="go_on", kwargs={"step": step, "failures": failures, **arguments})
            time.sleep(pause)

    def on_kill(self) -> None:
        """A person cleared or marked the task while its worker was running. Airflow allows some seconds."""
        failures = 0
        while True:
            try:
                return self.cancel_run()
            except Exception as error:
                response = read_response(error)
                failures += 1
                if response is None or response.refused or failures >= MAX_CANCELS:
                    raise
                time.sleep(pause_after(failures, response.wait))

    def begin(self, context: Context) -> Any:
        run = self.attach(context)
        show_link(context, run)
        run = self._watch(run)
        if run.done:
            return self.finish(context, run)
        return self.defer(trigger=self.trigger(run), method_name="execute_complete", kwargs={"run_key": self.run_key})

    def end(self, context: Context, *, run: dict[str, Any], run_key: str) -> Any:
        ended = RemoteRun(**run)
        if not ended.url:
            ended = replace(ended, url=self.url(ended.run_id))
        if ended.state == VANISHED:
            forget(context, run_key)
        return self.finish(context, ended)

    def _watch(self, run: RemoteRun) -> RemoteRun:
        """The run after some seconds of polling. After a failed poll the trigger goes on, which needs no worker to wait."""
        until = time.monotonic() + WORKER_POLL_TIME
        while not run.done and time.monotonic() < until:
            try:
                latest = self.poll(run)
            except Exception as error:
                response = read_response(error)
                if response is None or response.wait:  # a bug, or a time that `go_on` waits for
                    raise
                return run
            if latest is None:
                return run
            run = latest if latest.url else replace(latest, url=run.url)
            if not run.done:
                time.sleep(WORKER_POLL_PAUSE)
        return run

    def poll(self, run: RemoteRun) -> RemoteRun | None:  # noqa: ARG002 (subclasses use it)
        """The run now. None for a service whose runs never end within seconds: the trigger waits from the start."""
        return None

    def attach(self, context: Context) -> RemoteRun:
        """The run that does this task's work."""
        return attach_or_submit(context, self._find_or_submit, lambda run: run.failed)

    def _find_or_submit(self, key: str) -> RemoteRun:
        self.run_key = key
        return self.find_or_submit(key)

    def find_or_submit(self, key: str) -> RemoteRun:
        """The run with that key, submitted when there is none. May be called again after any failure."""
        raise NotImplementedError

    @abstractmethod
    def trigger(self, run: RemoteRun) -> RemoteRunTrigger:
        """The trigger that waits for the run."""

    @abstractmethod
    def cancel_run(self) -> None:
        """Stop the run that was submitted or found, if there is one. A run that is over is no error."""

    @abstractmethod
    def finish(self, context: Context, run: RemoteRun) -> Any:
        """The task's result for a run that is over. Raises when it failed. May be called twice."""

    def url(self, run_id: str) -> str:  # noqa: ARG002 (subclasses use it)
        """The page of a run, where its address follows from its id."""
        return ""
