"""Event Grid: sends an event to a storage queue for every blob that is created in the landing container.

The schema is that of the service (https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage), in base64.
Delivery is at least once: an event is recorded as sent after the queue has accepted it, and an event that is sent
again has the same id.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobProperties
from azure.storage.queue import QueueClient
from fastapi import APIRouter

from standins.core import storage
from standins.core.cloud import Cloud, Settings

log = logging.getLogger(__name__)

SENT = "event_grid.seen"
_SECONDS = 1.0  # between two listings of the container
_PAUSE_FACTOR = 10  # the pause after a listing is ten times its duration: listing takes a tenth of the time at most
_BATCH = 50  # events that are sent before they are recorded as sent
_GROUP = "local"


def routes(_: Cloud) -> APIRouter:
    """No routes: the service only sends events to the queue."""
    return APIRouter()


def start(cloud: Cloud) -> None:
    """Start to watch the landing container."""
    watcher = Watcher(cloud)
    cloud.every("Event Grid", _SECONDS, watcher.check)


class Watcher:
    """Compares the ETags of the container's blobs with those of the events that were sent."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._sent = {name: str(doc["etag"]) for name, doc in cloud.documents.list(SENT)}
        self._container = storage.container(cloud.settings, storage.LANDING)
        self._queue = storage.queue(cloud.settings, storage.LANDED_QUEUE)
        self._not_before = 0.0
        self._missing: str | None = None

    def check(self) -> None:
        """Send an event for every blob that is new or was rewritten. No effect without the container or the queue."""
        started = time.monotonic()
        if started < self._not_before:
            return
        try:
            # The queue first: without it there is no subscription, and no listing is needed.
            self._queue.get_queue_properties()
            blobs = {str(blob.name): blob for blob in self._container.list_blobs()}
        except ResourceNotFoundError as error:
            if self._missing != error.reason:
                log.info("no events yet: %s", error.reason)
            self._missing = error.reason
            return
        self._not_before = time.monotonic() + _PAUSE_FACTOR * (time.monotonic() - started)
        changed = [blob for name, blob in blobs.items() if self._sent.get(name) != _etag(blob)]
        for start in range(0, len(changed), _BATCH):
            if self._cloud.stopping.is_set():
                return
            self._send(self._queue, changed[start : start + _BATCH])
        self._forget(self._sent.keys() - blobs.keys())

    def _send(self, queue: QueueClient, blobs: list[BlobProperties]) -> None:
        for blob in blobs:
            event = json.dumps(blob_created(self._cloud.settings, storage.LANDING, blob))
            queue.send_message(b64encode(event.encode()).decode())
        with self._cloud.transaction():
            for blob in blobs:
                self._cloud.documents.put(SENT, str(blob.name), {"etag": _etag(blob)})
        self._sent |= {str(blob.name): _etag(blob) for blob in blobs}

    def _forget(self, names: Iterable[str]) -> None:
        """Remove deleted blobs from the record: when the same content is uploaded again, an event is sent again."""
        with self._cloud.transaction():
            for name in names:
                self._cloud.documents.delete(SENT, name)
        for name in list(names):
            del self._sent[name]


def blob_created(settings: Settings, container: str, blob: BlobProperties) -> dict[str, Any]:
    """A Microsoft.Storage.BlobCreated event. Its id is derived from blob and ETag."""
    written = (blob.last_modified or datetime.now(UTC)).astimezone(UTC)
    identity = f"{settings.storage_account}/{container}/{blob.name}/{_etag(blob)}"
    request = str(uuid.uuid5(uuid.NAMESPACE_URL, f"request/{identity}"))
    return {
        "topic": f"/subscriptions/{settings.subscription_id}/resourceGroups/{_GROUP}/providers/Microsoft.Storage/"
        f"storageAccounts/{settings.storage_account}",
        "subject": f"/blobServices/default/containers/{container}/blobs/{blob.name}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, identity)),
        "data": {
            "api": "PutBlob",
            "clientRequestId": request,
            "requestId": request,
            "eTag": _etag(blob),
            "contentType": blob.content_settings.content_type or "application/octet-stream",
            "contentLength": blob.size,
            "blobType": "BlockBlob",
            "url": f"{settings.blob_endpoint}/{container}/{blob.name}",
            "sequencer": f"{int(written.timestamp() * 1000):064X}",
            "storageDiagnostics": {"batchId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"batch/{identity}"))},
        },
        "dataVersion": "",
        "metadataVersion": "1",
        "eventTime": written.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }


def _etag(blob: BlobProperties) -> str:
    return str(blob.etag).strip('"')
