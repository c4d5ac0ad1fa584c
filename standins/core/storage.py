"""Clients of the storage account that all stand-ins use, with its account key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from standins.core.cloud import Settings

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient
    from azure.storage.queue import QueueClient

LANDING, LAKE, LANDED_QUEUE = "landing", "lake", "landed"

# Seconds. The account runs on the same machine: without a response in this time it is down.
_CONNECT, _READ = 5, 60
_RETRIES, _BACKOFF = 2, 1  # the SDK's default of 15 s before the first retry would delay a cancel
_PIECE = 4 * 1024 * 1024  # bytes of a blob held in memory while it is read or written


def container(settings: Settings, name: str) -> ContainerClient:
    from azure.storage.blob import ContainerClient

    return ContainerClient(
        settings.blob_endpoint,
        name,
        credential=_credential(settings),
        connection_timeout=_CONNECT,
        read_timeout=_READ,
        retry_total=_RETRIES,
        initial_backoff=_BACKOFF,
        increment_base=_BACKOFF,
        max_single_get_size=_PIECE,
        max_chunk_get_size=_PIECE,
        max_single_put_size=_PIECE,
        max_block_size=_PIECE,
    )


def queue(settings: Settings, name: str) -> QueueClient:
    from azure.storage.queue import QueueClient

    return QueueClient(
        settings.queue_endpoint,
        name,
        credential=_credential(settings),
        connection_timeout=_CONNECT,
        read_timeout=_READ,
        retry_total=_RETRIES,
        initial_backoff=_BACKOFF,
        increment_base=_BACKOFF,
    )


def delta_options(settings: Settings) -> dict[str, str]:
    """Storage options for delta-rs. The endpoint is explicit: its emulator option always uses port 10000."""
    return {
        "account_name": settings.storage_account,
        "account_key": settings.storage_key,
        "azure_storage_endpoint": settings.blob_endpoint,
        "allow_http": str(settings.blob_endpoint.startswith("http://")).lower(),
    }


def _credential(settings: Settings) -> dict[str, str]:
    return {"account_name": settings.storage_account, "account_key": settings.storage_key}
