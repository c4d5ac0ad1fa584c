"""What the operators of all remote services have in common: ask once, be patient, wait, tell how it ended.

An operator says how its run is found or asked for (`attach`), which trigger waits for it (`trigger`) and what its
end means (`finish`). Here stands what a failed request means in the middle of any of these:

- refused (bad credentials, a role that is missing, a wrong name): the task fails at once, without retries;
- told to wait (429, 503 with Retry-After): never asked again before that;
- anything else, a lost reply among it: asked again after growing pauses, as long as a trigger would (`PATIENCE`).
  That is safe because `attach` looks for the run before it asks for it.

Pauses of more than some seconds are waited for without a worker, and so is a run that does not end at once.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException

from remote.links import RemoteRunLink, show_link
from remote.responses import PATIENCE, Answer, pause_after, read_answer
from remote.run_keys import attach_or_submit, forget
from remote.runs import VANISHED, RemoteRun
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

SHORT = 10.0  # seconds: a worker may sleep that long; deferring takes some seconds itself
# Seconds that a worker looks at a run itself. To hand the wait over and to start a worker again takes as long (measured:
# 4.5), and of the processor a second: a run that ends before is done with, and one that does not costs twice at most.
WORTH = 5.0
LOOKS = 0.5  # seconds between these looks
CANCELS = 3  # requests to cancel, before a worker that is being killed gives up


class RemoteCallRefused(AirflowFailException):
    """A service refused a request, and would refuse it again."""

    def __init__(self, service: str, answer: Answer, needs: str) -> None:
        remedy = ""
        if answer.status in (401, 403):
            remedy = f" Remedy: {needs}; then clear the task."
        super().__init__(f"{service} refused: {answer}.{remedy}")


class RemoteRunOperator:
    """Mixin, before an operator's own base: `execute` and what follows it."""

    service: ClassVar[str]
    needs: ClassVar[str]  # which credentials and role the service wants: told with a 401 or 403
    operator_extra_links: tuple[BaseOperatorLink, ...] = (RemoteRunLink(),)

    if TYPE_CHECKING:
        log: Any
        defer: Any

    run_key = ""  # of the run that is attached to

    def execute(self, context: Context) -> Any:
        return self.go_on(context, step="begin")

    def execute_complete(self, context: Context, event: dict[str, Any], run_key: str = "") -> Any:
        """The wait is over. May happen twice (apache/airflow #72716): nothing here asks for work."""
        return self.go_on(context, step="end", run=event, run_key=run_key)

    def go_on(self, context: Context, event: Any = None, *, step: str, failures: int = 0, **given: Any) -> Any:  # noqa: ARG002 (Airflow's)
        """Do a step until it is done, through failures that may pass."""
        while True:
            try:
                return getattr(self, step)(context, **given)
            except Exception as error:
                answer = read_answer(error)
                if answer is None:
                    raise
                if answer.refused:
                    raise RemoteCallRefused(self.service, answer, self.needs) from error
                failures += 1
                if failures >= PATIENCE:
                    raise
                pause = pause_after(failures, answer.wait)
                why = f"{type(error).__name__}: {error}" if not answer.status else str(answer)
            self.log.warning("%s (%s in a row): asking again in %.0f s: %s", self.service, failures, pause, why)
            if pause > SHORT:
                from airflow.providers.standard.triggers.temporal import DateTimeTrigger

                until = DateTimeTrigger(moment=datetime.now(UTC) + timedelta(seconds=pause))
                self.defer(trigger=until, method_name="go_on", kwargs={"step": step, "failures": failures, **given})
            time.sleep(pause)

    def on_kill(self) -> None:
        """A person cleared or marked the task while its worker was at it. Airflow gives it some seconds."""
        failures = 0
        while True:
            try:
                return self.cancel_run()
            except Exception as error:
                answer = read_answer(error)
                failures += 1
                if answer is None or answer.refused or failures >= CANCELS:
                    raise
                time.sleep(pause_after(failures, answer.wait))

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
        """The run, looked at for a moment. Looks that fail are the trigger's, which is patient without a worker."""
        until = time.monotonic() + WORTH
        while not run.done and time.monotonic() < until:
            try:
                seen = self.look(run)
            except Exception as error:
                answer = read_answer(error)
                if answer is None or answer.wait:  # a mistake of ours, or a time that `go_on` waits for
                    raise
                return run
            if seen is None:
                return run
            run = seen if seen.url else replace(seen, url=run.url)
            if not run.done:
                time.sleep(LOOKS)
        return run

    def look(self, run: RemoteRun) -> RemoteRun | None:  # noqa: ARG002 (for those that do)
        """How the run is now; None where none ends within seconds, so that the wait begins at once."""
        return None

    def attach(self, context: Context) -> RemoteRun:
        """The run that does this task's work."""
        return attach_or_submit(context, self._ask, lambda run: run.failed)

    def _ask(self, key: str) -> RemoteRun:
        self.run_key = key
        return self.find_or_submit(key)

    def find_or_submit(self, key: str) -> RemoteRun:
        """The run with that key, asked for when there is none. May be called again after any failure."""
        raise NotImplementedError

    @abstractmethod
    def trigger(self, run: RemoteRun) -> RemoteRunTrigger:
        """What waits for the run."""

    @abstractmethod
    def cancel_run(self) -> None:
        """Stop the run that was asked for or found, if there is one; one that is over is no error."""

    @abstractmethod
    def finish(self, context: Context, run: RemoteRun) -> Any:
        """What a run that is over means for the task. May be called twice."""

    def url(self, run_id: str) -> str:  # noqa: ARG002 (for those who can)
        """The page of a run, where it can be told from its id."""
        return ""
