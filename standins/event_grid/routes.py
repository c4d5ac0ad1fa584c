"""Event Grid: tells a storage queue of every blob that is created in the landing container.

The schema is the service's own (https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage),
delivered in base64 as it does. At least once: an event is noted as sent after the queue has it,
and one that is sent again carries the same id.
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

SEEN = "event_grid.seen"
_SECONDS = 1.0  # between two looks at the container
_SHARE = 10  # a long listing is looked at less often: at most a tenth of the time goes into it
_BATCH = 50  # events sent before they are noted as sent
_GROUP = "local"


def routes(_: Cloud) -> APIRouter:
    """None: it speaks to the queue, nobody speaks to it."""
    return APIRouter()


def start(cloud: Cloud) -> None:
    watcher = Watcher(cloud)
    cloud.every("Event Grid", _SECONDS, watcher.look)


class Watcher:
    """Compares the container's blobs, by ETag, with those whose events were sent."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._seen = {name: str(doc["etag"]) for name, doc in cloud.documents.list(SEEN)}
        self._container = storage.container(cloud.settings, storage.LANDING)
        self._queue = storage.queue(cloud.settings, storage.LANDED_QUEUE)
        self._not_before = 0.0
        self._missing: str | None = None

    def look(self) -> None:
        """Send an event for every blob that is new or written again. Does nothing where there is no container or queue."""
        began = time.monotonic()
        if began < self._not_before:
            return
        try:
            # Asked first: without a queue there is no subscription, and nothing to list for.
            self._queue.get_queue_properties()
            there = {str(blob.name): blob for blob in self._container.list_blobs()}
        except ResourceNotFoundError as error:
            if self._missing != error.reason:
                log.info("no events yet: %s", error.reason)
            self._missing = error.reason
            return
        self._not_before = time.monotonic() + _SHARE * (time.monotonic() - began)
        fresh = [blob for name, blob in there.items() if self._seen.get(name) != _etag(blob)]
        for start in range(0, len(fresh), _BATCH):
            if self._cloud.stopping.is_set():
                return
            self._send(self._queue, fresh[start : start + _BATCH])
        self._forget(self._seen.keys() - there.keys())

    def _send(self, queue: QueueClient, blobs: list[BlobProperties]) -> None:
        for blob in blobs:
            event = json.dumps(blob_created(self._cloud.settings, storage.LANDING, blob))
            queue.send_message(b64encode(event.encode()).decode())
        with self._cloud.transaction():
            for blob in blobs:
                self._cloud.documents.put(SEEN, str(blob.name), {"etag": _etag(blob)})
        self._seen |= {str(blob.name): _etag(blob) for blob in blobs}

    def _forget(self, names: Iterable[str]) -> None:
        """Deleted blobs: the same content uploaded again is an event again."""
        with self._cloud.transaction():
            for name in names:
                self._cloud.documents.delete(SEEN, name)
        for name in list(names):
            del self._seen[name]


def blob_created(settings: Settings, container: str, blob: BlobProperties) -> dict[str, Any]:
    """A Microsoft.Storage.BlobCreated event. Its id follows from blob and ETag."""
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
