"""Waiting for an Azure ML job without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from azure_ml.hook import CANCELLED_WITHIN, SERVICE, make_client, seen
from mlops.remote_runs import RemoteRun, RemoteRunTrigger

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


class AzureMLJobTrigger(RemoteRunTrigger):
    """Looks at one job. The SDK is synchronous: each look takes a thread for its moment."""

    service = SERVICE

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[MLClient]:  # type: ignore[override]
        from airflow.providers.common.compat.connection import get_async_connection

        yield await asyncio.to_thread(make_client, await get_async_connection(self.conn_id))

    async def look(self, client: MLClient) -> RemoteRun:
        return seen(await asyncio.to_thread(client.jobs.get, self.run_id))

    async def cancel(self, client: MLClient) -> str:
        if not (await self.look(client)).done:
            poller = await asyncio.to_thread(client.jobs.begin_cancel, self.run_id)
            await asyncio.to_thread(poller.wait, CANCELLED_WITHIN)
        return ""
