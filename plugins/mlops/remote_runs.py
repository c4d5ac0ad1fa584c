"""Waiting for remote work without holding a worker: one trigger, one outcome, one way to fail.

Data Factory, Databricks and Azure ML differ only in how a run is looked at and cancelled; what a
wait means is the same. The providers' own triggers are not used because they cancel the remote run
on any polling error (Data Factory) or can fire before the scheduler has seen the task defer, which
makes Airflow retry a task that is running (apache/airflow #72716); they can come back when both are
mended upstream.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

FIRST_LOOK = 2.0  # seconds: the scheduler drains the event of a deferring task in about one
LOOK_OFTEN = 1.0  # seconds between looks at first; grows by half each time
LOOK_SELDOM = 30.0  # seconds between looks at most
PATIENCE = 20  # looks that may fail in a row: about eight minutes of a service being away

URL_KEY = "remote_run_url"


@dataclass(frozen=True)
class RemoteRun:
    """What one look at a remote run showed. `state` is the service's own word."""

    service: str
    run_id: str
    state: str
    done: bool = False
    succeeded: bool = False
    detail: str = ""
    url: str = ""

    @property
    def failed(self) -> bool:
        return self.done and not self.succeeded


class RemoteRunFailed(RuntimeError):  # noqa: N818 (it is said in sentences: raised because the run failed)
    """A remote run ended in another state than success. Airflow may try again."""

    def __init__(self, run: RemoteRun) -> None:
        detail = run.detail or "the service gave no detail"
        super().__init__(f"{run.service} run {run.run_id} ended {run.state}: {detail}. Look at: {run.url}")


class RemoteRunRefused(AirflowFailException):
    """The stage itself refused its input: the same again would be refused again, so no retry."""


class RemoteRunLink(BaseOperatorLink):
    """The page of the remote run, on the service's own site."""

    name = "Remote run"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002 (Airflow's)
        from airflow.sdk.execution_time.xcom import XCom

        return XCom.get_value(key=URL_KEY, ti_key=ti_key) or ""


def show_link(context: Context, run: RemoteRun) -> None:
    """Make the link work while the run is going, not only when Airflow stores links at the end."""
    ti = context["ti"]
    ti.xcom_push(key=URL_KEY, value=run.url)
    ti.xcom_push(key=RemoteRunLink().xcom_key, value=run.url)
    ti.xcom_push(key="remote_run_id", value=run.run_id)


def facts_of(log: str) -> dict[str, Any]:
    """The facts a stage printed: the last line of its log that is one JSON object; {} when there is none."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                facts = json.loads(line)
            except ValueError:
                continue
            if isinstance(facts, dict):
                return facts
    return {}


def succeed_or_raise(run: RemoteRun, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a run that succeeded; else the exception that says why it did not."""
    if run.succeeded:
        return facts
    if refused := facts.get("refused"):
        raise RemoteRunRefused(f"{refused} ({run.service} run {run.run_id}: {run.url})")
    raise RemoteRunFailed(run)


class RemoteRunTrigger(BaseTrigger):
    """Looks at a remote run until it is done, or cancels it when its time is over.

    A look that fails, or a connection, is no news of the run: it is tried again, and never a reason to
    cancel. Safe in several triggerers at once: looking changes nothing.

    :param run_id: the service's id of the run
    :param conn_id: Connection to look through
    :param deadline: seconds since the epoch when the run has had its time
    """

    def __init__(self, run_id: str, conn_id: str, deadline: float) -> None:
        super().__init__()
        self.run_id = run_id
        self.conn_id = conn_id
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {"run_id": self.run_id, "conn_id": self.conn_id, "deadline": self.deadline}

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[Any]:
        """A client of the service; opened once for all looks, and closed."""

    @abstractmethod
    async def look(self, client: Any) -> RemoteRun:
        """Ask the service once how the run is."""

    @abstractmethod
    async def cancel(self, client: Any) -> None:
        """Ask the service to stop the run; a run that is over is no error."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(FIRST_LOOK)
        async with AsyncExitStack() as opened:
            yield TriggerEvent(asdict(await self._watch(opened)))

    async def _watch(self, opened: AsyncExitStack) -> RemoteRun:
        client: Any = None
        pause, failures = LOOK_OFTEN, 0
        while True:
            try:
                if client is None:
                    client = await opened.enter_async_context(self.connect())
                run = await self.look(client)
                if not run.done and time.time() > self.deadline:
                    await self.cancel(client)
                    why = f"it was still {run.state} when its time was over, and was cancelled"
                    return replace(run, done=True, state="timed out", detail=why)
            except (AttributeError, NameError, TypeError):
                raise  # a mistake in this code is no outage of the service: fail at once
            except Exception as error:  # whatever a client raises: the run itself may be well
                failures += 1
                if failures >= PATIENCE:
                    raise
                self.log.warning("Looking at run %s failed (%s in a row): %r", self.run_id, failures, error)
            else:
                failures = 0
                if run.done:
                    return run
                self.log.info("%s run %s is %s", run.service, run.run_id, run.state)
            await asyncio.sleep(pause)
            pause = min(LOOK_SELDOM, pause * 1.5)

    async def on_kill(self) -> None:
        """A person cleared or marked the waiting task: its remote run is wanted no longer."""
        async with self.connect() as client:
            await self.cancel(client)
