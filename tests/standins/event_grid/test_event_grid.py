"""Event Grid: every landed blob becomes a message in a storage queue, at least once, also across restarts."""

from __future__ import annotations

import json
import signal
import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest


def receive(account: Any, count: int, seconds: float = 10) -> list[dict[str, Any]]:
    """Receive messages until there are `count` of them."""
    queue, events = account.queue("landed"), []
    deadline = time.monotonic() + seconds
    while len(events) < count and time.monotonic() < deadline:
        events += take(queue)
        time.sleep(0.1)
    return events


def take(queue: Any) -> list[dict[str, Any]]:
    messages = list(queue.receive_messages(messages_per_page=32))
    for message in messages:
        queue.delete_message(message)
    return [json.loads(b64decode(message.content)) for message in messages]


@pytest.fixture
def landing(account: Any) -> Any:
    account.queue("landed").create_queue()
    return account.container("landing")


def names(events: list[dict[str, Any]]) -> list[str]:
    return sorted(event["subject"].rpartition("/blobs/")[2] for event in events)


def test_a_missing_container_or_queue_is_not_created(standins_of: Callable[..., Any], account: Any) -> None:
    cloud = standins_of(account)
    time.sleep(1.5)
    with pytest.raises(Exception, match="QueueNotFound"):
        account.queue("landed").get_queue_properties()
    # Container and queue may be created later, in any order: events are sent for existing blobs.
    account.container("landing").upload_blob("a", b"x")
    account.queue("landed").create_queue()
    assert names(receive(account, 1)) == ["a"]
    assert cloud.log().count("Traceback") == 0


def test_the_schema_is_event_grids(standins_of: Callable[..., Any], account: Any, landing: Any) -> None:
    standins_of(account)
    landing.upload_blob("transactions/1998-06-28/a.csv", b"id\n1\n")
    (event,) = receive(account, 1)
    assert event["eventType"] == "Microsoft.Storage.BlobCreated"
    assert event["topic"].endswith(f"/providers/Microsoft.Storage/storageAccounts/{account.name}")
    assert event["subject"] == "/blobServices/default/containers/landing/blobs/transactions/1998-06-28/a.csv"
    assert event["data"]["url"] == f"{account.blob_endpoint}/landing/transactions/1998-06-28/a.csv"
    assert (event["data"]["contentLength"], event["data"]["blobType"]) == (5, "BlockBlob")
    assert (event["dataVersion"], event["metadataVersion"]) == ("", "1")
    assert set(event["data"]) == {
        "api",
        "clientRequestId",
        "requestId",
        "eTag",
        "contentType",
        "contentLength",
        "blobType",
        "url",
        "sequencer",
        "storageDiagnostics",
    }


def test_a_rewritten_blob_is_a_new_event(standins_of: Callable[..., Any], account: Any, landing: Any) -> None:
    standins_of(account)
    landing.upload_blob("a", b"1")
    (first,) = receive(account, 1)
    landing.upload_blob("a", b"2", overwrite=True)
    (second,) = receive(account, 1)
    assert first["id"] != second["id"]
    landing.delete_blob("a")
    time.sleep(2.5)
    landing.upload_blob("a", b"2")
    assert names(receive(account, 1)) == ["a"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_loses_nothing(
    standins_of: Callable[..., Any], account: Any, landing: Any, number: signal.Signals
) -> None:
    cloud = standins_of(account)
    landing.upload_blob("before", b"x")
    assert names(receive(account, 1)) == ["before"]
    time.sleep(0.3)  # an event is recorded as sent right after it is sent
    cloud.stop(number)
    landing.upload_blob("meanwhile", b"x")
    cloud.start()
    assert names(receive(account, 1)) == ["meanwhile"]
    time.sleep(1.5)
    assert take(account.queue("landed")) == []


def test_many_files_at_once_all_arrive(standins_of: Callable[..., Any], account: Any, landing: Any) -> None:
    blobs = [f"t/1998-01-{n:02}/a.csv" for n in range(1, 32)] + [f"t/1998-02-{n:02}/a.csv" for n in range(1, 29)]
    for name in blobs:
        landing.upload_blob(name, b"x")
    standins_of(account)
    assert names(receive(account, len(blobs))) == blobs
