"""Blob-created events on a storage queue as a wake-up for Airflow.

A message only says that something changed. What is new is found by comparing the listing with what was ingested, so a
lost or repeated message does no harm. The provider's MessageQueueTrigger supports Service Bus, not Storage queues; this
trigger can be removed when it does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

if TYPE_CHECKING:
    from azure.storage.queue.aio import QueueClient

IDLE_PAUSE = 1.0  # seconds between polls of an empty queue
HIDDEN = 60  # seconds that a message stays hidden while its event is stored; then it is delivered again
BATCH = 32  # Storage queues return at most 32 messages at once


def _subjects(messages: Sequence[Any]) -> list[str]:
    """The blobs that the events name. Event Grid sends events base64-encoded."""
    subjects = []
    for message in messages:
        try:
            event = json.loads(base64.b64decode(message.content, validate=True))
            subjects.append(str(event["subject"]))
        except (binascii.Error, ValueError, KeyError, TypeError):
            subjects.append("unreadable message")  # still a wake-up
    return subjects


class _Queue(SharedStreamProducer):
    """One batch of messages is one raw event. Its messages are deleted once Airflow has stored its asset events."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self.client: QueueClient | None = None

    async def _open(self) -> QueueClient:
        from airflow.providers.common.compat.connection import get_async_connection
        from azure.storage.queue.aio import QueueClient

        conn = await get_async_connection(self.conn_id)
        extra = json.loads(conn.extra or "{}")
        if conn.password:
            credential: Any = {"account_name": conn.login, "account_key": conn.password}
        else:
            from azure.identity.aio import DefaultAzureCredential

            credential = DefaultAzureCredential()
        return QueueClient(conn.host, extra["queue"], credential=credential)

    async def open_stream(self) -> AsyncIterator[tuple[Any, Any]]:
        self.client = await self._open()
        while True:
            batch = [
                message
                async for message in self.client.receive_messages(
                    max_messages=BATCH, messages_per_page=BATCH, visibility_timeout=HIDDEN
                )
            ]
            if batch:
                yield _subjects(batch), batch
            else:
                await asyncio.sleep(IDLE_PAUSE)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        assert self.client is not None
        for item in batch:
            if not item.outcome.is_clean:
                continue  # delivered again after HIDDEN seconds
            for message in item.broker_payload:
                with suppress(ResourceNotFoundError):  # it was delivered twice and is deleted already
                    await self.client.delete_message(message)

    async def aclose(self) -> None:
        if self.client:
            await self.client.close()


class StorageQueueTrigger(BaseEventTrigger):
    """Fires when a storage queue has messages. The payload lists the blobs that they name.

    :param conn_id: Connection with host = queue endpoint, login and password = account and key (neither:
        the machine's identity), extra `{"queue": name}`
    """

    def __init__(self, conn_id: str) -> None:
        super().__init__()
        self.conn_id = conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "mlops.services.storage_queue.StorageQueueTrigger", {"conn_id": self.conn_id}

    def shared_stream_key(self) -> Hashable:
        return ("storage-queue", self.conn_id)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        return _Queue(kwargs["conn_id"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        async for subjects in shared_stream:
            yield TriggerEvent({"blobs": subjects})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Required of every trigger; the triggerer drives the shared stream instead."""
        queue = _Queue(self.conn_id)
        try:
            async for subjects, _ in queue.open_stream():
                yield TriggerEvent({"blobs": subjects})
        finally:
            await queue.aclose()
