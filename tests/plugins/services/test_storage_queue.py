"""Blob-created events on a storage queue: each wakes Airflow, and its message is deleted once its event is stored."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from airflow.triggers.base import TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome, SharedStreamManager

from mlops.scheduling.assets import QUEUE_CONN_ID, noticed
from mlops.services import storage_queue
from mlops.services.storage_queue import BATCH, StorageQueueTrigger
from tests.support.cloud.standins import KEY, Account
from tests.support.components.triggers import rebuilt

CLEAN = AdvanceOutcome(acked=1, failed=0)
SUBJECT = "/blobServices/default/containers/landing/blobs/transactions/1998-06-28/a.csv"


@pytest.fixture
def queue(new_account: Callable[[], Account], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The storage queue of the Connection of the landing queue."""
    account = new_account()
    client = account.queue("landed")
    client.create_queue()
    connection = {
        "conn_type": "wasb",
        "host": account.queue_endpoint,
        "login": account.name,
        "password": KEY,
        "extra": {"queue": "landed"},
    }
    monkeypatch.setenv(f"AIRFLOW_CONN_{QUEUE_CONN_ID.upper()}", json.dumps(connection))
    monkeypatch.setattr(storage_queue, "IDLE_PAUSE", 0.05)
    return client


def event(subject: str = SUBJECT) -> str:
    """A blob-created event as Event Grid puts it into a storage queue."""
    body = {"eventType": "Microsoft.Storage.BlobCreated", "subject": subject, "data": {"contentLength": 3}}
    return base64.b64encode(json.dumps(body).encode()).decode()


def count_messages(queue: Any) -> int:
    """Messages in the queue, hidden ones included."""
    return int(queue.get_queue_properties().approximate_message_count)


def drain(count: int, outcome: AdvanceOutcome | None = CLEAN, trigger: StorageQueueTrigger | None = None) -> list[Any]:
    """The first `count` raw events of the stream, each advanced with `outcome` (None: never advanced)."""
    watcher = trigger or StorageQueueTrigger(QUEUE_CONN_ID)

    async def work() -> list[Any]:
        producer = watcher.create_shared_stream_producer(watcher.serialize()[1])
        stream = producer.open_stream()
        events: list[Any] = []
        try:
            while len(events) < count:
                raw, payload = await anext(stream)
                events.append(raw)
                if outcome is not None:
                    await producer.advance([AdvanceItem(payload, outcome)])
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
            await producer.aclose()
        return events

    return asyncio.run(asyncio.wait_for(work(), 20))


class TestAWakeUp:
    def test_lists_the_blobs(self, queue: Any) -> None:
        queue.send_message(event())
        assert drain(1) == [[SUBJECT]]

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param("not base64 at all!", id="not-base64"),
            pytest.param(base64.b64encode(b"\xff\xfe").decode(), id="not-text"),
            pytest.param(base64.b64encode(b"not json").decode(), id="not-json"),
            pytest.param(base64.b64encode(b"{}").decode(), id="without-subject"),
            pytest.param(base64.b64encode(b"[1, 2]").decode(), id="a-list"),
            pytest.param(base64.b64encode(b"7").decode(), id="a-number"),
            pytest.param("", id="empty"),
        ],
    )
    def test_comes_from_an_unreadable_message_too_which_is_deleted(self, queue: Any, content: str) -> None:
        """A message only says that something changed, so an unreadable one wakes Airflow too, once."""
        queue.send_message(content)
        queue.send_message(event())
        (batch,) = drain(1)
        assert sorted(batch) == sorted(["unreadable message", SUBJECT])
        assert count_messages(queue) == 0

    def test_covers_many_messages_at_once(self, queue: Any) -> None:
        for n in range(BATCH + 3):
            queue.send_message(event(f"blob {n}"))
        first, second = drain(2)
        assert (len(first), len(second)) == (BATCH, 3)
        assert {*first, *second} == {f"blob {n}" for n in range(BATCH + 3)}

    def test_comes_from_a_later_message(self, queue: Any) -> None:
        async def work() -> Any:
            waiting = asyncio.ensure_future(anext(StorageQueueTrigger(QUEUE_CONN_ID).run()))
            await asyncio.sleep(0.3)
            assert not waiting.done(), "an empty queue fires no event"
            await asyncio.to_thread(queue.send_message, event())
            return await waiting

        assert asyncio.run(asyncio.wait_for(work(), 20)) == TriggerEvent({"blobs": [SUBJECT]})


