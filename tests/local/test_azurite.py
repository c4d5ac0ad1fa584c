"""Writes that Azurite has acknowledged survive `kill -9`: `local/azurite/durable.js`.

Real Azurite processes on disk are killed while clients write, and restarted on the same ports.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobLeaseClient, ContainerClient
from azure.storage.queue import QueueClient

from local.machine import azurite_command

NAME, KEY = "account", "YSBrZXkgdGhhdCBvbmx5IHRoZSB0ZXN0cyB1c2U="
CREDENTIAL = {"account_name": NAME, "account_key": KEY}
SAVED_EVERY = 5  # seconds, by Azurite itself, without the journal


class Azurite:
    """An Azurite with its folder; its ports stay the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"blob": 0, "queue": 0, "table": 0}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            azurite_command(self.folder, self.ports),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"AZURITE_ACCOUNTS": f"{NAME}:{KEY}"},
        )
        assert self.process.stdout is not None
        output = ""
        while "Table service is successfully" not in output:
            line = self.process.stdout.readline()
            assert line, f"Azurite ended with {self.process.wait()}: {output}"
            output += line
        for service in self.ports:
            address = rf"{service.capitalize()} service is successfully listening at http://127.0.0.1:(\d+)"
            match = re.search(address, output)
            assert match is not None
            self.ports[service] = int(match[1])

    def stop(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def container(self, name: str = "lake") -> ContainerClient:
        where = f"http://127.0.0.1:{self.ports['blob']}/{NAME}"
        return ContainerClient(where, name, credential=CREDENTIAL, retry_total=0)

    def queue(self, name: str = "landed") -> QueueClient:
        where = f"http://127.0.0.1:{self.ports['queue']}/{NAME}"
        return QueueClient(where, name, credential=CREDENTIAL, retry_total=0)


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[Azurite]:
    azurite = Azurite(tmp_path / "azurite")
    azurite.start()
    yield azurite
    if azurite.process is not None and azurite.process.poll() is None:
        azurite.stop()


def kill_and_restart(azurite: Azurite) -> None:
    azurite.stop(signal.SIGKILL)
    azurite.start()


def test_every_acknowledged_write_survives_a_kill(azurite: Azurite) -> None:
    client, queue = azurite.container(), azurite.queue()
    client.create_container(metadata={"of": "tests"})
    queue.create_queue()
    client.upload_blob("once", b"1")
    client.upload_blob("twice", b"old")
    client.upload_blob("twice", b"new", overwrite=True)
    client.upload_blob("gone", b"x")
    client.delete_blob("gone")
    blob = client.get_blob_client("blocks")
    blob.stage_block("YQ==", b"in ")
    blob.stage_block("Yg==", b"two blocks")
    blob.commit_block_list([BlobBlock("YQ=="), BlobBlock("Yg==")])
    client.get_blob_client("once").set_blob_metadata({"seen": "yes"})
    leased = BlobLeaseClient(client.get_blob_client("once"))
    leased.acquire(lease_duration=60)
    etag = client.get_blob_client("twice").get_blob_properties().etag
    for text in ("first", "second", "third"):
        queue.send_message(text)
    queue.delete_message(queue.receive_message())

    kill_and_restart(azurite)

    assert {blob.name for blob in client.list_blobs()} == {"once", "twice", "blocks"}
    assert client.download_blob("twice").readall() == b"new"
    assert client.get_blob_client("twice").get_blob_properties().etag == etag
    assert client.download_blob("blocks").readall() == b"in two blocks"
    assert client.get_container_properties().metadata == {"of": "tests"}
    assert client.get_blob_client("once").get_blob_properties().metadata == {"seen": "yes"}
    with pytest.raises(AzureError, match="lease"):
        client.delete_blob("once")
    leased.release()
    assert [message.content for message in queue.peek_messages(5)] == ["second", "third"]
    client.upload_blob("after", b"a new one gets an id of its own")
    assert client.download_blob("once").readall() == b"1"


def test_repeated_kills_lose_nothing(azurite: Azurite) -> None:
    azurite.container().create_container()
    for number in range(4):
        azurite.container().upload_blob(f"b{number}", str(number).encode())
        azurite.container().delete_blob(f"b{number - 1}") if number else None
        kill_and_restart(azurite)
    assert [blob.name for blob in azurite.container().list_blobs()] == ["b3"]


def test_a_graceful_end_after_a_kill_needs_no_journal(azurite: Azurite) -> None:
    azurite.container().create_container()
    azurite.container().upload_blob("a", b"a")
    kill_and_restart(azurite)
    azurite.container().upload_blob("b", b"b")
    azurite.stop(signal.SIGTERM)
    for journal in azurite.folder.glob("*.journal.*"):
        journal.unlink()
    azurite.start()
    assert [blob.name for blob in azurite.container().list_blobs()] == ["a", "b"]


def test_a_torn_last_line_of_the_journal_is_ignored(azurite: Azurite) -> None:
    azurite.container().create_container()
    azurite.container().upload_blob("whole", b"whole")
    azurite.stop()
    newest = max(azurite.folder.glob("__azurite_db_blob__.json.journal.*"), key=lambda path: path.stat().st_mtime)
    with newest.open("a") as file:
        file.write('[["$BLOBS_COLLECTION$","put",{"name":"to')
    azurite.start()
    assert [blob.name for blob in azurite.container().list_blobs()] == ["whole"]


def test_old_journals_are_removed(azurite: Azurite) -> None:
    azurite.container().create_container()
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            azurite.container().upload_blob("same", os.urandom(200), overwrite=True)

    writer = threading.Thread(target=write)
    writer.start()
    done.wait(2 * SAVED_EVERY + 1)
    done.set()
    writer.join()
    databases = {path.name.partition(".journal.")[0] for path in azurite.folder.glob("*.journal.*")}
    assert "__azurite_db_blob__.json" in databases
    for name in databases:
        assert len(list(azurite.folder.glob(f"{name}.journal.*"))) <= 2


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.faults), pytest.param(3, marks=pytest.mark.faults)]
)
def test_writes_acknowledged_while_it_is_killed_are_kept(azurite: Azurite, seed: int) -> None:
    """Many writers replace and delete blobs; at random moments Azurite is killed. An acknowledged content stays until the
    next one is acknowledged. A write without a response may have happened or not. Readers see no other content."""
    drawn = random.Random(seed)
    azurite.container().create_container()
    acknowledged: dict[str, bytes | None] = {f"blob{n}": None for n in range(6)}
    unknown: dict[str, list[bytes | None]] = {name: [] for name in acknowledged}
    ended = threading.Event()

    def write(name: str, own: random.Random) -> None:
        client: Any = azurite.container()
        while not ended.is_set():
            content = None if own.random() < 0.2 else own.randbytes(own.randint(1, 3000))
            try:
                if content is None:
                    client.delete_blob(name)
                else:
                    client.upload_blob(name, content, overwrite=True)
            except ResourceNotFoundError:
                content = None  # there was no such blob
            except AzureError:
                unknown[name].append(content)
                ended.wait(0.02)
                continue
            acknowledged[name], unknown[name] = content, []

    def check() -> None:
        client = azurite.container()
        for name, content in acknowledged.items():
            try:
                stored = client.download_blob(name).readall()
            except ResourceNotFoundError:
                stored = None
            assert stored in (content, *unknown[name]), (
                f"{name} is neither the acknowledged content nor a requested one"
            )
            acknowledged[name], unknown[name] = stored, []

    for _ in range(3):
        ended.clear()
        writers = [threading.Thread(target=write, args=(name, random.Random(drawn.random()))) for name in acknowledged]
        for writer in writers:
            writer.start()
        ended.wait(drawn.uniform(0.2, 1.5))
        azurite.stop(signal.SIGKILL)
        ended.set()
        for writer in writers:
            writer.join()
        azurite.start()
        check()


def test_without_space_for_the_journal_it_ends_without_a_response(azurite: Azurite) -> None:
    """As on a full disk; after a restart with space, it has all acknowledged writes."""
    resource = pytest.importorskip("psutil")
    client = azurite.container()
    client.create_container()
    client.upload_blob("before", b"kept")
    assert azurite.process is not None
    limited = resource.Process(azurite.process.pid)
    largest = max(path.stat().st_size for path in azurite.folder.glob("*.json*"))
    limited.rlimit(resource.RLIMIT_FSIZE, (largest + 4000, largest + 4000))
    written: list[str] = []

    def write() -> None:
        for number in range(100):
            client.upload_blob(f"b{number}", b"x")
            written.append(f"b{number}")

    with pytest.raises(AzureError):
        write()
    azurite.process.wait(20)
    azurite.start()
    assert set(written) <= {blob.name for blob in client.list_blobs()}
    assert client.download_blob("before").readall() == b"kept"
    saved = json.loads((azurite.folder / "__azurite_db_blob__.json").read_text())
    assert saved["filename"].endswith("__azurite_db_blob__.json")
