"""Waiting for remote work without holding a worker: one trigger, one outcome, one way to fail.

Data Factory, Databricks, Azure ML and Power BI differ only in how a run is looked at and cancelled; what a
wait means is the same. The providers' own triggers are not used because they cancel the remote run
on any polling error (Data Factory), submit inside themselves (Power BI), or can fire before the scheduler
has seen the task defer, which makes Airflow retry a task that is running (apache/airflow #72716); they
can come back when all three are mended upstream.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from remote.responses import PATIENCE, pause_after, read_answer
from remote.runs import TIMED_OUT, VANISHED, RemoteRun, RemoteRunGone

if TYPE_CHECKING:
    pass

FIRST_LOOK = 2.0  # seconds: the scheduler drains the event of a deferring task in about one
LOOK_OFTEN = 1.0  # seconds between looks at first; grows by half each time
LOOK_SELDOM = 30.0  # seconds between looks at most
MISSED = 6  # looks in a row that find no such run: some twenty seconds, as a list may lag behind its service

_LETTING_GO: set[asyncio.Task[None]] = set()  # the loop itself keeps no task from being collected


class RemoteRunTrigger(BaseTrigger):
    """Looks at a remote run until it is done, or cancels it when its time is over.

    A look that fails, or a connection, is no news of the run: it is tried again, not before the service
    wants it, and never a reason to cancel. Safe in several triggerers at once: looking changes nothing.

    :param run_id: the service's id of the run
    :param conn_id: Connection to look through
    :param deadline: seconds since the epoch when the run has had its time
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
        """A client of the service; opened once for all looks, and closed."""

    @abstractmethod
    async def look(self, client: Any) -> RemoteRun:
        """Ask the service once how the run is. Raises RemoteRunGone, or what its client raises with a 404."""

    @abstractmethod
    async def cancel(self, client: Any) -> str:
        """Ask the service to stop the run; a run that is over is no error. Why it cannot be stopped, or ""."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(FIRST_LOOK)
        async with AsyncExitStack() as opened:
            yield TriggerEvent(asdict(await self._watch(opened)))

    async def _watch(self, opened: AsyncExitStack) -> RemoteRun:
        client: Any = None
        pause, failures, missed = LOOK_OFTEN, 0, 0
        while True:
            try:
                if client is None:
                    client = await opened.enter_async_context(self.connect())
                run = await self.look(client)
                if not run.done and time.time() > self.deadline:
                    return await self._end(client, run)
            except (AttributeError, NameError, TypeError):
                raise  # a mistake in this code is no outage of the service: fail at once
            except Exception as error:  # whatever a client raises: the run itself may be well
                failures += 1
                answer = read_answer(error)
                missed = missed + 1 if isinstance(error, RemoteRunGone) or (answer and answer.gone) else 0
                if missed >= MISSED:
                    return self._vanished()
                if failures >= PATIENCE:
                    raise
                if answer and answer.status == 401:  # a token taken back before its time: ask for another
                    await opened.aclose()
                    client = None
                self.log.warning(
                    "Looking at run %s failed (%s in a row): %s", self.run_id, failures, answer or repr(error)
                )
                await asyncio.sleep(pause_after(failures, answer.wait if answer else None))
            else:
                failures = missed = 0
                if run.done:
                    return run
                self.log.info("%s run %s is %s", run.service, run.run_id, run.state)
                await asyncio.sleep(pause)
                pause = min(LOOK_SELDOM, pause * 1.5)

    async def _end(self, client: Any, run: RemoteRun) -> RemoteRun:
        kept = await self.cancel(client)
        how = f"could not be cancelled ({kept})" if kept else "was cancelled"
        why = f"it was still {run.state} when its time was over, and {how}"
        return replace(run, done=True, state=TIMED_OUT, detail=why)

    def _vanished(self) -> RemoteRun:
        why = "the service knows it no longer, so how it ended cannot be known; the next try asks for the work anew"
        return RemoteRun(self.service, self.run_id, VANISHED, done=True, detail=why)

    async def on_kill(self) -> None:
        """A person cleared or marked the waiting task, or deleted its run: its remote run is wanted no longer.

        Airflow 3.3 calls this, too, when another triggerer has taken the trigger over; the task still waits then. And
        it cancels what it has called about every second until that has ended, while a token and a request to a cloud
        may take longer: so the work is a task of its own, which that does not reach.
        """
        work = asyncio.create_task(self._let_go())
        _LETTING_GO.add(work)
        work.add_done_callback(_LETTING_GO.discard)
        await asyncio.shield(work)

    async def _let_go(self) -> None:
        if await self._is_waited_for():
            self.log.info("Run %s is waited for by another triggerer: it goes on", self.run_id)
            return
        failures = 0
        while True:
            try:
                async with self.connect() as client:
                    if kept := await self.cancel(client):
                        self.log.warning("%s run %s goes on: %s", self.service, self.run_id, kept)
                    return
            except (AttributeError, NameError, TypeError):
                raise
            except Exception as error:
                failures += 1
                answer = read_answer(error)
                if answer is None or answer.refused or failures >= PATIENCE:
                    raise
                self.log.warning("Cancelling run %s failed (%s in a row): %s", self.run_id, failures, answer)
                await asyncio.sleep(pause_after(failures, answer.wait))

    async def _is_waited_for(self) -> bool:
        """Whether Airflow says that the task is deferred still."""
        ti = self.task_instance
        if ti is None:
            return False
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
        from asgiref.sync import sync_to_async

        told = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        return "deferred" in told.get(ti.run_id, {}).values()
