"""Waiting for an Azure ML job without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from azure_ml.history import RunHistory
from azure_ml.hook import CANCEL_TIMEOUT, SERVICE, make_client, run_of
from remote.runs import RemoteRun
from remote.triggers import RemoteRunTrigger

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

MAX_LINES = 200  # of a job's log per poll: the task's log must stay readable


class AzureMLJobTrigger(RemoteRunTrigger):
    """Polls one job. The SDK is synchronous: each poll runs in a thread.

    :param follow_log: copy the job's log into the task's log while the job runs; after a restart of the triggerer it
        starts from the job's first line again
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

    async def poll(self, client: MLClient) -> RemoteRun:
        run = run_of(await asyncio.to_thread(client.jobs.get, self.run_id))
        if self.follow_log:
            await asyncio.to_thread(self._log_new_lines, client)
        return run

    def _log_new_lines(self, client: MLClient) -> None:
        """Copy new lines into the task's log. An unreadable log says nothing about the job's state."""
        try:
            if self._history is None:
                self._history = RunHistory(client)
            lines = self._history.new_lines(self.run_id)
        except Exception as error:  # noqa: BLE001 - any client exception
            self.log.debug("Reading the log of job %s failed: %r", self.run_id, error)
            return
        if len(lines) > MAX_LINES:
            self.log.info("[%s] … %s lines omitted: see the job's page", self.run_id, len(lines) - MAX_LINES)
        for line in lines[-MAX_LINES:]:
            self.log.info("[%s] %s", self.run_id, line)

    async def cancel(self, client: MLClient) -> str:
        if not (await self.poll(client)).done:
            poller = await asyncio.to_thread(client.jobs.begin_cancel, self.run_id)
            await asyncio.to_thread(poller.wait, CANCEL_TIMEOUT)
        return ""
