"""What Azurite has acknowledged is there after `kill -9`: `local/azurite/durable.js`.

Real Azurite processes on disk; killed while clients write, started again on the same ports.
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

from local.machine import _AZURITE, _DURABLE, _node

NAME, KEY = "account", "YSBrZXkgdGhhdCBvbmx5IHRoZSB0ZXN0cyB1c2U="
CREDENTIAL = {"account_name": NAME, "account_key": KEY}
SAVED_EVERY = 5  # seconds: Azurite's own, without the journal


class Azurite:
    """One Azurite with its folder; its ports stay the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"Blob": 0, "Queue": 0, "Table": 0}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [_node(), "--require", str(_DURABLE), str(_AZURITE), "--location", str(self.folder)]
        command += ["--disableTelemetry", "--skipApiVersionCheck", "--silent"]
        for service, port in self.ports.items():
            command += [f"--{service.lower()}Host", "127.0.0.1", f"--{service.lower()}Port", str(port)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"AZURITE_ACCOUNTS": f"{NAME}:{KEY}"},
        )
        assert self.process.stdout is not None
        told = ""
        while "Table service is successfully" not in told:
            line = self.process.stdout.readline()
            assert line, f"Azurite ended with {self.process.wait()}: {told}"
            told += line
        for service in self.ports:
            found = re.search(rf"{service} service is successfully listening at http://127.0.0.1:(\d+)", told)
            assert found is not None
            self.ports[service] = int(found[1])

    def stop(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def container(self, name: str = "lake") -> ContainerClient:
        where = f"http://127.0.0.1:{self.ports['Blob']}/{NAME}"
        return ContainerClient(where, name, credential=CREDENTIAL, retry_total=0)

    def queue(self, name: str = "landed") -> QueueClient:
        where = f"http://127.0.0.1:{self.ports['Queue']}/{NAME}"
        return QueueClient(where, name, credential=CREDENTIAL, retry_total=0)


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[Azurite]:
    one = Azurite(tmp_path / "azurite")
    one.start()
    yield one
    if one.process is not None and one.process.poll() is None:
        one.stop()


def killed(azurite: Azurite) -> None:
    azurite.stop(signal.SIGKILL)
    azurite.start()


def test_everything_acknowledged_outlives_a_kill(azurite: Azurite) -> None:
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

    killed(azurite)

    assert {found.name for found in client.list_blobs()} == {"once", "twice", "blocks"}
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


def test_kills_one_after_the_other_lose_nothing(azurite: Azurite) -> None:
    azurite.container().create_container()
    for number in range(4):
        azurite.container().upload_blob(f"b{number}", str(number).encode())
        azurite.container().delete_blob(f"b{number - 1}") if number else None
        killed(azurite)
    assert [found.name for found in azurite.container().list_blobs()] == ["b3"]


def test_a_graceful_end_after_a_kill_needs_no_journal(azurite: Azurite) -> None:
    azurite.container().create_container()
    azurite.container().upload_blob("a", b"a")
    killed(azurite)
    azurite.container().upload_blob("b", b"b")
    azurite.stop(signal.SIGTERM)
    for journal in azurite.folder.glob("*.journal.*"):
        journal.unlink()
    azurite.start()
    assert [found.name for found in azurite.container().list_blobs()] == ["a", "b"]


def test_a_torn_last_line_is_what_was_not_acknowledged(azurite: Azurite) -> None:
    azurite.container().create_container()
    azurite.container().upload_blob("whole", b"whole")
    azurite.stop()
    newest = max(azurite.folder.glob("__azurite_db_blob__.json.journal.*"), key=lambda path: path.stat().st_mtime)
    with newest.open("a") as file:
        file.write('[["$BLOBS_COLLECTION$","put",{"name":"to')
    azurite.start()
    assert [found.name for found in azurite.container().list_blobs()] == ["whole"]


def test_journals_do_not_pile_up(azurite: Azurite) -> None:
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
def test_whoever_writes_while_it_is_killed_finds_each_answer_kept(azurite: Azurite, seed: int) -> None:
    """Many writers replace and delete; at random moments Azurite is killed. An acknowledged content stays until the next
    is acknowledged; one without an answer may have happened or not, and nothing else is ever seen."""
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
                content = None  # it was not there, and is not
            except AzureError:
                unknown[name].append(content)
                ended.wait(0.02)
                continue
            acknowledged[name], unknown[name] = content, []

    def check() -> None:
        client = azurite.container()
        for name, content in acknowledged.items():
            try:
                found = client.download_blob(name).readall()
            except ResourceNotFoundError:
                found = None
            assert found in (content, *unknown[name]), f"{name} is neither what was acknowledged nor what was asked for"
            acknowledged[name], unknown[name] = found, []

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


def test_without_room_for_the_journal_it_ends_and_answers_nothing(azurite: Azurite) -> None:
    """As on a full disk; started again with room, it has what it had acknowledged."""
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
    assert set(written) <= {found.name for found in client.list_blobs()}
    assert client.download_blob("before").readall() == b"kept"
    saved = json.loads((azurite.folder / "__azurite_db_blob__.json").read_text())
    assert saved["filename"].endswith("__azurite_db_blob__.json")
