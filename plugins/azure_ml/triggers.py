"""Waiting for an Azure ML job without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from azure_ml.history import RunHistory
from azure_ml.hook import CANCELLED_WITHIN, SERVICE, make_client, seen
from remote.runs import RemoteRun
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

MOST_LINES = 200  # of a job's log told after one look: a task's log is no place for millions


class AzureMLJobTrigger(RemoteRunTrigger):
    """Looks at one job. The SDK is synchronous: each look takes a thread for its moment.

    :param follow_log: whether the task's log tells what the job prints, while it prints it; from the job's first line
        again when a triggerer is started anew
    """

    service = SERVICE

    def __init__(self, run_id: str, conn_id: str, deadline: float, follow_log: bool = True) -> None:
        super().__init__(run_id, conn_id, deadline)
        self.follow_log = follow_log
        self._history: RunHistory | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        path, arguments = super().serialize()
        return path, arguments | {"follow_log": self.follow_log}

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[MLClient]:  # type: ignore[override]
        from airflow.providers.common.compat.connection import get_async_connection

        yield await asyncio.to_thread(make_client, await get_async_connection(self.conn_id))

    async def look(self, client: MLClient) -> RemoteRun:
        run = seen(await asyncio.to_thread(client.jobs.get, self.run_id))
        if self.follow_log:
            await asyncio.to_thread(self._tell_news, client)
        return run

    def _tell_news(self, client: MLClient) -> None:
        """Put what the job has printed into the task's log. A log that cannot be read is no news of the job."""
        try:
            if self._history is None:
                self._history = RunHistory(client)
            lines = self._history.news(self.run_id)
        except Exception as error:  # noqa: BLE001 - whatever a client raises
            self.log.debug("The log of job %s cannot be read now: %r", self.run_id, error)
            return
        if len(lines) > MOST_LINES:
            self.log.info("[%s] … %s lines left out: see the job's page", self.run_id, len(lines) - MOST_LINES)
        for line in lines[-MOST_LINES:]:
            self.log.info("[%s] %s", self.run_id, line)

    async def cancel(self, client: MLClient) -> str:
        if not (await self.look(client)).done:
            poller = await asyncio.to_thread(client.jobs.begin_cancel, self.run_id)
            await asyncio.to_thread(poller.wait, CANCELLED_WITHIN)
        return ""