class TestAMessage:
    @pytest.mark.parametrize(
        ("outcome", "stays"),
        [
            pytest.param(CLEAN, 0, id="deleted-when-stored"),
            pytest.param(None, 1, id="kept-when-the-triggerer-died"),
            pytest.param(AdvanceOutcome(acked=1, failed=1), 1, id="kept-when-one-of-two-failed"),
            pytest.param(AdvanceOutcome(acked=0, failed=0), 1, id="kept-without-a-subscriber"),
            pytest.param(AdvanceOutcome(acked=0, failed=0, rejected=1), 1, id="kept-when-rejected"),
        ],
    )
    def test_is(self, queue: Any, outcome: AdvanceOutcome | None, stays: int) -> None:
        queue.send_message(event())
        drain(1, outcome)
        assert count_messages(queue) == stays

    def test_that_was_kept_is_delivered_again(self, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage_queue, "HIDDEN", 1)
        queue.send_message(event())
        drain(1, outcome=None)
        assert drain(1) == [[SUBJECT]]
        assert count_messages(queue) == 0

    def test_that_is_deleted_already_is_no_error(self, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        queue.send_message(event())

        async def work() -> None:
            producer = StorageQueueTrigger.create_shared_stream_producer({"conn_id": QUEUE_CONN_ID})
            stream = producer.open_stream()
            _, payload = await anext(stream)
            await asyncio.to_thread(queue.clear_messages)
            await producer.advance([AdvanceItem(payload, CLEAN)])
            await stream.aclose()  # type: ignore[attr-defined]
            await producer.aclose()

        asyncio.run(asyncio.wait_for(work(), 20))


class TestInTheTriggerer:
    def test_two_watchers_share_one_stream_and_the_message_waits_for_both(self, queue: Any) -> None:
        """As the triggerer drives it: an event is stored first, and only then is its message deleted."""
        queue.send_message(event())

        async def work() -> list[int]:
            manager = SharedStreamManager(log=structlog.get_logger())
            triggers = {n: rebuilt(StorageQueueTrigger(QUEUE_CONN_ID)) for n in (1, 2)}
            key = triggers[1].shared_stream_key()
            assert triggers[2].shared_stream_key() == key
            streams = {
                n: trigger.filter_shared_stream(manager.subscribe(trigger_id=n, trigger=trigger, key=key))
                for n, trigger in triggers.items()
            }
            seqs, going_on, counts = [], [], []
            for n, stream in streams.items():
                assert await anext(stream) == TriggerEvent({"blobs": [SUBJECT]})
                seqs.append(manager.bind_pending_event(trigger_id=n, key=key))
                going_on.append(asyncio.ensure_future(anext(stream)))
            counts.append(await asyncio.to_thread(count_messages, queue))
            for seq in seqs:
                manager.confirm_persisted([seq])
                await asyncio.sleep(0.5)
                counts.append(await asyncio.to_thread(count_messages, queue))
            for waiting in going_on:
                waiting.cancel()
            await manager.stop_all()
            return counts

        assert asyncio.run(asyncio.wait_for(work(), 20)) == [1, 1, 0]

    def test_another_queue_is_another_stream(self) -> None:
        assert StorageQueueTrigger("a").shared_stream_key() != StorageQueueTrigger("b").shared_stream_key()

    def test_every_parse_declares_the_same_watcher(self) -> None:
        """Airflow stores equal triggers once: the queue has one reader."""
        stored = [noticed().watchers[0].trigger.serialize() for _ in range(2)]
        assert stored[0] == stored[1]
        assert stored[0][1]["conn_id"] == QUEUE_CONN_ID
