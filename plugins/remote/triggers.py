"""Waiting for remote work without a worker: one trigger, one outcome, one way to fail.

Data Factory, Databricks, Azure ML and Power BI differ only in how a run is polled and cancelled; what a wait means is
the same. The providers' own triggers are not used because they cancel the remote run on any polling error (Data
Factory), submit inside themselves (Power BI), or can fire before the scheduler has seen the task defer, which makes
Airflow retry a task that is running (apache/airflow #72716). They can be used again when all three are fixed upstream.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, replace
from typing import Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from remote.responses import MAX_FAILURES, pause_after, read_response
from remote.runs import TIMED_OUT, VANISHED, RemoteRun, RemoteRunGone

FIRST_POLL = 2.0  # seconds until the first poll: the scheduler needs about one to record that the task defers
MIN_POLL_PAUSE = 1.0  # seconds between the first two polls; grows by half each time
MAX_POLL_PAUSE = 30.0  # seconds between two polls
MAX_MISSES = 6  # polls in a row that find no such run: some twenty seconds, as a list may lag behind its service

_CANCELLATIONS: set[asyncio.Task[None]] = set()  # the event loop's own references are weak: these keep tasks alive


class RemoteRunTrigger(BaseTrigger):
    """Polls a remote run until it is done, and cancels it after its deadline.

    A failed poll or connection says nothing about the run: it is repeated, not earlier than the service allows, and is
    never a reason to cancel. Safe in several triggerers at once: a poll changes nothing.

    :param run_id: the service's id of the run
    :param conn_id: Connection of the service
    :param deadline: the run's deadline, in seconds since the epoch
    """

    service: ClassVar[str]

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
        """A client of the service; opened once for all polls, and closed at the end."""

    @abstractmethod
    async def poll(self, client: Any) -> RemoteRun:
        """Poll the run once. Raises RemoteRunGone or the client's own 404 when the service does not know it."""

    @abstractmethod
    async def cancel(self, client: Any) -> str:
        """Cancel the run; one that is over is no error. Returns the reason why it cannot be cancelled, or ""."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(FIRST_POLL)
        async with AsyncExitStack() as opened:
            yield TriggerEvent(asdict(await self._watch(opened)))

    async def _watch(self, opened: AsyncExitStack) -> RemoteRun:
        client: Any = None
        pause, failures, misses = MIN_POLL_PAUSE, 0, 0
        while True:
            try:
                if client is None:
                    client = await opened.enter_async_context(self.connect())
                run = await self.poll(client)
                if not run.done and time.time() > self.deadline:
                    return await self._end(client, run)
            except (AttributeError, NameError, TypeError):
                raise  # a bug in this code is no outage of the service: fail at once
            except Exception as error:  # any client exception: the run itself may be fine
                failures += 1
                response = read_response(error)
                misses = misses + 1 if isinstance(error, RemoteRunGone) or (response and response.gone) else 0
                if misses >= MAX_MISSES:
                    return self._vanished()
                if failures >= MAX_FAILURES:
                    raise
                if response and response.status == 401:  # a token revoked early: get a new one
                    await opened.aclose()
                    client = None
                self.log.warning(
                    "Polling run %s failed (%s in a row): %s", self.run_id, failures, response or repr(error)
                )
                await asyncio.sleep(pause_after(failures, response.wait if response else None))
            else:
                failures = misses = 0
                if run.done:
                    return run
                self.log.info("%s run %s is %s", run.service, run.run_id, run.state)
                await asyncio.sleep(pause)
                pause = min(MAX_POLL_PAUSE, pause * 1.5)

    async def _end(self, client: Any, run: RemoteRun) -> RemoteRun:
        obstacle = await self.cancel(client)
        outcome = f"could not be cancelled ({obstacle})" if obstacle else "was cancelled"
        why = f"it was still {run.state} at its deadline, and {outcome}"
        return replace(run, done=True, state=TIMED_OUT, detail=why)

    def _vanished(self) -> RemoteRun:
        why = "the service no longer knows it, so its outcome is unknown; the next try submits the work again"
        return RemoteRun(self.service, self.run_id, VANISHED, done=True, detail=why)

    async def on_kill(self) -> None:
        """Cancel the remote run: a person cleared or marked the waiting task, or deleted its Dag run.

        Airflow 3.3 also calls this when another triggerer has taken over the trigger; the task still waits then. And
        until this call returns, Airflow cancels it about every second, while a token and a request to a cloud may
        take longer. So the work is an asyncio task of its own, which these cancellations do not reach.
        """
        work = asyncio.create_task(self._cancel_unless_awaited())
        _CANCELLATIONS.add(work)
        work.add_done_callback(_CANCELLATIONS.discard)
        await asyncio.shield(work)

    async def _cancel_unless_awaited(self) -> None:
        if await self._is_awaited():
            self.log.info("Run %s is awaited by another triggerer: not cancelled", self.run_id)
            return
        failures = 0
        while True:
            try:
                async with self.connect() as client:
                    if obstacle := await self.cancel(client):
                        self.log.warning("%s run %s continues: %s", self.service, self.run_id, obstacle)
                    return
            except (AttributeError, NameError, TypeError):
                raise
            except Exception as error:
                failures += 1
                response = read_response(error)
                if response is None or response.refused or failures >= MAX_FAILURES:
                    raise
                self.log.warning("Cancelling run %s failed (%s in a row): %s", self.run_id, failures, response)
                await asyncio.sleep(pause_after(failures, response.wait))

    async def _is_awaited(self) -> bool:
        """Whether the task is still deferred, as Airflow knows it."""
        ti = self.task_instance
        if ti is None:
            return False
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
        from asgiref.sync import sync_to_async

        states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        return "deferred" in states.get(ti.run_id, {}).values()
